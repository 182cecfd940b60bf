package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var begun = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// member is a file of an archive under test.
type member struct{ name, content string }

// wellFormed returns an archive as Save writes it.
func wellFormed(t testing.TB, m Manifest, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := newWriter(&b, m)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range members {
		if err := w.add(f.name, int64(len(f.content)), begun, strings.NewReader(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// raw returns an archive of just these members.
func raw(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for _, f := range members {
		head := &tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(f.content, "-> "); ok {
			head.Typeflag, head.Linkname, head.Size = tar.TypeSymlink, target, 0
			f.content = ""
		}
		if err := tw.WriteHeader(head); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// members unpacks an archive without looking at what it says.
func membersOf(t testing.TB, archive []byte) []member {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	var out []member
	for tr := tar.NewReader(zr); ; {
		head, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, member{head.Name, string(data)})
	}
}

func restoreBytes(t *testing.T, archive []byte, dir string) (Manifest, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	return Restore(file, dir, nil)
}

func TestRestore(t *testing.T) {
	want := Manifest{Format: format, Version: "v1.2.3", Time: begun, URL: "https://hub:7443"}
	archive := wellFormed(t, want, member{"ca/ca.pem", "secret"}, member{"registry/repos/a/b/_tags/1", "sha256:x"})
	dir := filepath.Join(t.TempDir(), "deep", "hub")
	got, err := restoreBytes(t, archive, dir)
	if err != nil || got != want {
		t.Fatalf("restore: %+v, %v", got, err)
	}
	file := filepath.Join(dir, "ca", "ca.pem")
	data, err := os.ReadFile(file)
	if err != nil || string(data) != "secret" {
		t.Errorf("ca.pem: %q, %v", data, err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 || !info.ModTime().Equal(begun) {
		t.Errorf("ca.pem has mode %v and time %v, %v", info.Mode(), info.ModTime(), err)
	}
	for _, name := range []string{manifestName, sumsName} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is in the hub's directory: %v", name, err)
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	manifest := Manifest{Format: format, Version: "v1", Time: begun}
	good := wellFormed(t, manifest, member{"ca/ca.pem", strings.Repeat("secret", 1000)}, member{"ports.json", "{}"})
	parts := membersOf(t, good)
	with := func(change func([]member) []member) []byte {
		return raw(t, change(append([]member(nil), parts...))...)
	}
	newer := manifest
	newer.Format, newer.Version = format+1, "v9.0.0"
	for _, row := range []struct {
		reason  string
		archive []byte
		want    error
		words   string
	}{
		{"a download broke off", good[:len(good)/2], ErrDamaged, "unexpected EOF"},
		{"the end alone is missing", good[:len(good)-4], ErrDamaged, "unexpected EOF"},
		{"a bit fell over", flipped(good, len(good)/3), ErrDamaged, ""},
		{"it is something else", []byte("kind: App\n"), ErrDamaged, "gzip"},
		{"it is an archive of something else", raw(t, member{"bin/app", "x"}), ErrDamaged, "is it a backup of a hub"},
		{"a later release wrote it", wellFormed(t, newer), ErrNewer, "v9.0.0"},
		{"its manifest says nothing", raw(t, member{manifestName, "{}"}), ErrDamaged, "format 0"},
		{"somebody changed a key", with(func(m []member) []member { m[1].content = strings.Repeat("forged", 1000); return m }), ErrDamaged, "ca/ca.pem has the digest"},
		{"somebody changed the manifest", with(func(m []member) []member {
			m[0].content = strings.Replace(m[0].content, "v1", "v2", 1)
			return m
		}), ErrDamaged, "manifest.json has the digest"},
		{"a member was taken out", with(func(m []member) []member { return append(m[:1], m[2:]...) }), ErrDamaged, "1 of its 3 members are missing"},
		{"a member was put in", with(func(m []member) []member { return append([]member{m[0], {"ca/other.pem", "x"}}, m[1:]...) }), ErrDamaged, "ca/other.pem has the digest"},
		{"a member was put behind the sums", with(func(m []member) []member { return append(m, member{"ca/other.pem", "x"}) }), ErrDamaged, "comes after SHA256SUMS"},
		{"the sums were taken out", with(func(m []member) []member { return m[:3] }), ErrDamaged, "ends before"},
		{"the sums cannot be read", with(func(m []member) []member { m[3].content = "what\n"; return m }), ErrDamaged, "has a line"},
		{"it would write elsewhere", with(func(m []member) []member { m[1].name = "../../root/.ssh/authorized_keys"; return m }), ErrDamaged, "must not hold a member"},
		{"it would write to the root", with(func(m []member) []member { m[1].name = "/etc/passwd"; return m }), ErrDamaged, "must not hold a member"},
		{"it holds a link that leads out", with(func(m []member) []member { m[1].content = "-> /etc"; return m }), ErrDamaged, "must not hold a member"},
		{"it holds a member twice", with(func(m []member) []member { return append([]member{m[0], m[1]}, m[1:]...) }), ErrDamaged, "must not hold a member"},
	} {
		t.Run(row.reason, func(t *testing.T) {
			parent := t.TempDir()
			_, err := restoreBytes(t, row.archive, filepath.Join(parent, "hub"))
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.words) {
				t.Errorf("got %v, want %v with %q", err, row.want, row.words)
			}
			if left, _ := os.ReadDir(parent); len(left) != 0 {
				t.Errorf("%s is left behind", left[0].Name())
			}
		})
	}
}

func flipped(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 0x10
	return out
}

func TestRestoreTarget(t *testing.T) {
	archive := wellFormed(t, Manifest{Format: format, Time: begun}, member{"ports.json", "{}"})
	t.Run("an empty directory is taken", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := restoreBytes(t, archive, dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "ports.json")); err != nil {
			t.Error(err)
		}
	})
	t.Run("one that holds something is left as it is", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "ports.json"), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := restoreBytes(t, archive, dir)
		if !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), "it holds ports.json") {
			t.Errorf("got %v", err)
		}
		if data, _ := os.ReadFile(filepath.Join(dir, "ports.json")); string(data) != "mine" {
			t.Errorf("the file was overwritten by %q", data)
		}
	})
	t.Run("a file in its place is left as it is", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "hub")
		if err := os.WriteFile(dir, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreBytes(t, archive, dir); err == nil {
			t.Error("it was taken")
		}
	})
}

func TestSaveRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "typo")
	_, err := Save(t.Context(), Options{DataDir: dir}, filepath.Join(t.TempDir(), "b.tar.gz"))
	if !errors.Is(err, ErrNoHub) {
		t.Errorf("no hub: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a mistyped directory was made: %v", err)
	}
}

// FuzzRead holds that no archive makes the reader panic, write outside its directory, or take what is not covered
// by its sums.
func FuzzRead(f *testing.F) {
	good := wellFormed(f, Manifest{Format: format, Time: begun}, member{"ca/ca.pem", "x"})
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(raw(f, member{manifestName, `{"format":1}`}, member{"../x", "x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		inner := filepath.Join(outer, "in")
		if err := os.Mkdir(inner, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(inner)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_, err = read(io.LimitReader(bytes.NewReader(data), 1<<16), root)
		if entries, _ := os.ReadDir(outer); len(entries) != 1 {
			t.Errorf("it wrote outside: %v", entries)
		}
		if err == nil && !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
			t.Error("it took what is not compressed")
		}
	})
}
