package unpacked

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/skerry-dev/skerry/internal/app"
)

// Modes that unpacked files get: a bundle decides what is a program, and nothing else.
const (
	modeDir     = 0o755
	modeProgram = 0o755
	modeFile    = 0o644
)

// maxPath bounds a path inside a bundle, in bytes.
const maxPath = 1024

// fileRecord is what an unpacked file must be for as long as it is used.
type fileRecord struct {
	SHA256     string `json:"sha256"`
	Size       int64  `json:"size"`
	Executable bool   `json:"executable,omitempty"`
}

// fileList is an unpacked tree: its files by slash-separated path. Directories follow from them, so empty
// ones are not kept.
type fileList map[string]fileRecord

// bounds limit what is unpacked.
type bounds struct {
	files int
	bytes int64
}

// unpack writes the files of a tar archive, compressed with gzip, into the empty directory dir and returns
// what it wrote. It takes directories and regular files with clean relative paths, and refuses everything
// else with an error that wraps app.ErrBundle; dir then holds rubbish. Each file is on disk when it returns.
func unpack(r io.Reader, dir string, limit bounds) (fileList, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("files of bundle: %w: %w", err, app.ErrBundle)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("unpack bundle: %w", err)
	}
	defer root.Close()
	u := &unpacker{root: root, left: limit, files: fileList{}}
	archive := tar.NewReader(zip)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return u.files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("files of bundle: %w: %w", err, app.ErrBundle)
		}
		if err := u.entry(header, archive); err != nil {
			return nil, fmt.Errorf("files of bundle: entry %q: %w", header.Name, err)
		}
	}
}

type unpacker struct {
	root  *os.Root
	left  bounds
	files fileList
}

func (u *unpacker) entry(h *tar.Header, body io.Reader) error {
	if err := u.count(); err != nil {
		return err
	}
	name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if h.Typeflag == tar.TypeDir && (name == "" || name == ".") {
		return nil
	}
	if !app.LocalPath(name) || len(name) > maxPath {
		return fmt.Errorf("not a clean path inside the bundle of at most %d bytes: %w", maxPath, app.ErrBundle)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(name)
	case tar.TypeReg:
		return u.file(name, h, body)
	}
	return fmt.Errorf("type %q is neither a directory nor a regular file: %w", h.Typeflag, app.ErrBundle)
}

// count takes one file or directory from what is left.
func (u *unpacker) count() error {
	if u.left.files--; u.left.files < 0 {
		return fmt.Errorf("more files and directories than allowed: %w", app.ErrBundle)
	}
	return nil
}

// dir makes a directory and its parents. A file in the way is the archive's fault.
func (u *unpacker) dir(name string) error {
	if name == "." {
		return nil
	}
	if info, err := u.root.Lstat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := u.dir(path.Dir(name)); err != nil {
		return err
	}
	if err := u.count(); err != nil {
		return err
	}
	if err := u.root.Mkdir(name, modeDir); err != nil {
		return fmt.Errorf("%w: %w", err, app.ErrBundle)
	}
	return u.root.Chmod(name, modeDir) // whatever the agent's umask
}

func (u *unpacker) file(name string, h *tar.Header, body io.Reader) error {
	if u.left.bytes -= h.Size; u.left.bytes < 0 {
		return fmt.Errorf("more bytes than allowed: %w", app.ErrBundle)
	}
	if err := u.dir(path.Dir(name)); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, modeFile)
	if err != nil {
		return fmt.Errorf("%w: %w", err, app.ErrBundle)
	}
	record := fileRecord{Executable: h.FileInfo().Mode()&0o111 != 0}
	sum := sha256.New()
	record.Size, err = io.Copy(io.MultiWriter(f, sum), sound{body})
	record.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if err == nil && record.Size != h.Size {
		err = fmt.Errorf("%d bytes, the header says %d: %w", record.Size, h.Size, app.ErrBundle)
	}
	if err == nil {
		err = f.Chmod(record.mode())
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	u.files[name] = record
	return nil
}

// sound marks errors of reading an archive as the bundle's, apart from those of writing to this disk.
type sound struct{ io.Reader }

// Read implements io.Reader.
func (s sound) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: %w", err, app.ErrBundle)
	}
	return n, err
}

func (r fileRecord) mode() os.FileMode {
	if r.Executable {
		return modeProgram
	}
	return modeFile
}
