package ociregistry

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// The directories; see the package's comment.
const (
	blobDir       = "blobs/sha256"
	repoDir       = "repos"
	quarantineDir = "quarantine"
	tmpDir        = "tmp"
)

// linkKind is a directory of links below a repository.
type linkKind string

const (
	blobLinks     linkKind = "_blobs"
	manifestLinks linkKind = "_manifests"
	tagLinks      linkKind = "_tags"
	referrerLinks linkKind = "_referrers"
)

const (
	// verifiedFor is how long larger content counts as verified while its file does not change, so that a
	// thousand sites that fetch one blob in ranges do not have it hashed a thousand times.
	verifiedFor = time.Minute
	maxVerified = 1024
)

// errTooLarge is wrapped by read.
var errTooLarge = errors.New("content is too large")

// disk is the directory of a registry: it knows files, not requests.
type disk struct {
	root    *os.Root
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	verified *lru[fleet.Digest, verification]

	mu        sync.Mutex
	verifying map[fleet.Digest]chan struct{} // closed when the verification of a blob is over
}

// verification remembers which file was verified, and when.
type verification struct {
	at   time.Time
	info fs.FileInfo
}

func newDisk(root *os.Root, opts Options, m *metrics) (*disk, error) {
	if err := root.RemoveAll(tmpDir); err != nil {
		return nil, err
	}
	for _, dir := range []string{blobDir, repoDir, quarantineDir, tmpDir} {
		if err := root.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return &disk{
		root: root, log: opts.Log, metrics: m, now: opts.Now,
		verified:  newLRU[fleet.Digest, verification](maxVerified),
		verifying: map[fleet.Digest]chan struct{}{},
	}, nil
}

func blobPath(d fleet.Digest) string { return path.Join(blobDir, d.Hex()) }

func linkPath(repo string, k linkKind, name string) string {
	return path.Join(repoDir, repo, string(k), name)
}

// temp makes a file in tmp; the caller commits or discards it.
func (d *disk) temp() (*os.File, string, error) {
	name := path.Join(tmpDir, rand.Text())
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	return f, name, err
}

func (d *disk) discard(f *os.File, name string) {
	_ = f.Close()
	_ = d.root.Remove(name) // Open removes what stays
}

// commit gives a complete temporary file its name, on disk when it returns. It takes f over.
func (d *disk) commit(f *os.File, tmp, name string, mode fs.FileMode) error {
	now := d.now()
	err := errors.Join(f.Sync(), f.Chmod(mode), f.Close(), d.root.Chtimes(tmp, now, now))
	if err == nil {
		err = d.root.Rename(tmp, name)
	}
	if err != nil {
		_ = d.root.Remove(tmp)
		return err
	}
	return d.syncDir(path.Dir(name))
}

func (d *disk) syncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// write replaces a small file whole.
func (d *disk) write(name string, data []byte, mode fs.FileMode) error {
	if err := d.mkdirs(path.Dir(name)); err != nil {
		return err
	}
	f, tmp, err := d.temp()
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		d.discard(f, tmp)
		return err
	}
	return d.commit(f, tmp, name, mode)
}

// mkdirs makes a directory, on disk when it returns.
func (d *disk) mkdirs(name string) error {
	if _, err := d.root.Stat(name); err == nil {
		return nil
	}
	parent := path.Dir(name)
	if err := d.mkdirs(parent); err != nil {
		return err
	}
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(parent)
}

// put stores a small blob; it replaces, and so heals, what stands under its name.
func (d *disk) put(data []byte) (fleet.Digest, error) {
	digest := fleet.DigestOf(data)
	return digest, d.write(blobPath(digest), data, 0o400)
}

func (d *disk) link(repo string, k linkKind, digest fleet.Digest, content string) error {
	return d.write(linkPath(repo, k, digest.Hex()), []byte(content), 0o600)
}

func (d *disk) linked(repo string, k linkKind, digest fleet.Digest) bool {
	_, err := d.root.Stat(linkPath(repo, k, digest.Hex()))
	return err == nil
}

// touch begins the grace period of a link anew.
func (d *disk) touch(repo string, digest fleet.Digest) {
	now := d.now()
	for _, k := range []linkKind{blobLinks, manifestLinks} {
		_ = d.root.Chtimes(linkPath(repo, k, digest.Hex()), now, now) // most digests have one of the two
	}
}

func (d *disk) unlink(name string) error {
	if err := d.root.Remove(name); err != nil {
		return err
	}
	return d.syncDir(path.Dir(name))
}

// list returns the names in a directory in order; none when it does not exist.
func (d *disk) list(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(d.root.FS(), name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// read returns the content of a blob of at most limit bytes, verified.
func (d *disk) read(digest fleet.Digest, limit int64) ([]byte, error) {
	f, err := d.root.Open(blobPath(digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than the %d bytes that are allowed here: %w", digest, limit, errTooLarge)
	}
	if err := digest.Check(data); err != nil {
		d.setAside(digest)
		return nil, err
	}
	return data, nil
}

// open opens a blob after verifying it. The caller closes the file.
func (d *disk) open(digest fleet.Digest) (*os.File, fs.FileInfo, error) {
	for {
		f, info, fresh, err := d.openOnce(digest)
		if err != nil || fresh {
			return f, info, err
		}
		_ = f.Close()
		if err := d.verify(digest); err != nil {
			return nil, nil, err
		}
	}
}

func (d *disk) openOnce(digest fleet.Digest) (f *os.File, info fs.FileInfo, fresh bool, err error) {
	if f, err = d.root.Open(blobPath(digest)); err != nil {
		return nil, nil, false, err
	}
	if info, err = f.Stat(); err != nil {
		_ = f.Close()
		return nil, nil, false, err
	}
	if v, ok := d.verified.get(digest); ok && sameFile(v.info, info) {
		return f, info, d.now().Sub(v.at) < verifiedFor, nil
	}
	return f, info, false, nil
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// verify hashes a blob, once for all who ask at the same time, and remembers that it is good.
func (d *disk) verify(digest fleet.Digest) error {
	d.mu.Lock()
	if done, ok := d.verifying[digest]; ok {
		d.mu.Unlock()
		<-done
		return nil // the caller looks again
	}
	done := make(chan struct{})
	d.verifying[digest] = done
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.verifying, digest)
		d.mu.Unlock()
		close(done)
	}()

	f, err := d.root.Open(blobPath(digest))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	got, _, err := fleet.DigestReader(f)
	if err != nil {
		return err
	}
	if got != digest {
		d.setAside(digest)
		return fmt.Errorf("want %s, content is %s: %w", digest, got, fleet.ErrDigest)
	}
	d.verified.put(digest, verification{at: d.now(), info: info})
	return nil
}

// setAside moves a corrupt blob out of the way, where an administrator can look at it until Collect
// removes it.
func (d *disk) setAside(digest fleet.Digest) {
	d.metrics.corrupt.Inc()
	aside := path.Join(quarantineDir, digest.Hex())
	err := d.root.Rename(blobPath(digest), aside)
	if err == nil {
		now := d.now()
		err = errors.Join(d.root.Chtimes(aside, now, now), d.syncDir(blobDir))
	}
	d.log.Error("registry content is corrupt on disk and was set aside; push it again", "digest", digest, "file", aside, "error", err)
}

// quarantined reports whether digest was set aside and not yet pushed again.
func (d *disk) quarantined(digest fleet.Digest) bool {
	_, err := d.root.Stat(path.Join(quarantineDir, digest.Hex()))
	return err == nil
}

// heal forgets that digest was set aside: it was pushed again.
func (d *disk) heal(digest fleet.Digest) {
	_ = d.root.Remove(path.Join(quarantineDir, digest.Hex())) // seldom there
}
