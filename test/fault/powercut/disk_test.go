package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/skerry-dev/skerry/internal/testenv"
)

// mounted returns a new disk and where it is mounted.
func mounted(t *testing.T, names Names) (*Disk, string) {
	t.Helper()
	testenv.Require(t, Needs()...)
	d, dir := New(names), t.TempDir()
	must(t, d.Mount(dir))
	t.Cleanup(func() { must(t, d.Unmount()) })
	return d, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cut takes the power away while nothing runs.
func cut(t *testing.T, d *Disk, seed uint64) {
	t.Helper()
	must(t, d.Cut(rand.New(rand.NewPCG(seed, 0)), func() {}))
}

func fsync(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// outcomes cuts many times after steps, each on a new disk, and counts what a path holds then.
func outcomes(t *testing.T, names Names, path string, steps func(dir string)) map[string]int {
	t.Helper()
	found := map[string]int{}
	for seed := range uint64(60) {
		d, dir := mounted(t, names)
		steps(dir)
		cut(t, d, seed)
		data, err := os.ReadFile(filepath.Join(dir, path))
		switch {
		case errors.Is(err, os.ErrNotExist):
			found["gone"]++
		case err != nil:
			t.Fatal(err)
		default:
			found[string(data)]++
		}
		must(t, d.Unmount())
	}
	return found
}

// TestWhatSurvives: what was synced survives every cut; what was not survives some, so that a program that
// forgets to sync is found.
func TestWhatSurvives(t *testing.T) {
	testenv.Require(t, Needs()...)
	for _, test := range []struct {
		reason string
		names  Names
		steps  func(t *testing.T, dir string)
		always string   // found after every cut, when it is not empty
		some   []string // found after some cuts
	}{
		{reason: "file and directory synced: always there", always: "hello", steps: func(t *testing.T, dir string) {
			writeFile(t, dir+"/f", "hello")
			fsync(t, dir+"/f")
			fsync(t, dir)
		}},
		{reason: "the name not synced: the file may be gone", some: []string{"hello", "gone"}, steps: func(t *testing.T, dir string) {
			writeFile(t, dir+"/f", "hello")
			fsync(t, dir+"/f")
		}},
		{reason: "with a journal the name is safe with the content", names: Journal, always: "hello", steps: func(t *testing.T, dir string) {
			writeFile(t, dir+"/f", "hello")
			fsync(t, dir+"/f")
		}},
		{reason: "with a journal too the content is not safe with the name", names: Journal, some: []string{"hello", ""}, steps: func(t *testing.T, dir string) {
			writeFile(t, dir+"/f", "hello")
			writeFile(t, dir+"/g", "x")
			fsync(t, dir+"/g")
		}},
		{reason: "the content not synced: the file may be empty", some: []string{"hello", ""}, steps: func(t *testing.T, dir string) {
			writeFile(t, dir+"/f", "hello")
			fsync(t, dir)
		}},
		{reason: "replaced by rename, all synced: always the new one", always: "new", steps: func(t *testing.T, dir string) {
			writeFile(t, dir+"/f", "old")
			writeFile(t, dir+"/g", "new")
			fsync(t, dir+"/g")
			must(t, os.Rename(dir+"/g", dir+"/f"))
			fsync(t, dir)
		}},
		{reason: "replaced by rename without a sync of the new one: it may be empty", some: []string{"", "new"}, steps: func(t *testing.T, dir string) {
			writeFile(t, dir+"/f", "old")
			fsync(t, dir+"/f")
			writeFile(t, dir+"/g", "new")
			must(t, os.Rename(dir+"/g", dir+"/f"))
			fsync(t, dir)
		}},
		{reason: "removed without a sync: it may be back", some: []string{"hello", "gone"}, steps: func(t *testing.T, dir string) {
			writeFile(t, dir+"/f", "hello")
			fsync(t, dir+"/f")
			fsync(t, dir)
			must(t, os.Remove(dir+"/f"))
		}},
		{reason: "overwritten without a sync: old or new", some: []string{"old", "new"}, steps: func(t *testing.T, dir string) {
			writeFile(t, dir+"/f", "old")
			fsync(t, dir+"/f")
			fsync(t, dir)
			f, err := os.OpenFile(dir+"/f", os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt([]byte("new"), 0)
			must(t, errors.Join(err, f.Close()))
		}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			found := outcomes(t, test.names, "f", func(dir string) { test.steps(t, dir) })
			if test.always != "" && found[test.always] != 60 {
				t.Errorf("found %v, want always %q", found, test.always)
			}
			for _, want := range test.some {
				if found[want] == 0 {
					t.Errorf("found %v, want sometimes %q", found, want)
				}
			}
		})
	}
}

// TestTornWrite: of a long write that was not synced some sectors survive and some do not.
func TestTornWrite(t *testing.T) {
	const sectors = 64
	torn := map[bool]int{}
	for seed := range uint64(40) {
		d, dir := mounted(t, Strict)
		path := dir + "/f"
		writeFile(t, path, string(bytes.Repeat([]byte{'a'}, sectors*512)))
		fsync(t, path)
		fsync(t, dir)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte{'b'}, sectors*512), 0)
		must(t, errors.Join(err, f.Close()))
		cut(t, d, seed)
		data, err := os.ReadFile(path)
		must(t, err)
		news := 0
		for k := range sectors {
			sector := data[k*512 : (k+1)*512]
			n := bytes.Count(sector, []byte{'b'})
			if n != 0 && n != 512 {
				t.Fatalf("sector %d is torn in itself: %d of 512 bytes are new", k, n)
			}
			news += n / 512
		}
		torn[news > 0 && news < sectors]++
		must(t, d.Unmount())
	}
	if torn[true] == 0 || torn[false] == 0 {
		t.Errorf("torn and whole: %v, want some of both", torn)
	}
}

// TestSameSeedSameSurvivors: a printed seed must replay what survived.
func TestSameSeedSameSurvivors(t *testing.T) {
	survivors := func(seed uint64) string {
		d, dir := mounted(t, Strict)
		for k := range 40 {
			writeFile(t, fmt.Sprintf("%s/%02d", dir, k), "x")
		}
		cut(t, d, seed)
		names, err := os.ReadDir(dir)
		must(t, err)
		must(t, d.Unmount())
		return fmt.Sprint(names)
	}
	different := false
	for seed := range uint64(5) {
		if a, b := survivors(seed), survivors(seed); a != b {
			t.Errorf("seed %d: %s, then %s", seed, a, b)
		}
		different = different || survivors(seed) != survivors(seed+100)
	}
	if !different {
		t.Error("ten seeds have the same survivors")
	}
}

// TestCutUnderWork cuts the power of a program that writes, at a count of operations, and finds only what it
// had synced by then for certain.
func TestCutUnderWork(t *testing.T) {
	d, dir := mounted(t, Strict)
	went := d.CutAfter(100)
	script := exec.Command("sh", "-c", `cd "$0" && i=0; while :; do i=$((i+1)); echo $i > f.$i; sync f.$i .; echo $i; done`, dir)
	script.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	script.Stdout = &said
	must(t, script.Start())
	<-went
	must(t, d.Cut(rand.New(rand.NewPCG(3, 3)), func() {
		_ = syscall.Kill(-script.Process.Pid, syscall.SIGKILL)
		_ = script.Wait()
	}))
	done := bytes.Count(said.Bytes(), []byte("\n"))
	if done < 5 || done > 50 {
		t.Errorf("%d files were written before 100 operations", done)
	}
	for k := 1; k <= done; k++ {
		data, err := os.ReadFile(fmt.Sprintf("%s/f.%d", dir, k))
		if err != nil || string(data) != fmt.Sprintln(k) {
			t.Errorf("what was synced and said to be: %q %v", data, err)
		}
	}
}

// TestFaults has a disk that is full, read-only and bad, and is mended each time.
func TestFaults(t *testing.T) {
	d, dir := mounted(t, Strict)
	writeFile(t, dir+"/f", "0123456789")
	d.Fill(4096)
	if err := os.WriteFile(dir+"/g", make([]byte, 5000), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a write to a full disk: %v", err)
	}
	d.Empty()
	writeFile(t, dir+"/g", "there is room")
	d.Break(syscall.EROFS)
	if err := os.WriteFile(dir+"/h", nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a new file on a read-only disk: %v", err)
	}
	if data, err := os.ReadFile(dir + "/g"); err != nil || string(data) != "there is room" {
		t.Errorf("reading a read-only disk: %q %v", data, err)
	}
	d.Break(0)
	before := d.Counts()
	writeFile(t, dir+"/h", "12345")
	if n := d.Counts().Bytes - before.Bytes; n != 5 {
		t.Errorf("%d bytes are counted, 5 were written", n)
	}
	must(t, d.Edit("f", func(b []byte) []byte { b[3] ^= 1; return b }))
	if data, err := os.ReadFile(dir + "/f"); err != nil || string(data) != "0122456789" {
		t.Errorf("after a bit flipped: %q %v", data, err)
	}
	must(t, d.Edit("f", func(b []byte) []byte { return b[:4] }))
	if info, err := os.Stat(dir + "/f"); err != nil || info.Size() != 4 {
		t.Errorf("after it was cut to 4 bytes: %v %v", info.Size(), err)
	}
	if err := d.Edit("nothing", nil); !errors.Is(err, errNoFile) {
		t.Errorf("edit of no file: %v", err)
	}
}
