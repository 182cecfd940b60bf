package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/bundle"
	"github.com/skerry-dev/skerry/internal/app/process"
	"github.com/skerry-dev/skerry/internal/app/wasm"
	"github.com/skerry-dev/skerry/internal/fleet"
	httpgateway "github.com/skerry-dev/skerry/internal/gateway/http"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
)

// bench is one run.
type bench struct {
	ctx     context.Context
	dir     string
	length  time.Duration
	figures []figure
	// modules by name, and the program of the process app.
	modules map[string][]byte
	program string
}

func (b *bench) add(name string, value float64, unit string, aim float64, how string) {
	fmt.Fprintf(os.Stderr, "%-70s %.3g %s\n", name, value, unit)
	b.figures = append(b.figures, figure{name, value, unit, aim, how})
}

// The modules that are measured.
const (
	cModule   = "C"
	goModule  = "stock Go"
	sdkModule = "Go with the SDK"
	// waitModule writes more than the runtime holds back, so that it can be met in the middle of its answer.
	waitModule = "stock Go that writes 64 KiB"
)

func (b *bench) build() error {
	b.modules = map[string][]byte{}
	scaffold, native := filepath.Join(b.dir, "hello-wasm"), filepath.Join(b.dir, "hello")
	for dir, runtime := range map[string]string{scaffold: app.RuntimeWasm, native: app.RuntimeProcess} {
		if _, err := bundle.Scaffold(dir, filepath.Base(dir), runtime); err != nil {
			return err
		}
	}
	wasip1 := []string{"GOOS=wasip1", "GOARCH=wasm"}
	goBuild := []string{"-trimpath", "-ldflags=-s -w"}
	out := func(name string) string { return filepath.Join(b.dir, name) }
	b.program = out("bin-hello")
	for _, step := range []struct {
		env     []string
		command []string
	}{
		{nil, []string{"clang", "--target=wasm32-wasi", "-O2", "-o", out(cModule), "test/bench/wasm/guest/hello.c"}},
		{wasip1, slices.Concat([]string{"go", "build", "-C", scaffold}, goBuild, []string{"-o", out(goModule), "."})},
		{wasip1, slices.Concat([]string{"go", "build", "-C", "sdk/go"}, goBuild, []string{"-o", out(sdkModule), "./examples/hello"})},
		{wasip1, slices.Concat([]string{"go", "build"}, goBuild, []string{"-o", out(waitModule), "./test/bench/wasm/guest/wait"})},
		{nil, slices.Concat([]string{"go", "build", "-C", native}, goBuild, []string{"-o", b.program, "."})},
	} {
		cmd := exec.CommandContext(b.ctx, step.command[0], step.command[1:]...)
		cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off"), step.env...)
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", step.command, err, said)
		}
	}
	for _, name := range []string{cModule, goModule, sdkModule, waitModule} {
		data, err := os.ReadFile(out(name))
		if err != nil {
			return err
		}
		b.modules[name] = data
		b.add("module of "+name, float64(len(data))/1e6, "MB", 0, "as `skerry push` builds it; the C one with `clang -O2`")
	}
	return nil
}

// shop is the part of an agent that serves apps.
type shop struct {
	b       *bench
	wasm    *wasm.Runtime
	gateway *httpgateway.Gateway
	server  *httptest.Server
	running []appsite.Instance
	db      *store.Store
}

func (b *bench) open(cache string) (*shop, error) {
	rt, err := wasm.New(wasm.Options{CacheDir: filepath.Join(b.dir, cache)})
	if err != nil {
		return nil, err
	}
	gateway, err := httpgateway.New(httpgateway.Options{})
	if err != nil {
		return nil, err
	}
	return &shop{b: b, wasm: rt, gateway: gateway, server: httptest.NewServer(gateway)}, nil
}

func (s *shop) close() error {
	s.server.Close()
	var errs []error
	for _, i := range s.running {
		errs = append(errs, i.Stop(s.b.ctx))
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}

// place starts an app and gives it the route of its own host.
func (s *shop) place(rt appsite.Runtime, name string, config app.BundleConfig, files map[string][]byte) error {
	dir, scratch := filepath.Join(s.b.dir, "unpacked", name), filepath.Join(s.b.dir, "scratch", name)
	for file, data := range files {
		path := filepath.Join(dir, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o755)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	key := fleet.AppKey{Namespace: "default", Name: name}
	i, err := rt.Start(s.b.ctx, appsite.Spec{
		App: key, Release: name + "-1", ID: name, Dir: dir, Scratch: scratch, Config: config, AllowRoot: true,
		Env: map[string]string{"SKERRY_SITE": "shop-1"}, Stdout: io.Discard, Stderr: io.Discard,
	})
	if err != nil {
		return err
	}
	s.running = append(s.running, i)
	for {
		switch now := i.Status(); now.Phase {
		case fleet.PhaseRunning:
			s.gateway.Set(key, site.Route{Host: name, Path: "/", State: site.RouteReady, Target: now.Target, Handler: now.Handler})
			return nil
		case fleet.PhaseFailed:
			return errors.New(now.Message)
		}
		select {
		case <-i.Changes():
		case <-s.b.ctx.Done():
			return s.b.ctx.Err()
		}
	}
}

func (s *shop) placeModule(name string, module []byte) error {
	config := app.BundleConfig{Runtime: app.RuntimeWasm, Wasm: &app.WasmConfig{Module: "app.wasm", Limits: app.WasmLimits{Concurrency: 64, TimeoutSeconds: 60}}}
	return s.place(s.wasm, name, config, map[string][]byte{"app.wasm": module})
}

func (s *shop) placeProcess(name string) error {
	db, err := store.Open(filepath.Join(s.b.dir, "process.db"))
	if err != nil {
		return err
	}
	s.db = db
	bucket, err := db.Bucket("process")
	if err != nil {
		return err
	}
	rt, err := process.New(process.Options{StateDir: s.b.dir, Bucket: bucket})
	if err != nil {
		return err
	}
	program, err := os.ReadFile(s.b.program)
	if err != nil {
		return err
	}
	config := app.BundleConfig{Runtime: app.RuntimeProcess, Process: &app.ProcessConfig{Command: []string{"bin/app"}, Readiness: &app.Probe{Path: "/healthz"}}}
	return s.place(rt, name, config, map[string][]byte{"bin/app": program})
}

// get sends one request over the network.
func (s *shop) get(name string) error {
	req, err := http.NewRequestWithContext(s.b.ctx, http.MethodGet, s.server.URL+"/healthz", nil)
	if err != nil {
		return err
	}
	req.Host = name
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || len(body) == 0 {
		return fmt.Errorf("%s answered %s: %s", name, res.Status, bytes.TrimSpace(body))
	}
	return nil
}
