package process

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

// env is a machine's agent: a state directory with a bundle in it, and a runtime.
type env struct {
	t      *testing.T
	state  string
	store  *store.Store
	bucket *store.Bucket
	rt     *Runtime
	out    *buffer
}

// newEnv makes the state directory below the system's temporary directory, which everyone may enter:
// testing's own is 0700, and an app's user could not pass it.
func newEnv(t *testing.T) *env {
	t.Helper()
	state, err := os.MkdirTemp("", "skerry-process-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	e := &env{t: t, state: state, out: &buffer{}}
	e.openStore()
	t.Cleanup(func() { e.store.Close() })
	e.rt = e.newRuntime(Options{})
	e.install(filepath.Join(state, "bundle", "bin", "app"))
	return e
}

func (e *env) openStore() {
	e.t.Helper()
	st, err := store.Open(filepath.Join(e.state, "store.db"))
	if err != nil {
		e.t.Fatal(err)
	}
	bucket, err := st.Bucket("process")
	if err != nil {
		e.t.Fatal(err)
	}
	e.store, e.bucket = st, bucket
}

func (e *env) closeStore() error { return e.store.Close() }

func (e *env) newRuntime(o Options) *Runtime {
	e.t.Helper()
	o.StateDir, o.Bucket = e.state, e.bucket
	o.Log = slog.New(slog.NewTextHandler(testWriter{e.t}, nil))
	rt, err := New(o)
	if err != nil {
		e.t.Fatal(err)
	}
	return rt
}

// install makes the test binary the program at path.
func (e *env) install(path string) {
	e.t.Helper()
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		e.t.Fatal(err)
	}
	src, err := os.Open(self)
	if err != nil {
		e.t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		e.t.Fatal(err)
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		e.t.Fatal(err)
	}
}

// spec is an instance of the test program in the given mode.
func (e *env) spec(mode string, edit func(*appsite.Spec, *app.ProcessConfig)) appsite.Spec {
	e.t.Helper()
	id := strings.ToLower(strings.ReplaceAll(e.t.Name(), "/", "-")) + "-" + mode
	scratch := filepath.Join(e.state, "scratch", id)
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		e.t.Fatal(err)
	}
	config := &app.ProcessConfig{Command: []string{"bin/app"}, StopGraceSeconds: 5}
	spec := appsite.Spec{
		App: fleet.AppKey{Namespace: "default", Name: "hello"}, Release: "hello-1", ID: id,
		Dir: filepath.Join(e.state, "bundle"), Scratch: scratch,
		Config: app.BundleConfig{Runtime: app.RuntimeProcess, Process: config},
		Env:    map[string]string{childMode: mode},
		Stdout: e.out, Stderr: e.out,
	}
	if edit != nil {
		edit(&spec, config)
	}
	return spec
}

func (e *env) start(spec appsite.Spec) appsite.Instance {
	e.t.Helper()
	i, err := e.rt.Start(e.t.Context(), spec)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := i.Stop(ctx); err != nil {
			e.t.Errorf("stop: %v", err)
		}
	})
	return i
}

// await returns the first status that ok accepts.
func (e *env) await(i appsite.Instance, what string, ok func(appsite.Status) bool) appsite.Status {
	e.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		s := i.Status()
		if ok(s) {
			return s
		}
		select {
		case <-i.Changes():
		case <-deadline:
			e.t.Fatalf("waited for %s, status is %+v; output:\n%s", what, s, e.out)
		}
	}
}

func (e *env) awaitRunning(i appsite.Instance) appsite.Status {
	e.t.Helper()
	return e.await(i, "running", func(s appsite.Status) bool { return s.Phase == fleet.PhaseRunning })
}

// get asks the app; the status code and body come back.
func (e *env) get(target, path string, query ...string) (int, string) {
	e.t.Helper()
	values := url.Values{}
	for n := 0; n+1 < len(query); n += 2 {
		values.Set(query[n], query[n+1])
	}
	resp, err := http.Get(target + path + "?" + values.Encode())
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (e *env) describe(target string) described {
	e.t.Helper()
	_, body := e.get(target, "/")
	var d described
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		e.t.Fatal(err)
	}
	return d
}

// buffer is a bytes.Buffer for several writers.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}
