package bundle

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// entry is one file of a bundle.
type entry struct {
	name string // in the bundle
	file string // on disk
	exec bool
}

// collect lists the files of a plan for one platform. Symbolic links are refused: what they point to may
// differ from machine to machine.
func collect(dir string, files []File, p Platform) ([]entry, error) {
	var out []entry
	for i, f := range files {
		from := strings.NewReplacer("{os}", p.OS, "{arch}", p.Arch).Replace(f.From)
		to := f.To
		if to == "" {
			to = from
		}
		found, err := walk(dir, from, to)
		if err != nil {
			return nil, fmt.Errorf("build.files[%d]: %w", i, err)
		}
		for _, e := range found {
			if f.Mode != "" {
				e.exec = f.Mode == "0755"
			}
			out = append(out, e)
		}
	}
	return out, nil
}

func walk(dir, from, to string) ([]entry, error) {
	start := filepath.Join(dir, filepath.FromSlash(from))
	var out []entry
	err := filepath.WalkDir(start, func(file string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return failf(ErrSource, "build it first, or correct the path in "+SourceFile, "%s: there is no such file in %s", from, dir)
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(start, file)
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return failf(ErrSource, "replace it by the file itself", "%s is not a regular file", filepath.Join(from, rel))
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out = append(out, entry{name: path.Join(to, filepath.ToSlash(rel)), file: file, exec: info.Mode()&0o111 != 0})
		if len(out) > app.MaxFiles {
			return failf(ErrSource, "", "%s: more than %d files", from, app.MaxFiles)
		}
		return nil
	})
	return out, err
}

// packed is a layer on disk.
type packed struct {
	file   string
	digest fleet.Digest
	size   int64
	diffID fleet.Digest // of the archive before compression
}

// pack writes the entries as a compressed archive that depends on their names, content and modes alone.
func pack(file string, entries []entry) (packed, error) {
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(entries); i++ {
		if entries[i].name == entries[i-1].name || strings.HasPrefix(entries[i].name, entries[i-1].name+"/") {
			return packed{}, failf(ErrSource, "give one of them another path with `to`", "two files of the bundle meet at %s", entries[i-1].name)
		}
	}
	if len(entries) > app.MaxFiles {
		return packed{}, failf(ErrSource, "", "%d files, a bundle may have %d", len(entries), app.MaxFiles)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return packed{}, err
	}
	out := packed{file: file}
	sum, plain := fleet.NewVerifier(), fleet.NewVerifier()
	compressed, err := gzip.NewWriterLevel(io.MultiWriter(f, sum), gzip.BestCompression)
	if err != nil {
		return packed{}, errors.Join(err, f.Close())
	}
	archive := tar.NewWriter(io.MultiWriter(compressed, plain))
	var total int64
	for _, e := range entries {
		n, err := add(archive, e)
		if total += n; err == nil && total > app.MaxUnpackedBytes {
			err = failf(ErrSource, "", "the files have more than %d bytes", int64(app.MaxUnpackedBytes))
		}
		if err != nil {
			return packed{}, errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(archive.Close(), compressed.Close()); err != nil {
		return packed{}, errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return packed{}, err
	}
	out.digest, out.diffID, out.size = sum.Digest(), plain.Digest(), info.Size()
	return out, nil
}

// add writes one file. Times are the epoch, owners root, modes one of two; parents are not listed.
func add(w *tar.Writer, e entry) (int64, error) {
	f, err := os.Open(e.file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	mode := int64(0o644)
	if e.exec {
		mode = 0o755
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: info.Size(), Mode: mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := w.WriteHeader(h); err != nil {
		return 0, fmt.Errorf("pack %s: %w", e.name, err)
	}
	n, err := io.Copy(w, f)
	if err != nil {
		return n, fmt.Errorf("pack %s: %w", e.name, err)
	}
	return n, nil
}
