// Package telemetry sets up what a process says of itself: its log, its metrics, and the loopback port on
// which both its health and its metrics are read.
//
// It belongs to the kernel: everything may import it; it imports client_golang, x/term and
// the standard library.
// It holds no state of its own; cmd makes one of each and hands them down.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/term"
)

// NewLogger returns a logger that writes to w: for people when w is a terminal, as JSON elsewhere, or as
// format says ("text", "json"; empty: by w).
func NewLogger(w io.Writer, format string, level slog.Leveler) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level}
	switch {
	case format == "text" || format == "" && IsTerminal(w):
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case format == "json" || format == "":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", format)
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	return term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

// NewRegistry returns a registry that already counts what the Go runtime and the process use.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Join gathers from several registries. Of two families with one name, that of the first registry is told:
// libraries bring registries of their own, each of which counts the Go runtime anew.
func Join(from ...prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		seen := map[string]bool{}
		var out []*dto.MetricFamily
		var errs []error
		for _, g := range from {
			families, err := g.Gather()
			errs = append(errs, err)
			for _, f := range families {
				if !seen[f.GetName()] {
					seen[f.GetName()] = true
					out = append(out, f)
				}
			}
		}
		slices.SortFunc(out, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
		return out, errors.Join(errs...)
	})
}

// Check says why a part of the process is not ready; nil when it is.
type Check func(ctx context.Context) error

// Handler serves /healthz, /readyz, the metrics at each of the paths that are given, such as "/metrics", and
// /debug/pprof/. It authenticates nobody: it belongs on loopback only.
func Handler(metrics map[string]prometheus.Gatherer, ready map[string]Check) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		var all error
		for name, check := range ready {
			if err := check(r.Context()); err != nil {
				all = errors.Join(all, fmt.Errorf("%s: %w", name, err))
			}
		}
		if all != nil {
			http.Error(w, all.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	for path, gatherer := range metrics {
		mux.Handle("GET "+path, promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// ErrNotLoopback means that an address for administration could be reached from elsewhere.
var ErrNotLoopback = errors.New("address is not a loopback address")

// Listen opens a port for Handler. It refuses any address but a loopback one.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("administration address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("administration address %q: it serves profiles to anyone who reaches it: use 127.0.0.1:PORT: %w", address, ErrNotLoopback)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for administration: %w", err)
	}
	return l, nil
}

// Serve serves h on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve administration: %w", err)
	}
	return nil
}
