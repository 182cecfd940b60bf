package httpgateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/gateway"
	"github.com/skerry-dev/skerry/internal/site"
)

// Gateway is a site's listener. Its Router half works before Start and after Stop, and then serves nobody.
type Gateway struct {
	opts   Options
	log    *slog.Logger
	table  *table
	counts *counts
	proxy  *httputil.ReverseProxy
	// upstream is what keeps connections to apps.
	upstream *http.Transport

	inFlight, held atomic.Int64

	mu     sync.Mutex
	url    string
	server *http.Server
	// cancel ends the requests that outlive a graceful stop; served closes after the listener's goroutine.
	cancel context.CancelFunc
	served chan struct{}
}

var (
	_ site.Router = (*Gateway)(nil)
	_ site.Module = (*Gateway)(nil)
)

// New returns a gateway that does not listen yet.
func New(opts Options) (*Gateway, error) {
	opts = opts.withDefaults()
	counts, err := newCounts(opts.Metrics)
	if err != nil {
		return nil, fmt.Errorf("gateway: register metrics: %w", err)
	}
	g := &Gateway{opts: opts, log: opts.Log, table: newTable(), counts: counts}
	g.upstream = newUpstream(opts)
	g.proxy = g.newProxy()
	return g, nil
}

// Set implements site.Router.
func (g *Gateway) Set(app fleet.AppKey, route site.Route) {
	if err := g.table.set(app, route); err != nil {
		g.log.Error("route cannot be used; the app is taken as down", "app", app.String(), "error", err)
	}
}

// Remove implements site.Router.
func (g *Gateway) Remove(app fleet.AppKey) { g.table.remove(app) }

// Drain implements site.Router.
func (g *Gateway) Drain(ctx context.Context, target string) error { return g.table.drain(ctx, target) }

// Counts implements site.Router.
func (g *Gateway) Counts() map[fleet.AppKey]fleet.RequestCounts { return g.counts.all() }

// URL implements site.Router.
func (g *Gateway) URL() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.url
}

// Name implements site.Module.
func (g *Gateway) Name() string { return gateway.ModuleName }

// Start listens and serves until Stop.
func (g *Gateway) Start(ctx context.Context) error {
	config, err := g.opts.serverTLS()
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	l, err := listen(ctx, g.opts.Address, config != nil, g.opts.NextPort)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	base, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler:           g,
		TLSConfig:         config,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: g.opts.ReadHeaderTimeout,
		IdleTimeout:       g.opts.IdleTimeout,
		MaxHeaderBytes:    g.opts.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	served := make(chan struct{})
	g.mu.Lock()
	g.url, g.server, g.cancel, g.served = listenURL(l.Addr(), config != nil), server, cancel, served
	g.mu.Unlock()
	go func() {
		defer close(served)
		serve := server.Serve
		if config != nil {
			serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
		}
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			g.log.Error("gateway stopped listening", "error", err)
		}
	}()
	g.log.Info("gateway listens", "url", g.URL())
	return nil
}

// Apply implements site.Module: the gateway has no section, its routes come through site.Router.
func (g *Gateway) Apply(_ context.Context, body []byte, _ fleet.Facts) error {
	if body != nil {
		return errors.New("gateway: this agent knows no section of that name: upgrade it")
	}
	return nil
}

// Report implements site.Module.
func (g *Gateway) Report() any {
	r := gateway.Report{URL: g.URL(), Unknown: g.counts.unknownTotal()}
	for _, c := range g.counts.all() {
		r.Requests += c.Requests
		r.Errors += c.Errors
	}
	return r
}

// Stop stops listening, waits for requests in flight, and ends those that are left when ctx ends.
// Upgraded connections have no end of their own and are closed at once.
func (g *Gateway) Stop(ctx context.Context) error {
	g.mu.Lock()
	server, cancel, served := g.server, g.cancel, g.served
	g.url, g.server = "", nil
	g.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Shutdown(ctx)
	cancel()
	if err != nil {
		err = errors.Join(fmt.Errorf("gateway: requests were cut off: %w", err), server.Close())
	}
	<-served
	g.table.drainAll()
	g.upstream.CloseIdleConnections()
	return err
}
