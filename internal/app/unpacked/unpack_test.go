package unpacked

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
)

// archive packs headers; a regular file's content is its Linkname, for short.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, h := range headers {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body, h.Linkname = h.Linkname, ""
			h.Size = int64(len(body))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func file(name, content string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content, Mode: mode}
}

var plenty = bounds{files: 100, bytes: 1 << 20}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	files, err := unpack(bytes.NewReader(archive(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700},
		tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o777},
		file("./bin/app", "program", 0o4701),
		file("deep/er/page", "page", 0o666),
	)), dir, plenty)
	if err != nil {
		t.Fatal(err)
	}
	if err := files.verify(dir); err != nil {
		t.Errorf("what was just unpacked does not verify: %v", err)
	}
	got := map[string]string{}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		rel, _ := filepath.Rel(dir, path)
		got[rel] = info.Mode().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"bin": "drwxr-xr-x", "bin/app": "-rwxr-xr-x", "deep": "drwxr-xr-x", "deep/er": "drwxr-xr-x", "deep/er/page": "-rw-r--r--",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
}

func TestUnpackRefuses(t *testing.T) {
	sound := archive(t, file("a", strings.Repeat("content ", 1000), 0o644))
	many := make([]tar.Header, 0, 101)
	for n := range 101 {
		many = append(many, file("f"+strings.Repeat("x", n), "", 0o644))
	}
	for name, row := range map[string]struct {
		reason string
		data   []byte
	}{
		"parent":     {"it leaves the directory", archive(t, file("../evil", "x", 0o644))},
		"inner":      {"it leaves and comes back", archive(t, file("a/../../x", "x", 0o644))},
		"absolute":   {"it names a place of the machine", archive(t, file("/etc/passwd", "x", 0o644))},
		"backslash":  {"some tools take it for a separator", archive(t, file(`a\..\b`, "x", 0o644))},
		"symlink":    {"links lead anywhere", archive(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/etc"})},
		"hard link":  {"links lead anywhere", archive(t, tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "/etc/passwd"})},
		"device":     {"a device is no content", archive(t, tar.Header{Typeflag: tar.TypeChar, Name: "a"})},
		"pipe":       {"a pipe is no content", archive(t, tar.Header{Typeflag: tar.TypeFifo, Name: "a"})},
		"twice":      {"the second would replace the first", archive(t, file("a", "x", 0o644), file("a", "y", 0o644))},
		"below file": {"a file is no directory", archive(t, file("a", "x", 0o644), file("a/b", "y", 0o644))},
		"over dir":   {"a directory is no file", archive(t, file("a/b", "x", 0o644), file("a", "y", 0o644))},
		"many files": {"more than the bound", archive(t, many...)},
		"deep":       {"directories count too", archive(t, file(strings.Repeat("a/", 101)+"f", "x", 0o644))},
		"many bytes": {"more than the bound", archive(t, file("a", strings.Repeat("x", 1<<20+1), 0o644))},
		"long name":  {"more than a path may have", archive(t, file(strings.Repeat("n", maxPath+1), "", 0o644))},
		"cut short":  {"the end is missing", sound[:len(sound)-20]},
		"not gzip":   {"it is something else", []byte("hello")},
		"not tar": {"it is something else, compressed", func() []byte {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			z.Write(bytes.Repeat([]byte("x"), 600))
			z.Close()
			return b.Bytes()
		}()},
		"empty input": {"there is nothing", nil},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "inner")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := unpack(bytes.NewReader(row.data), dir, plenty); !errors.Is(err, app.ErrBundle) {
				t.Errorf("%s: got %v", row.reason, err)
			}
			if entries, _ := os.ReadDir(top); len(entries) != 1 {
				t.Errorf("%s: something was written outside: %v", row.reason, entries)
			}
		})
	}
}

// FuzzUnpack checks that whatever comes, nothing is written outside of the directory, nothing but
// directories and regular files inside, and that what is accepted verifies.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, file("bin/app", "program", 0o755), file("a/b/c", "", 0o600)))
	f.Add(archive(f, file("../x", "x", 0o644)))
	f.Add(archive(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/"}, file("a/b", "x", 0o644)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		dir := filepath.Join(top, "inner")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		files, err := unpack(bytes.NewReader(data), dir, bounds{files: 50, bytes: 1 << 16})
		var total int64
		walkErr := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if rel, _ := filepath.Rel(dir, path); path != top && !filepath.IsLocal(rel) {
				t.Errorf("%s lies outside", path)
			}
			info, err := e.Info()
			if err == nil && !info.IsDir() {
				total += info.Size()
				if !info.Mode().IsRegular() || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
					t.Errorf("%s has mode %s", path, info.Mode())
				}
			}
			return err
		})
		if walkErr != nil {
			t.Fatal(walkErr)
		}
		if total > 1<<16 {
			t.Errorf("%d bytes were written", total)
		}
		if err == nil {
			if err := files.verify(dir); err != nil {
				t.Errorf("accepted, and does not verify: %v", err)
			}
		}
	})
}
