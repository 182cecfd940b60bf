package appsite_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/process"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/testenv"
)

// These tests run real programs through the real process runtime behind the real gateway.

// program builds testdata/app, once for all tests: small, and without the race detector that slows the
// tests themselves.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "skerry-app-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "app")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, "./testdata/app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build testdata/app: %w: %s", err, text)
	}
	return os.ReadFile(out)
})

// bootReal begins a life with the process runtime and a gateway that listens.
func (b *box) bootReal(opts appsite.Options) {
	b.t.Helper()
	b.boot(opts, func(bucket *store.Bucket) []appsite.Runtime {
		rt, err := process.New(process.Options{StateDir: b.dir, Bucket: bucket, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil))})
		if err != nil {
			b.t.Fatal(err)
		}
		return []appsite.Runtime{rt}
	})
	if err := b.router.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// haltReal ends the life, the gateway last, as an agent does.
func (b *box) haltReal() {
	b.t.Helper()
	b.halt()
	if err := b.router.Stop(context.Background()); err != nil {
		b.t.Error(err)
	}
}

// pushReal pushes the program as an app.
func (b *box) pushReal(version, mode string, edit func(*bundle)) app.Placement {
	b.t.Helper()
	testenv.Require(b.t, testenv.Tool("go"))
	binary, err := program()
	if err != nil {
		b.t.Fatal(err)
	}
	return b.push(version, func(bd *bundle) {
		bd.files = map[string]string{"bin/app": string(binary)}
		bd.config.Process.Env["MODE"] = mode
		if edit != nil {
			edit(bd)
		}
	})
}

// await polls the report: what it says comes from other processes.
func (b *box) await(what string, ok func(app.AppReport) bool) {
	b.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		r := b.report()
		if ok(r) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("waited for %s, report is %+v", what, r)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (b *box) awaitHealthy(p app.Placement) {
	b.t.Helper()
	b.await(p.Release, func(r app.AppReport) bool { return r.Healthy() && r.Running.Digest == p.Digest })
}

func (b *box) ask(path string) (int, string) {
	b.t.Helper()
	res, err := http.Get(b.router.URL() + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// load asks the app without a pause until stop is called, which says how many answers came from each
// version, and which requests failed.
func (b *box) load() (stop func() (answers map[string]int, failed []string)) {
	var mu sync.Mutex
	answers, failed := map[string]int{}, []string(nil)
	var over atomic.Bool
	var workers sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	url := b.router.URL() + "/hello"
	for n := range 4 {
		workers.Go(func() {
			for ; !over.Load(); time.Sleep(time.Millisecond) { // leaves the apps some of the machine
				var res *http.Response
				var err error
				if n%2 == 0 {
					res, err = client.Get(url)
				} else {
					res, err = client.Post(url, "text/plain", strings.NewReader("body"))
				}
				var body []byte
				if err == nil {
					body, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				mu.Lock()
				if err != nil || res.StatusCode != 200 {
					failed = append(failed, fmt.Sprint(err, " ", string(body)))
				} else {
					answers[strings.Fields(string(body))[0]]++
				}
				mu.Unlock()
			}
		})
	}
	return func() (map[string]int, []string) {
		over.Store(true)
		workers.Wait()
		client.CloseIdleConnections()
		return answers, failed
	}
}

func TestReleasesUnderLoadLoseNoRequest(t *testing.T) {
	b := newBox(t)
	b.bootReal(appsite.Options{ReadyWithin: 2 * time.Second})
	defer b.haltReal()
	one, two, three := b.pushReal("1.0", "serve", nil), b.pushReal("2.0", "serve", nil), b.pushReal("3.0", "broken", nil)
	b.apply(one)
	b.awaitHealthy(one)
	b.module.LinkChanged(fleet.LinkConnected)
	if code, body := b.ask("/hello"); code != 200 || body != "1.0 at shop-1, hub connected" {
		t.Fatalf("got %d %q", code, body)
	}
	if got, want := b.report().URL, b.router.URL()+"/hello"; got != want {
		t.Errorf("report says URL %q, want %q", got, want)
	}

	stop := b.load()
	for _, p := range []app.Placement{two, one, two} {
		b.apply(p)
		b.awaitHealthy(p)
	}
	b.apply(three)
	b.await("the broken release to fail", func(r app.AppReport) bool {
		return r.Phase == fleet.PhaseFailed && r.Desired.Digest == three.Digest && r.Running.Digest == two.Digest &&
			strings.Contains(r.Message, "exited with status 1")
	})
	answers, failed := stop()
	if len(failed) != 0 {
		t.Errorf("%d requests failed, such as %q; answered were %v", len(failed), failed[0], answers)
	}
	if answers["1.0"] == 0 || answers["2.0"] == 0 || answers["3.0"] != 0 {
		t.Errorf("answers by version: %v", answers)
	}
	if c := b.report().Counts; c.Requests < uint64(answers["1.0"]+answers["2.0"]) || c.Errors != 0 {
		t.Errorf("counted %d requests and %d errors of %v", c.Requests, c.Errors, answers)
	}
	var log stream
	if err := b.calls.streams[app.MethodLogs](t.Context(), []byte(`{"app":"default/hello","tail":-1}`), &log); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{" out hello-1.0 version 1.0 starts\n", " out hello-2.0 version 2.0 starts\n", " out hello-3.0 cannot start\n"} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("log lacks %q:\n%s", line, log.String())
		}
	}
}

func TestExclusiveDataUnderLoadHoldsRequests(t *testing.T) {
	b := newBox(t)
	b.bootReal(appsite.Options{})
	defer b.haltReal()
	one, two := b.pushReal("1.0", "serve", exclusive), b.pushReal("2.0", "serve", exclusive)
	b.apply(one)
	b.awaitHealthy(one)
	if code, body := b.ask("/hello/store"); code != 200 || body != "1.0\n" {
		t.Fatalf("got %d %q", code, body)
	}
	b.router.story()
	stop := b.load()
	b.apply(two)
	b.awaitHealthy(two)
	if answers, failed := stop(); len(failed) != 0 {
		t.Errorf("%d requests failed, such as %q; answered were %v", len(failed), failed[0], answers)
	}
	if diff := cmp.Diff([]string{"hello-1.0 held", "hello-2.0 held", "hello-2.0 ready"}, b.router.story()); diff != "" {
		t.Error(diff)
	}
	if code, body := b.ask("/hello/store"); code != 200 || body != "1.0\n2.0\n" {
		t.Errorf("data did not outlive the release: %d %q", code, body)
	}
}

func TestRealAppComesBackWithoutNetwork(t *testing.T) {
	b := newBox(t)
	b.bootReal(appsite.Options{})
	one := b.pushReal("1.0", "serve", nil)
	b.apply(one)
	b.awaitHealthy(one)
	b.haltReal()
	b.content.online(false)
	fetched := b.content.fetches()

	begun := time.Now()
	b.bootReal(appsite.Options{})
	defer b.haltReal()
	b.awaitHealthy(one)
	if code, body := b.ask("/hello"); code != 200 || body != "1.0 at shop-1, hub away" {
		t.Errorf("got %d %q", code, body)
	}
	t.Logf("from start of the module to the first answer: %s", time.Since(begun))
	if n := b.content.fetches(); n != fetched {
		t.Errorf("%d blobs were fetched without a network", n-fetched)
	}
}
