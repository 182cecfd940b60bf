package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/skerry-dev/skerry/internal/telemetry"
)

func TestNewLogger(t *testing.T) {
	tests := []struct {
		format string
		isJSON bool
		reason string
	}{
		{"", true, "what is no terminal is read by a program"},
		{"json", true, "as asked"},
		{"text", false, "as asked, on no terminal too"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		log, err := telemetry.NewLogger(&out, tt.format, slog.LevelInfo)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("hidden")
		log.Info("shown", "site", "shop-1")
		if got := json.Valid(out.Bytes()); got != tt.isJSON {
			t.Errorf("format %q wrote %s: %s", tt.format, out.String(), tt.reason)
		}
		if !strings.Contains(out.String(), "shop-1") || strings.Contains(out.String(), "hidden") {
			t.Errorf("format %q wrote %s", tt.format, out.String())
		}
	}
	if _, err := telemetry.NewLogger(io.Discard, "xml", slog.LevelInfo); err == nil || !strings.Contains(err.Error(), `"xml"`) {
		t.Errorf("an unknown format was answered with %v", err)
	}
}

func TestIsTerminal(t *testing.T) {
	if telemetry.IsTerminal(&bytes.Buffer{}) {
		t.Error("a buffer is a terminal")
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if telemetry.IsTerminal(f) {
		t.Error("/dev/null is a terminal")
	}
}

func TestQuiet(t *testing.T) {
	tests := []struct {
		in, want slog.Level
		reason   string
	}{
		{slog.LevelError, slog.LevelWarn, "libraries call an error what they try again by themselves"},
		{slog.LevelError + 4, slog.LevelWarn, "whatever they call worse"},
		{slog.LevelWarn, slog.LevelDebug, "nobody can act on a library's warning"},
		{slog.LevelInfo, slog.LevelDebug, "nor on what it tells of itself"},
		{slog.LevelDebug, slog.LevelDebug, "what is for debugging stays so"},
		{slog.LevelDebug - 4, slog.LevelDebug - 4, "finer detail must not become louder"},
	}
	for _, tt := range tests {
		if got := telemetry.Quieter(tt.in); got != tt.want {
			t.Errorf("Quieter(%v) = %v, want %v: %s", tt.in, got, tt.want, tt.reason)
		}
	}
	var out bytes.Buffer
	quiet := slog.New(telemetry.Quiet(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))).With("a", 1).WithGroup("g").With("b", 2)
	quiet.Info("told")
	quiet.Warn("warned")
	if out.Len() != 0 {
		t.Errorf("a quiet handler wrote %s", out.String())
	}
	if quiet.Enabled(t.Context(), slog.LevelInfo) || !quiet.Enabled(t.Context(), slog.LevelError) {
		t.Error("Enabled does not say what Handle does")
	}
	quiet.Error("failed", "c", 3)
	for _, want := range []string{"level=WARN", "failed", "a=1", "g.b=2", "g.c=3"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q misses %s", out.String(), want)
		}
	}
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHandler(t *testing.T) {
	metrics := telemetry.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "skerry_test_total", Help: "Counts."})
	metrics.MustRegister(counter)
	counter.Inc()
	fault := errors.New("no bus")
	var now error
	h := telemetry.Handler(map[string]prometheus.Gatherer{"/metrics": metrics}, map[string]telemetry.Check{
		"bus": func(context.Context) error { return now },
		"api": func(context.Context) error { return nil },
	})
	if code, body := get(t, h, "/readyz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("ready: %d %s", code, body)
	}
	now = fault
	if code, body := get(t, h, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "bus: no bus") {
		t.Errorf("not ready: %d %s", code, body)
	}
	if code, _ := get(t, h, "/healthz"); code != http.StatusOK {
		t.Errorf("what is not ready is not healthy either: %d", code)
	}
	_, body := get(t, h, "/metrics")
	for _, want := range []string{"skerry_test_total 1", "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics misses %s", want)
		}
	}
	if code, _ := get(t, h, "/debug/pprof/goroutine?debug=1"); code != http.StatusOK {
		t.Errorf("goroutine profile: %d", code)
	}
	if code, _ := get(t, h, "/"); code != http.StatusNotFound {
		t.Errorf("an unknown path: %d", code)
	}
}

func TestJoin(t *testing.T) {
	registry := func(names ...string) *prometheus.Registry {
		r := telemetry.NewRegistry()
		for i, name := range names {
			g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: "Says " + name + "."})
			g.Set(float64(i + len(names)))
			r.MustRegister(g)
		}
		return r
	}
	h := telemetry.Handler(map[string]prometheus.Gatherer{"/metrics": telemetry.Join(registry("z", "a"), registry("a"))}, nil)
	code, body := get(t, h, "/metrics")
	if code != http.StatusOK || !strings.Contains(body, "\na 3\n") || !strings.Contains(body, "\nz 2\n") || strings.Contains(body, "\na 1\n") {
		t.Errorf("want a of the first registry and z: %d %s", code, body)
	}
	if n := strings.Count(body, "# TYPE go_goroutines"); n != 1 {
		t.Errorf("what both registries count is told %d times", n)
	}
	failing := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return nil, errors.New("broken") })
	if _, err := telemetry.Join(registry("a"), failing).Gather(); err == nil {
		t.Error("an error of one registry was swallowed")
	}
}

func TestListenOnLoopbackOnly(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "localhost:0"} {
		l, err := telemetry.Listen(t.Context(), address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
			t.Errorf("%s listens on %s", address, ip)
		}
		_ = l.Close()
	}
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0"} {
		if l, err := telemetry.Listen(t.Context(), address); !errors.Is(err, telemetry.ErrNotLoopback) {
			t.Errorf("%s was answered with %v, %v: profiles would be public", address, l, err)
		}
	}
	if _, err := telemetry.Listen(t.Context(), "9090"); err == nil || errors.Is(err, telemetry.ErrNotLoopback) {
		t.Errorf("an address without a port was answered with %v", err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := telemetry.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	entered := make(chan struct{})
	go func() {
		done <- telemetry.Serve(ctx, l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done() // a request that lasts must not keep the process
		}))
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	<-entered
	cancel()
	if err := <-done; err != nil {
		t.Errorf("an orderly end was answered with %v", err)
	}
}
