package wasm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	httpgateway "github.com/skerry-dev/skerry/internal/gateway/http"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/testenv"
)

// built is where guests are built and their compilations kept, once a test binary.
var built struct {
	dir string
	mu  sync.Mutex
	ok  map[string]error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "skerry-wasm-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir, built.ok = dir, map[string]error{}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// goGuest returns the module of a directory of testdata, built with the stock toolchain.
func goGuest(t testing.TB, name string) string {
	t.Helper()
	testenv.Require(t, testenv.Tool("go"))
	return build(t, name, "go", "build", "-trimpath", "-o", "{out}", "./testdata/"+name)
}

// sdkGuest returns the module of an example of the SDK for Go, a module of its own.
func sdkGuest(t testing.TB, name string) string {
	t.Helper()
	testenv.Require(t, testenv.Tool("go"))
	return build(t, name, "go", "build", "-C", "../../../sdk/go", "-trimpath", "-o", "{out}", "./examples/"+name)
}

// wasiLibc is the C library for modules, where distributions put it.
var wasiLibc = testenv.Need{Name: "wasi-libc", Met: func() bool {
	_, err := os.Stat("/usr/lib/wasm32-wasi/libc.a")
	return err == nil
}}

// cGuest returns the module of a C file, built with clang and wasi-libc.
func cGuest(t testing.TB, file string) string {
	t.Helper()
	testenv.Require(t, testenv.Tool("clang"), testenv.Tool("wasm-ld"), wasiLibc)
	return build(t, strings.TrimSuffix(filepath.Base(file), ".c")+"-c", "clang", "--target=wasm32-wasi", "-O2", "-Wall", "-Werror", "-I", "../../../sdk/c", "-o", "{out}", file)
}

func build(t testing.TB, name string, command ...string) string {
	t.Helper()
	built.mu.Lock()
	defer built.mu.Unlock()
	out := filepath.Join(built.dir, name+".wasm")
	err, done := built.ok[name]
	if !done {
		for i := range command {
			command[i] = strings.ReplaceAll(command[i], "{out}", out)
		}
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
		if said, failed := cmd.CombinedOutput(); failed != nil {
			err = fmt.Errorf("%w: %s", failed, said)
		}
		built.ok[name] = err
	}
	if err != nil {
		t.Fatalf("build %s: %v", name, err)
	}
	return out
}

// kitchen is an agent's part in small: a runtime and a gateway.
type kitchen struct {
	t       testing.TB
	rt      *Runtime
	reg     *prometheus.Registry
	gateway *httpgateway.Gateway
	url     string
	dir     string
}

func newKitchen(t testing.TB, edit func(*Options)) *kitchen {
	t.Helper()
	k := &kitchen{t: t, reg: prometheus.NewRegistry(), dir: t.TempDir()}
	opts := Options{
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Metrics: k.reg,
		CacheDir: filepath.Join(built.dir, "cache"), BackOff: time.Millisecond, MaxBackOff: 10 * time.Millisecond,
	}
	if edit != nil {
		edit(&opts)
	}
	var err error
	if k.rt, err = New(opts); err != nil {
		t.Fatal(err)
	}
	if k.gateway, err = httpgateway.New(httpgateway.Options{}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(k.gateway)
	t.Cleanup(server.Close)
	k.url = server.URL
	return k
}

// dish is a running app.
type dish struct {
	*kitchen
	appsite.Instance
	spec appsite.Spec
	out  *buffer
	url  string
}

// spec puts a module into a bundle's directory and declares an app with it.
func (k *kitchen) spec(name, module string, edit func(*appsite.Spec, *app.WasmConfig)) appsite.Spec {
	k.t.Helper()
	data, err := os.ReadFile(module)
	if err != nil {
		k.t.Fatal(err)
	}
	dir := filepath.Join(k.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "app.wasm"), data, 0o644); err != nil {
		k.t.Fatal(err)
	}
	config := &app.WasmConfig{Module: "app.wasm"}
	spec := appsite.Spec{
		App: fleet.AppKey{Namespace: "default", Name: name}, Release: name + "-1", ID: "default." + name + ".0", Dir: dir,
		Config: app.BundleConfig{Runtime: app.RuntimeWasm, Wasm: config}, Env: map[string]string{}, DataDirs: map[string]string{},
	}
	if edit != nil {
		edit(&spec, config)
	}
	for _, name := range spec.Config.DataDirs() {
		spec.DataDirs[name] = filepath.Join(k.dir, "data", spec.App.Name, name)
		if err := os.MkdirAll(spec.DataDirs[name], 0o700); err != nil {
			k.t.Fatal(err)
		}
	}
	if err := spec.Config.Validate(); err != nil {
		k.t.Fatal(err)
	}
	return spec
}

// serve starts an app and gives it the route /NAME's host.
func (k *kitchen) serve(name, module string, edit func(*appsite.Spec, *app.WasmConfig)) *dish {
	k.t.Helper()
	d := k.start(k.spec(name, module, edit))
	k.route(d)
	return d
}

// route lets the gateway know an app once it runs.
func (k *kitchen) route(d *dish) {
	k.t.Helper()
	status := d.await("running", func(s appsite.Status) bool { return s.Phase == fleet.PhaseRunning })
	k.gateway.Set(d.spec.App, site.Route{Host: d.spec.App.Name + ".test", Path: "/", State: site.RouteReady, Target: status.Target, Handler: status.Handler})
}

func (k *kitchen) start(spec appsite.Spec) *dish {
	k.t.Helper()
	d := &dish{kitchen: k, spec: spec, out: &buffer{}, url: k.url}
	d.spec.Stdout, d.spec.Stderr = d.out, d.out
	i, err := k.rt.Start(k.t.Context(), d.spec)
	if err != nil {
		k.t.Fatal(err)
	}
	d.Instance = i
	k.t.Cleanup(d.end)
	return d
}

func (d *dish) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		d.t.Errorf("stop: %v", err)
	}
}

// await returns the first status that ok accepts.
func (d *dish) await(what string, ok func(appsite.Status) bool) appsite.Status {
	d.t.Helper()
	deadline := time.After(2 * time.Minute) // the race detector compiles slowly
	for {
		s := d.Status()
		if ok(s) {
			return s
		}
		if s.Phase == fleet.PhaseFailed {
			d.t.Fatalf("waited for %s: %s", what, s.Message)
		}
		select {
		case <-d.Changes():
		case <-deadline:
			d.t.Fatalf("waited for %s, status is %+v; output:\n%s", what, s, d.out)
		}
	}
}

func (d *dish) request(method, path string, body io.Reader) *http.Request {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Host = d.spec.App.Name + ".test"
	return req
}

// do sends a request and reads the whole answer.
func (d *dish) do(req *http.Request) (*http.Response, string) {
	d.t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatalf("%s: %v after %q", req.URL.Path, err, data)
	}
	return res, string(data)
}

func (d *dish) get(path string) (int, string) {
	d.t.Helper()
	res, body := d.do(d.request(http.MethodGet, path, nil))
	return res.StatusCode, body
}

// reason sends a request that must fail with a problem, and returns its status and reason.
func (d *dish) reason(path string) (int, string) {
	d.t.Helper()
	res, body := d.do(d.request(http.MethodGet, path, nil))
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || res.Header.Get("Content-Type") != "application/problem+json" {
		d.t.Fatalf("%s: want a problem, got %d %q", path, res.StatusCode, body)
	}
	if p.Status != res.StatusCode || p.Detail == "" || p.App != d.spec.App.String() {
		d.t.Errorf("%s: problem is incomplete: %+v", path, p)
	}
	return res.StatusCode, p.Reason
}

// count returns a counter's value.
func (k *kitchen) count(name string, labels map[string]string) float64 {
	k.t.Helper()
	families, err := k.reg.Gather()
	if err != nil {
		k.t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
					continue metrics
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
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

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}
