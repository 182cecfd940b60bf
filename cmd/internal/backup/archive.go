package backup

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Names of the members that every backup has: the first, and the last. sums is in the format of sha256sum and
// covers every other member.
const (
	manifestName = "manifest.json"
	sumsName     = "SHA256SUMS"
)

// format is the version of what is in a backup. One that is newer is refused.
const format = 1

// Bounds of the members that are read into memory.
const (
	maxManifest = 64 << 10
	maxSums     = 256 << 20
)

// Errors of Restore beside those of the disk.
var (
	// ErrDamaged means that the file is not a whole backup, or not as it was written.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrNewer means that a later release wrote it.
	ErrNewer = errors.New("the backup was written by a later release")
	// ErrNotEmpty means that something stands where the hub is to be restored to.
	ErrNotEmpty = errors.New("the directory is not empty")
)

// Manifest says what a backup is of.
type Manifest struct {
	// Format is that of the backup.
	Format int `json:"format"`
	// Version of the program that wrote it.
	Version string `json:"version"`
	// Time at which it was begun.
	Time time.Time `json:"time"`
	// URL by which sites reach the hub; empty when it never ran.
	URL string `json:"url,omitempty"`
}

// writer writes one archive.
type writer struct {
	gzip *gzip.Writer
	tar  *tar.Writer
	sums strings.Builder
}

func newWriter(w io.Writer, m Manifest) (*writer, error) {
	// The bulk is bundles, which are compressed already.
	zw, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	out := &writer{gzip: zw, tar: tar.NewWriter(zw)}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	data = append(data, '\n')
	return out, out.add(manifestName, int64(len(data)), m.Time, strings.NewReader(string(data)))
}

// add writes a member of just size bytes.
func (w *writer) add(name string, size int64, modified time.Time, content io.Reader) error {
	head := &tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: modified, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if err := w.tar.WriteHeader(head); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w.tar, sum), io.LimitReader(content, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(&w.sums, "%s  %s\n", hex.EncodeToString(sum.Sum(nil)), name)
	return nil
}

// addFile adds a file of root under its own name, with its time: grace periods count from it. One that is
// gone meanwhile is left out.
func (w *writer) addFile(root *os.Root, name string) error {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return w.add(name, info.Size(), info.ModTime(), f)
}

// close writes the sums and ends the archive.
func (w *writer) close() error {
	sums := w.sums.String()
	return errors.Join(w.add(sumsName, int64(len(sums)), time.Time{}, strings.NewReader(sums)), w.tar.Close(), w.gzip.Close())
}

// read unpacks an archive into root and checks everything that it says of itself. What it wrote before an
// error is for the caller to remove.
func read(r io.Reader, root *os.Root) (Manifest, error) {
	zr, err := gzip.NewReader(bufio.NewReader(r))
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	in := reader{tar: tar.NewReader(zr), root: root, got: map[string]string{}}
	if err := in.all(); err != nil {
		return Manifest{}, err
	}
	// The checksum of the compression stands behind the archive.
	if _, err := io.Copy(io.Discard, zr); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return in.manifest, nil
}

type reader struct {
	tar      *tar.Reader
	root     *os.Root
	manifest Manifest
	got      map[string]string // digests of the members, by name
	sums     string
}

func (r *reader) all() error {
	for {
		head, err := r.tar.Next()
		if errors.Is(err, io.EOF) {
			return r.check()
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err := r.member(head); err != nil {
			return err
		}
	}
}

func (r *reader) member(head *tar.Header) error {
	name := head.Name
	_, twice := r.got[name]
	switch {
	case head.Typeflag != tar.TypeReg, !filepath.IsLocal(name), path.Clean(name) != name, twice:
		return fmt.Errorf("%w: it must not hold a member %q", ErrDamaged, name)
	case r.sums != "":
		return fmt.Errorf("%w: %s comes after %s", ErrDamaged, name, sumsName)
	case len(r.got) == 0 && name != manifestName:
		return fmt.Errorf("%w: it begins with %q, not with %s: is it a backup of a hub?", ErrDamaged, name, manifestName)
	case name == manifestName:
		return r.readManifest(head)
	case name == sumsName:
		data, err := r.small(head, maxSums)
		r.sums = string(data)
		return err
	}
	return r.unpack(head)
}

func (r *reader) small(head *tar.Header, limit int64) ([]byte, error) {
	if head.Size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrDamaged, head.Name, head.Size, limit)
	}
	data, err := io.ReadAll(r.tar)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, head.Name, err)
	}
	return data, nil
}

func (r *reader) readManifest(head *tar.Header) error {
	data, err := r.small(head, maxManifest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &r.manifest); err != nil || r.manifest.Format < 1 {
		return fmt.Errorf("%w: %s: format %d: %w", ErrDamaged, manifestName, r.manifest.Format, errors.Join(err, errFormat))
	}
	if r.manifest.Format > format {
		return fmt.Errorf("%w: it has format %d and was written by skerry %s; this program reads %d: install that release", ErrNewer, r.manifest.Format, r.manifest.Version, format)
	}
	sum := sha256.Sum256(data)
	r.got[manifestName] = hex.EncodeToString(sum[:])
	return nil
}

var errFormat = errors.New("want an object with a format of 1 or more")

// unpack writes a member to the disk, synced, for its owner alone.
func (r *reader) unpack(head *tar.Header) error {
	name := filepath.FromSlash(head.Name)
	if err := r.root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := r.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	source := &readError{r: r.tar}
	_, err = io.Copy(io.MultiWriter(f, sum), source)
	if source.err != nil {
		err = fmt.Errorf("%w: %w", ErrDamaged, source.err)
	}
	err = errors.Join(err, f.Sync(), f.Close(), r.root.Chtimes(name, head.ModTime, head.ModTime))
	if err != nil {
		return fmt.Errorf("%s: %w", head.Name, err)
	}
	r.got[head.Name] = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// readError remembers that reading failed, so that it is told apart from writing.
type readError struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (r *readError) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// check compares what was unpacked with the sums.
func (r *reader) check() error {
	if r.sums == "" {
		return fmt.Errorf("%w: it ends before its %s", ErrDamaged, sumsName)
	}
	want := map[string]string{}
	for line := range strings.Lines(r.sums) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok {
			return fmt.Errorf("%w: %s has a line %q", ErrDamaged, sumsName, line)
		}
		want[name] = sum
	}
	for name, sum := range r.got {
		if want[name] != sum {
			return fmt.Errorf("%w: %s has the digest sha256:%s, want sha256:%s", ErrDamaged, name, sum, want[name])
		}
	}
	if len(want) != len(r.got) {
		return fmt.Errorf("%w: %d of its %d members are missing", ErrDamaged, len(want)-len(r.got), len(want))
	}
	return nil
}
