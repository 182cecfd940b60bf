package wasm

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
)

// neighbour asks another app again and again until the test's end, and fails it when that app is ever away or
// slow: whatever one app does, the others go on.
func (k *kitchen) neighbour(d *dish, within time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(k.t.Context())
	var wg sync.WaitGroup
	var worst time.Duration
	asked := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			begun := time.Now()
			req := d.request(http.MethodGet, "/hello", nil)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				k.t.Errorf("the neighbour does not answer: %v", err)
				return
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			asked++
			worst = max(worst, time.Since(begun))
			if res.StatusCode != 200 || string(body) != "hello\n" {
				k.t.Errorf("the neighbour answers %d %q", res.StatusCode, body)
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
		k.t.Logf("the neighbour was asked %d times, the longest took %s", asked, worst)
		if asked == 0 || worst > within {
			k.t.Errorf("the neighbour was asked %d times and took up to %s, want at most %s", asked, worst, within)
		}
	}
}

// neighbourWithin is how long another app may take beside one that does its worst, on a shared machine of two
// cores under the race detector.
const neighbourWithin = 2 * time.Second

func TestLimitsHold(t *testing.T) {
	k := newKitchen(t, nil)
	module := goGuest(t, "kitchen")
	bad := k.serve("bad", module, func(_ *appsite.Spec, c *app.WasmConfig) {
		c.Limits = app.WasmLimits{TimeoutSeconds: 2, MemoryBytes: 32 << 20, OutputBytes: 1 << 20}
	})
	full := k.serve("full", module, func(_ *appsite.Spec, c *app.WasmConfig) {
		c.Limits = app.WasmLimits{TimeoutSeconds: 60, MemoryBytes: 16 << 20}
	})
	good := k.serve("good", module, nil)
	tests := []struct {
		name, path string
		status     int
		reason     string
		why        string
	}{
		{"endless loop", "/loop", 504, "time", "a loop without calls ends when its time is over"},
		{"memory bomb", "/memory", 500, "memory", "more memory is refused, and the caller hears why"},
		{"endless recursion", "/recurse", 500, "memory", "a Go stack grows in the module's memory"},
		{"long sleep", "/sleep/1h", 504, "time", "who sleeps is woken when the time is over"},
		{"exit code", "/exit/3", 500, "exit", "an exit code that is not zero is a failure"},
		{"panic", "/panic", 500, "exit", "a panic of Go is an exit code of 2"},
		{"nothing", "/exit/0", 502, "header", "an answer begins with a header"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stop := k.neighbour(good, neighbourWithin)
			defer stop()
			begun := time.Now()
			bad := bad
			if tt.reason == "memory" {
				bad = full // it takes the module some time to fill it
			}
			status, reason := bad.reason(tt.path)
			if status != tt.status || reason != tt.reason {
				t.Errorf("got %d for %q, want %d for %q: %s", status, reason, tt.status, tt.reason, tt.why)
			}
			if took := time.Since(begun); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
			if n := k.count("skerry_wasm_failures_total", map[string]string{"app": bad.spec.App.String(), "reason": tt.reason}); n == 0 {
				t.Errorf("no failure was counted for %q", tt.reason)
			}
		})
	}
	if code, body := bad.get("/hello"); code != 200 || body != "hello\n" {
		t.Errorf("after all that the app answers %d %q", code, body)
	}
	if n := k.count("skerry_wasm_failures_total", map[string]string{"app": "default/good"}); n != 0 {
		t.Errorf("%v failures were counted for the neighbour", n)
	}
}

// cut reads an answer that must break off, and returns what came.
func (d *dish) cut(path string) (int, int64) {
	d.t.Helper()
	status, n, err := d.read(path)
	if err == nil {
		d.t.Errorf("%s: the answer seems whole after %d bytes", path, n)
	}
	return status, n
}

// cutOrShort reads an answer that may break off.
func (d *dish) cutOrShort(path string) (int, int64) {
	d.t.Helper()
	status, n, _ := d.read(path)
	return status, n
}

func (d *dish) read(path string) (int, int64, error) {
	d.t.Helper()
	res, err := http.DefaultClient.Do(d.request(http.MethodGet, path, nil))
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	return res.StatusCode, n, err
}

func TestAnswersThatBreakOff(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("bad", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) {
		c.Limits = app.WasmLimits{TimeoutSeconds: 5, OutputBytes: 1 << 20}
	})
	if status, n := d.cut("/flood"); status != 200 || n > 1<<20 {
		t.Errorf("flood: %d and %d bytes, want no more than the limit", status, n)
	}
	if status, _ := d.cut("/late/1h"); status != 200 {
		t.Errorf("late: %d", status)
	}
	// What fails before anything was sent is still told.
	if status, reason := d.reason("/half"); status != 500 || reason != "exit" {
		t.Errorf("half: %d %q", status, reason)
	}
	for _, reason := range []string{"output", "time", "exit"} {
		if n := k.count("skerry_wasm_failures_total", map[string]string{"reason": reason}); n != 1 {
			t.Errorf("%v failures for %q, want one", n, reason)
		}
	}
}

func TestCrowd(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("crowd", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) {
		c.Limits = app.WasmLimits{Concurrency: 2, Queue: 3, TimeoutSeconds: 30}
	})
	good := k.serve("good", goGuest(t, "kitchen"), nil)
	stop := k.neighbour(good, neighbourWithin)
	defer stop()
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			res, body := d.do(d.request(http.MethodGet, "/sleep/1s", nil))
			mu.Lock()
			defer mu.Unlock()
			got[fmt.Sprint(res.StatusCode, " ", res.Header.Get("Retry-After"))]++
			if res.StatusCode == 503 && !strings.Contains(body, `"busy"`) {
				t.Errorf("refused with %q", body)
			}
		})
	}
	wg.Wait()
	// Two are served, three wait, and as places become free some of the others may have been let in.
	if got["200 "] < 5 || got["503 1"] < 1 || got["200 "]+got["503 1"] != 12 {
		t.Errorf("answers were %v", got)
	}
	if n := k.count("skerry_wasm_failures_total", map[string]string{"reason": "busy"}); int(n) != got["503 1"] {
		t.Errorf("%v were counted as busy, %d were told so", n, got["503 1"])
	}
}

// A caller that does not read holds its instance until the time is over, and no longer.
func TestSlowReader(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("slow", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) {
		c.Limits = app.WasmLimits{TimeoutSeconds: 2, Concurrency: 1, OutputBytes: 4 << 30}
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(k.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /flood HTTP/1.1\r\nHost: slow.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// The second request waits for the place of the first.
	begun := time.Now()
	for code := 0; code != 200 && time.Since(begun) < 8*time.Second; {
		code, _ = d.get("/hello")
	}
	if took := time.Since(begun); took < time.Second || took > 8*time.Second {
		t.Errorf("the slow reader held its place for %s, want the limit of two seconds", took)
	}
	if n := k.count("skerry_wasm_failures_total", map[string]string{"reason": "time"}); n != 1 {
		t.Errorf("%v failures for \"time\", want one", n)
	}
}

// A caller that leaves ends its instance.
func TestCallerLeaves(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("left", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) {
		c.Limits = app.WasmLimits{TimeoutSeconds: 600, Concurrency: 1}
	})
	ctx, cancel := context.WithCancel(t.Context())
	res, err := http.DefaultClient.Do(d.request(http.MethodGet, "/late/1h", nil).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 6)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first\n" {
		t.Fatalf("what was written before the pause did not come: %q, %v", first, err)
	}
	cancel()
	res.Body.Close()
	if code, _ := d.get("/hello"); code != 200 { // it has the place of the first
		t.Errorf("got %d", code)
	}
	if n := k.count("skerry_wasm_failures_total", map[string]string{"reason": "gone"}); n != 1 {
		t.Errorf("%v failures for \"gone\", want one", n)
	}
}

func TestBodies(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("body", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) { c.Limits.TimeoutSeconds = 3 })
	big := strings.Repeat("0123456789abcdef", 512<<10/16)
	res, body := d.do(d.request(http.MethodPost, "/echo", strings.NewReader(big)))
	if res.StatusCode != 200 || body != big {
		t.Errorf("a body of known length: %d and %d bytes", res.StatusCode, len(body))
	}
	unknown := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }
	if res, body = d.do(d.request(http.MethodPost, "/echo", unknown("a short one"))); res.StatusCode != 200 || body != "a short one" {
		t.Errorf("a body of unknown length: %d %q", res.StatusCode, body)
	}
	if res, _ = d.do(d.request(http.MethodPost, "/echo", unknown(big))); res.StatusCode != 411 {
		t.Errorf("a long body of unknown length: %d", res.StatusCode)
	}
	// Streaming both ways: a line is answered while the body is still being written.
	conn, err := net.Dial("tcp", strings.TrimPrefix(k.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /lines HTTP/1.1\r\nHost: body.test\r\nContent-Length: 10\r\n\r\none\n")
	got := make([]byte, 4096)
	var all string
	for !strings.Contains(all, "ONE") {
		n, err := conn.Read(got)
		if err != nil {
			t.Fatalf("%v after %q", err, all)
		}
		all += string(got[:n])
	}
	fmt.Fprintf(conn, "three\n")
	for !strings.Contains(all, "THREE") {
		n, err := conn.Read(got)
		if err != nil {
			t.Fatalf("%v after %q", err, all)
		}
		all += string(got[:n])
	}
	// A body that stops half-way ends the instance when the time is over.
	slow, err := net.Dial("tcp", strings.TrimPrefix(k.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "POST /raw HTTP/1.1\r\nHost: body.test\r\nContent-Length: 10\r\n\r\none")
	answer, _ := io.ReadAll(slow)
	if !strings.Contains(string(answer), " 504 ") || !strings.Contains(string(answer), `"time"`) {
		t.Errorf("a body that does not come: %q", answer)
	}
}

func TestHeaders(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("raw", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) { c.Limits.HeaderBytes = 200 })
	for _, tt := range []struct {
		reason, raw string
		status      int
		header      string
		body        string
	}{
		{"a type is enough", "Content-Type: text/plain\n\nhi", 200, "Content-Type: text/plain", "hi"},
		{"lines may end with CRLF", "Content-Type: text/plain\r\nX-A: 1\r\n\r\nhi", 200, "X-A: 1", "hi"},
		{"a status with its phrase", "Status: 201 Made\nX-A: 1\n\n", 201, "X-A: 1", ""},
		{"a location alone is a redirect", "Location: https://example.com/\n\n", 302, "Location: https://example.com/", ""},
		{"the connection is the server's", "Content-Type: a/b\nConnection: close\nTransfer-Encoding: x\n\nhi", 200, "Content-Type: a/b", "hi"},
		{"no field that says what it is", "X-A: 1\n\nhi", 502, "", ""},
		{"no header at all", "hello", 502, "", ""},
		{"a status that is none", "Status: okay\n\n", 502, "", ""},
		{"a status that is not final", "Status: 101 Switching\n\n", 502, "", ""},
		{"a status twice", "Status: 200\nStatus: 200\n\n", 502, "", ""},
		{"a line without a colon", "Content-Type: a/b\nnonsense\n\n", 502, "", ""},
		{"a name with a space", "Content-Type: a/b\nX A: 1\n\n", 502, "", ""},
		{"a folded line", "Content-Type: a/b\n X-A: 1\n\n", 502, "", ""},
		{"a control character", "Content-Type: a/b\nX-A: \x01\n\n", 502, "", ""},
		{"a length that is none", "Content-Type: a/b\nContent-Length: -1\n\n", 502, "", ""},
		{"more than the limit", "Content-Type: a/b\nX-A: " + strings.Repeat("a", 200) + "\n\n", 502, "", ""},
		{"more than the limit without an end", strings.Repeat("a", 5000), 502, "", ""},
	} {
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		res, err := client.Do(d.request(http.MethodPost, "/raw", strings.NewReader(tt.raw)))
		if err != nil {
			t.Errorf("%s: %v", tt.reason, err)
			continue
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		name, value, _ := strings.Cut(tt.header, ": ")
		if res.StatusCode != tt.status || tt.status < 500 && (string(body) != tt.body || res.Header.Get(name) != value) {
			t.Errorf("%s: got %d %v %q", tt.reason, res.StatusCode, res.Header, body)
		}
		if tt.status == 502 && !strings.Contains(string(body), `"header"`) {
			t.Errorf("%s: the reason is not told: %s", tt.reason, body)
		}
		if res.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: the gateway's request id is gone", tt.reason)
		}
	}
}

func TestLogIsBounded(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("log", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) { c.Limits.TimeoutSeconds = 60 })
	if code, _ := d.get("/log"); code != 200 {
		t.Errorf("got %d", code)
	}
	out := d.out.String()
	if len(out) > maxLogBytes+200 || !strings.HasPrefix(out, "line 0 x") || !strings.Contains(out, "left out") {
		t.Errorf("the log has %d bytes and begins %q", len(out), out[:min(len(out), 50)])
	}
}
