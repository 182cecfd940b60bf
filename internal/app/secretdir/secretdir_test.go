package secretdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/testenv"
)

// memory is a place in memory of this test's own.
func memory(t *testing.T) string {
	t.Helper()
	testenv.Require(t, testenv.Memory())
	dir, err := os.MkdirTemp(testenv.MemoryDir, "skerry-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // directories that nobody may write to are removed as the package does it
		if err := (&Root{dir: testenv.MemoryDir}).Remove(filepath.Base(dir)); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, place string) *Root {
	t.Helper()
	r, err := Open([]string{place}, "agent")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func values(pairs ...string) map[string]fleet.SecretValue {
	out := map[string]fleet.SecretValue{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = fleet.SecretValue(pairs[i+1])
	}
	return out
}

func write(t *testing.T, r *Root, pairs ...string) string {
	t.Helper()
	dir, err := r.Write("i-1", values(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tree is every file that a program finds in dir, with its mode, following links.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		top, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(top, path)
			name := filepath.Join(e.Name(), rel)
			if d.IsDir() {
				if info.Mode().Perm() != modeDir {
					t.Errorf("directory %s has mode %v", name, info.Mode())
				}
				return nil
			}
			data, err := os.ReadFile(path)
			out[name] = fmt.Sprintf("%v %s", info.Mode(), data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestWrite(t *testing.T) {
	r := open(t, memory(t))
	dir := write(t, r, "db/password", "one", "db/conf/user", "ana", "ca.pem", "cert")
	want := map[string]string{"db/password": "-r-------- one", "db/conf/user": "-r-------- ana", "ca.pem": "-r-------- cert"}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if again := write(t, r, "db/password", "two", "token", "t"); again != dir {
		t.Errorf("the directory moved from %s to %s", dir, again)
	}
	if diff := cmp.Diff(map[string]string{"db/password": "-r-------- two", "token": "-r-------- t"}, tree(t, dir)); diff != "" {
		t.Errorf("after a change (-want +got):\n%s", diff)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 4 { // the version, the link to it, db, token
		t.Errorf("earlier versions stay: %v, %v", names, err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != modeDir {
		t.Errorf("the instance's directory has mode %v, %v", info.Mode(), err)
	}
	write(t, r)
	if left := tree(t, dir); len(left) != 0 {
		t.Errorf("without files there are %v", left)
	}
	if err := r.Remove("i-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory of an instance that ended is there: %v", err)
	}
	if err := errors.Join(r.Remove("i-1"), r.Close(), r.Close()); err != nil {
		t.Errorf("what is gone cannot be removed: %v", err)
	}
	if _, err := os.Stat(r.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the agent's directory is there after Close: %v", err)
	}
	write(t, r, "a", "b") // and is made again when it is needed
}

// TestWriteIsAtomic reads a pair of files while it is replaced: each read sees both old or both new.
func TestWriteIsAtomic(t *testing.T) {
	r := open(t, memory(t))
	dir := write(t, r, "a", "0", "b", "0")
	stop := make(chan struct{})
	var reading sync.WaitGroup
	var reads int
	reading.Go(func() {
		for ; ; reads++ {
			select {
			case <-stop:
				return
			default:
			}
			version, err := os.OpenRoot(filepath.Join(dir, dataLink)) // as a program that holds the directory does
			if errors.Is(err, fs.ErrNotExist) {
				continue // the version went between the reading of the link and the opening
			}
			if err != nil {
				t.Errorf("link: %v", err)
				return
			}
			a, errA := version.ReadFile("a")
			b, errB := version.ReadFile("b")
			version.Close()
			if errors.Is(errA, fs.ErrNotExist) || errors.Is(errB, fs.ErrNotExist) {
				continue
			}
			if errA != nil || errB != nil || string(a) != string(b) {
				t.Errorf("read %q and %q: %v %v", a, b, errA, errB)
				return
			}
		}
	})
	for n := range 300 {
		write(t, r, "a", fmt.Sprint(n), "b", fmt.Sprint(n))
	}
	close(stop)
	reading.Wait()
	if reads == 0 {
		t.Error("nothing was read meanwhile")
	}
}

func TestOpenSweeps(t *testing.T) {
	place := memory(t)
	dir := write(t, open(t, place), "db/password", "one")
	other, err := Open([]string{place}, "another")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.Write("i-1", values("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	open(t, place)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what an earlier life left is there: %v", err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("what another agent has is gone: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	disk, err := os.MkdirTemp("/var/tmp", "skerry-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(disk)
	testenv.Require(t, testenv.Need{Name: "a disk at /var/tmp", Met: func() bool { return inMemory(disk) != nil }})
	place := memory(t)
	if _, err := Open([]string{disk, filepath.Join(place, "none")}, "agent"); !errors.Is(err, ErrNoMemory) ||
		!strings.Contains(err.Error(), disk+" is not in memory") || !strings.Contains(err.Error(), "none") {
		t.Errorf("a disk was answered with %v", err)
	}
	if entries, err := os.ReadDir(disk); err != nil || len(entries) > 0 {
		t.Errorf("something was made on the disk: %v %v", entries, err)
	}
	r, err := Open([]string{disk, place}, "agent")
	if err != nil || r.dir != filepath.Join(place, "agent") {
		t.Errorf("beside a disk, memory was not used: %v", err)
	}
}

// TestOpenRefusesTraps lays in the agent's place what another user might.
func TestOpenRefusesTraps(t *testing.T) {
	place := memory(t)
	trap := filepath.Join(place, "agent")
	elsewhere := filepath.Join(place, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(elsewhere, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	traps := map[string]func() error{
		"a link":                       func() error { return os.Symlink(elsewhere, trap) },
		"a file":                       func() error { return os.WriteFile(trap, nil, 0o600) },
		"a directory that all write":   func() error { return errors.Join(os.Mkdir(trap, 0o777), os.Chmod(trap, 0o777)) },
		"a directory of somebody else": func() error { return errors.Join(os.Mkdir(trap, 0o755), os.Chown(trap, 12345, 12345)) },
	}
	for name, lay := range traps {
		if err := lay(); err != nil {
			t.Logf("cannot lay %s: %v", name, err) // only root gives directories away
			_ = os.RemoveAll(trap)
			continue
		}
		if _, err := Open([]string{place}, "agent"); !errors.Is(err, ErrNoMemory) || !strings.Contains(err.Error(), trap) {
			t.Errorf("%s was answered with %v", name, err)
		}
		r := &Root{dir: trap} // laid after Open
		if _, err := r.Write("i-1", values("a", "b")); err == nil {
			t.Errorf("files were written into %s", name)
		}
		if err := os.RemoveAll(trap); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(elsewhere, "precious")); err != nil {
		t.Error(err)
	}
}

// TestDirectoryOfAnotherUser rewrites files in a directory that belongs to the app's user, who tampers with it.
func TestDirectoryOfAnotherUser(t *testing.T) {
	testenv.Require(t, testenv.Root())
	const uid = 60123
	place := memory(t)
	r := open(t, place)
	dir := write(t, r, "db/password", "one")
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(place, "outside")
	if err := errors.Join(os.Mkdir(outside, 0o755), os.WriteFile(filepath.Join(outside, "f"), []byte("kept"), 0o600)); err != nil {
		t.Fatal(err)
	}
	// What the user may do in a directory of its own.
	if err := errors.Join(os.Symlink(outside, filepath.Join(dir, "token")), os.Symlink(outside, filepath.Join(dir, newLink)),
		os.Symlink(outside, filepath.Join(dir, "..v-guessed")), os.Symlink(outside, filepath.Join(dir, "junk"))); err != nil {
		t.Fatal(err)
	}
	write(t, r, "db/password", "two", "token", "t")
	data, err := os.ReadFile(filepath.Join(dir, "db/password"))
	if err != nil || string(data) != "two" {
		t.Errorf("password is %q, %v", data, err)
	}
	info, err := os.Stat(filepath.Join(dir, "db/password"))
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Uid != uid || stat.Gid != uid || info.Mode().Perm() != modeFile {
		t.Errorf("the new file belongs to %d:%d with mode %v", stat.Uid, stat.Gid, info.Mode())
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("something was written outside: %v %v", entries, err)
	}
	outer, err := os.Stat(outside)
	if err != nil || outer.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("something outside was given away: %v", err)
	}
	if err := r.Remove("i-1"); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(filepath.Join(outside, "f")); err != nil || string(data) != "kept" {
		t.Errorf("something outside was removed: %q %v", data, err)
	}
}
