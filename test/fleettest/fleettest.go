// Package fleettest runs a real installation for tests and benchmarks: the built programs, as processes, in
// a directory of their own. Only what stands below test imports it.
package fleettest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/testenv"
)

// Binaries are the two programs as a person would build them.
type Binaries struct{ Skerry, Site string }

// Build builds both programs into dir. Without flags it uses the build cache that the tests themselves fill;
// ReleaseFlags are those of `make build`.
func Build(ctx context.Context, dir string, flags ...string) (Binaries, error) {
	b := Binaries{Skerry: filepath.Join(dir, "skerry"), Site: filepath.Join(dir, "skerry-site")}
	args := append([]string{"build", "-o", dir + "/"}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args,
		"github.com/skerry-dev/skerry/cmd/skerry", "github.com/skerry-dev/skerry/cmd/skerry-site")...)
	if len(flags) > 0 {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return b, fmt.Errorf("build programs: %w\n%s", err, out)
	}
	return b, nil
}

// Main is the TestMain of a package that runs the programs: it builds them once into bin.
func Main(m *testing.M, bin *Binaries) {
	dir, err := os.MkdirTemp("", "skerry-test-")
	if err == nil {
		*bin, err = Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// ReleaseFlags make the programs as they are released: without cgo, paths and symbols.
func ReleaseFlags() []string { return []string{"-trimpath", "-ldflags=-s -w"} }

// Fleet is one installation that `skerry up` runs.
type Fleet struct {
	Dir  string
	Bin  Binaries
	up   *exec.Cmd
	out  *lockedBuffer
	done chan struct{}
}

// lockedBuffer collects what a process prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was printed so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Require skips or fails the test where an installation cannot run.
func Require(t testing.TB) {
	testenv.Require(t, testenv.Tool("go"), testenv.Tool("sh"), testenv.Tool("curl"))
}

// NewDir makes a directory that apps' own users may enter, removed after the test.
func NewDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// StartUp starts `skerry up` in dir and returns when it says that it is ready. It is stopped, with all
// sites, when the test ends.
func StartUp(t testing.TB, bin Binaries, dir string, args ...string) *Fleet {
	t.Helper()
	f := &Fleet{Dir: dir, Bin: bin}
	f.Start(t, args...)
	t.Cleanup(func() {
		out, err := exec.Command(bin.Skerry, "down", "--data-dir", dir).CombinedOutput()
		if err != nil {
			t.Errorf("skerry down: %v\n%s", err, out)
		}
		if f.done != nil {
			<-f.done
		}
		if t.Failed() {
			f.dump(t)
		}
	})
	return f
}

// readyTimeout bounds a start.
const readyTimeout = 3 * time.Minute

// Start starts `skerry up` again and returns when it is ready.
func (f *Fleet) Start(t testing.TB, args ...string) {
	t.Helper()
	f.out, f.done = &lockedBuffer{}, make(chan struct{})
	f.up = exec.Command(f.Bin.Skerry, append([]string{"up", "--data-dir", f.Dir}, args...)...)
	f.up.Stdout, f.up.Stderr = f.out, f.out
	f.up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := f.up.Start(); err != nil {
		t.Fatal(err)
	}
	done := f.done
	go func() { _ = f.up.Wait(); close(done) }()
	deadline := time.Now().Add(readyTimeout)
	for !strings.Contains(f.out.String(), "Ready in") {
		select {
		case <-done:
			t.Fatalf("skerry up ended:\n%s", f.out)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("skerry up is not ready after %s:\n%s", readyTimeout, f.out)
		}
	}
}

// Output is what `skerry up` printed so far.
func (f *Fleet) Output() string { return f.out.String() }

// Interrupt sends Ctrl-C to `skerry up` and waits until it ended.
func (f *Fleet) Interrupt(t testing.TB) {
	t.Helper()
	if err := f.up.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-f.done
}

// KillHub ends `skerry up`, and the hub in it, with SIGKILL.
func (f *Fleet) KillHub(t testing.TB) {
	t.Helper()
	if err := f.up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-f.done
}

// HubPID is the process of `skerry up`.
func (f *Fleet) HubPID() int { return f.up.Process.Pid }

// SiteDir is the data directory of a site that `skerry up` runs.
func (f *Fleet) SiteDir(name string) string { return filepath.Join(f.Dir, "sites", name) }

// SiteStatus asks the agent of a site.
func (f *Fleet) SiteStatus(name string) (site.Status, error) { return StatusIn(f.SiteDir(name)) }

// StatusIn asks the agent of a data directory.
func StatusIn(dir string) (site.Status, error) {
	res, err := site.LocalClient(dir).Get("http://agent/status")
	if err != nil {
		return site.Status{}, err
	}
	defer res.Body.Close()
	var s site.Status
	return s, json.NewDecoder(res.Body).Decode(&s)
}

// Env is that of the other terminal: the exports which `skerry up` prints.
func (f *Fleet) Env() []string {
	env := []string{}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PATH=") && !strings.HasPrefix(kv, "KUBECONFIG=") && !strings.HasPrefix(kv, "SKERRY_HOME=") {
			env = append(env, kv)
		}
	}
	return append(env, "PATH="+filepath.Join(f.Dir, "bin")+":"+os.Getenv("PATH"), "KUBECONFIG="+filepath.Join(f.Dir, "kubeconfig"))
}

// Skerry runs the command line in the other terminal and returns what it printed.
func (f *Fleet) Skerry(t testing.TB, args ...string) string {
	t.Helper()
	out, err := f.TrySkerry(args...)
	if err != nil {
		t.Fatalf("skerry %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TrySkerry is Skerry for a command that may fail.
func (f *Fleet) TrySkerry(args ...string) (string, error) {
	cmd := exec.Command(f.Bin.Skerry, args...)
	cmd.Env = f.Env()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (f *Fleet) dump(t testing.TB) {
	t.Logf("skerry up printed:\n%s", f.out)
	logs, _ := filepath.Glob(filepath.Join(f.Dir, "sites", "*", "agent.log"))
	for _, path := range append(logs, filepath.Join(f.Dir, "hub.log")) {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		const tail = 6000
		t.Logf("%s ends with:\n%s", path, data[max(0, len(data)-tail):])
	}
}

// Eventually waits until fn returns no complaint.
func Eventually(t testing.TB, within time.Duration, what string, fn func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		wrong := fn()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still after %s: %s", what, within, wrong)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Get asks a URL and returns status and body.
func Get(url string) (int, string, error) {
	client := http.Client{Timeout: 15 * time.Second}
	res, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	return res.StatusCode, b.String(), err
}
