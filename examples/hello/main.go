// Command hello answers HTTP requests with a page that says which site it runs at, which version it is,
// since when it runs, and whether the site reaches its hub. It needs nothing but the standard library.
package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

//go:embed page.html
var pageSource string

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, log); err != nil {
		log.Error("stopped", "error", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then finishes the requests under way.
func run(ctx context.Context, log *slog.Logger) error {
	// The agent chooses the port, and passes requests to it over loopback.
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", cmp.Or(os.Getenv("PORT"), "8080")))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: newApp(log), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.Info("listening", "address", listener.Addr())

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	err = server.Shutdown(grace)
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	log.Info("stopped in order")
	return err
}

// app answers requests. What the agent says about the site is in its environment.
type app struct {
	log    *slog.Logger
	page   *template.Template
	since  time.Time
	served atomic.Int64
}

func newApp(log *slog.Logger) http.Handler {
	a := &app{log: log, page: template.Must(template.New("page").Parse(pageSource)), since: time.Now()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", a.answer)
	return mux
}

// facts are what an answer tells.
type facts struct {
	App, Site, Release, Version string
	Since, Uptime               string
	Served                      int64
	Hub                         string // "connected", "away", or "unknown"
}

func (a *app) facts() facts {
	return facts{
		App:     filepath.Base(os.Args[0]),
		Site:    cmp.Or(os.Getenv("SKERRY_SITE"), "no site"),
		Release: cmp.Or(os.Getenv("SKERRY_RELEASE"), "no release"),
		Version: cmp.Or(os.Getenv("SKERRY_VERSION"), "dev"),
		Since:   a.since.UTC().Format("2 January 2006, 15:04:05 UTC"),
		Uptime:  time.Since(a.since).Round(time.Second).String(),
		Served:  a.served.Add(1),
		Hub:     hub(),
	}
}

// hub reads what the agent keeps up to date in a file.
func hub() string {
	data, err := os.ReadFile(os.Getenv("SKERRY_HUB_FILE"))
	if state := strings.TrimSpace(string(data)); err == nil && (state == "connected" || state == "away") {
		return state
	}
	return "unknown"
}

func (a *app) answer(w http.ResponseWriter, r *http.Request) {
	f := a.facts()
	w.Header().Set("Cache-Control", "no-store")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		if err := a.page.Execute(w, f); err != nil {
			a.log.Warn("the page was not sent", "error", err)
		}
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "Hello from %s: %s %s, release %s, up %s, %d served, hub %s\n", f.Site, f.App, f.Version, f.Release, f.Uptime, f.Served, f.Hub)
	}
	a.log.Info("request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "served", f.Served)
}
