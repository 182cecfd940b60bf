package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/telemetry"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Options are what a hub is made of.
type Options struct {
	// Config reaches the Kubernetes API with the rights of the hub.
	Config *rest.Config
	// Bus and Store reach the sites.
	Bus   wire.Bus
	Store wire.Store
	// Listener is the hub's one port; TLS what it presents. Client certificates are asked for, never
	// demanded: each handler decides whom it lets in.
	Listener net.Listener
	TLS      *tls.Config
	// URL and CA are published to people and sites. CA may hold more than one authority; Host.PublishCA replaces it.
	URL string
	CA  []byte
	// GatewayCA is the authority of the sites' gateways, published to people; nil when there is none.
	GatewayCA []byte
	// RevocationDelay is how long a revoked member may stay at most because the bus cannot cut it off, as an
	// existing NATS; zero: it is cut off at once. Published to people.
	RevocationDelay time.Duration
	// AdmissionURL is where the API server reaches the hub's port, to ask about objects while they are
	// applied; empty when it cannot, and then conditions alone say what is wrong.
	AdmissionURL string
	// Features in the order of their Setup.
	Features []Feature
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	// Now is the hub's clock; nil means time.Now.
	Now func() time.Time
}

// Bounds of requests on the hub's port. Uploads and follows last; they have no total limit.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	shutdownGrace     = 5 * time.Second
)

// Scheme returns a scheme that knows the built-in kinds and those of Skerry.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("make scheme: %w", err)
	}
	return scheme, nil
}

// Run installs the API types, starts everything in order and returns after ctx ended and all of it has
// stopped. ready is called once, when sites and people are served.
func Run(ctx context.Context, o Options, ready func()) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := InstallTypes(ctx, o.Config); err != nil {
		return err
	}
	host, err := newHost(ctx, o)
	if err != nil {
		return err
	}
	if err := setupSites(host); err != nil {
		return err
	}
	for _, f := range o.Features {
		if err := f.Setup(ctx, host); err != nil {
			return fmt.Errorf("set up feature %s: %w", f.Name(), err)
		}
	}
	if err := errors.Join(publish(ctx, host.direct, o), installRoles(ctx, host.direct)); err != nil {
		return err
	}
	host.Public.Handle("POST "+pathAdmission+"{token}/{hook}", host.Admission)
	server := &http.Server{
		Handler:           withoutPin(host.Public),
		TLSConfig:         o.TLS,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Log.With("component", "port").Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	port := func(ctx context.Context) error {
		return serve(ctx, server, o.Listener, func() {
			host.People.AwaitKnown(ctx)
			host.admit(ctx, o)
			ready()
		})
	}
	if err := host.Manager.Add(runnable(port)); err != nil {
		return fmt.Errorf("add the hub's port: %w", err)
	}
	if err := host.Manager.Start(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run the hub: %w", err)
	}
	return nil
}

// PublishCA replaces the authorities, in PEM, by which people and the API server know this hub.
func (h *Host) PublishCA(ctx context.Context, ca []byte) error {
	o := h.options
	o.CA = ca
	return errors.Join(publish(ctx, h.direct, o), h.Admission.install(ctx, h.direct, o.AdmissionURL, ca))
}

// withoutPin serves an address that carries the digest of an authority as the same address without: agents that know
// nothing of it ask there.
func withoutPin(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, _, ok := wire.CutPin(r.URL.Path)
		if !ok {
			h.ServeHTTP(w, r)
			return
		}
		inner := r.WithContext(r.Context())
		u := *r.URL
		u.Path, u.RawPath = path, ""
		inner.URL = &u
		h.ServeHTTP(w, inner)
	})
}

// admit makes the API server ask this hub, now that it answers. A hub that cannot is one whose courtesy is
// missing, no more.
func (h *Host) admit(ctx context.Context, o Options) {
	if err := h.Admission.install(ctx, h.direct, o.AdmissionURL, o.CA); err != nil && ctx.Err() == nil {
		h.Log.Warn("objects are not checked while they are applied, but by conditions", "error", err)
	}
}

func newHost(ctx context.Context, o Options) (*Host, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	skipNames := true
	mgr, err := ctrl.NewManager(o.Config, ctrl.Options{
		Scheme:                  scheme,
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		Logger:                  logr.FromSlogHandler(telemetry.Quiet(o.Log.With("component", "manager").Handler())),
		Cache:                   cache.Options{DefaultTransform: strip},
		Controller:              config.Controller{SkipNameValidation: &skipNames},
		GracefulShutdownTimeout: new(shutdownGrace),
	})
	if err != nil {
		return nil, fmt.Errorf("make manager: %w", err)
	}
	desired, err := LoadDesired(ctx, o.Bus, o.Store, o.Log.With("component", "desired"))
	if err != nil {
		return nil, err
	}
	people, err := NewPeople(o.Config, o.Log.With("component", "people"))
	if err != nil {
		return nil, err
	}
	direct, err := client.New(o.Config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("client of the Kubernetes API: %w", err)
	}
	fleet := NewFleet(o.Bus, o.Store, o.Log.With("component", "fleet"), o.Now)
	if err := registerMetrics(o.Metrics, fleet, desired); err != nil {
		return nil, err
	}
	for _, r := range []manager.Runnable{fleet, people} {
		if err := mgr.Add(r); err != nil {
			return nil, fmt.Errorf("add to manager: %w", err)
		}
	}
	return &Host{
		options: o, direct: direct, Manager: mgr, Client: mgr.GetClient(), Bus: o.Bus, Desired: desired, Fleet: fleet,
		Caller: NewCaller(o.Bus, fleet), People: people, Admission: newAdmission(), Public: http.NewServeMux(),
		URL: o.URL, CA: o.CA, Log: o.Log, Metrics: o.Metrics, Now: o.Now,
	}, nil
}

// strip takes from what is cached that which nothing here reads: managed fields, which are half of an object, and
// of objects whose metadata alone is watched their annotations, in which kubectl keeps the object once more.
func strip(o any) (any, error) {
	if m, ok := o.(*metav1.PartialObjectMetadata); ok {
		m.Annotations = nil
	}
	return cache.TransformStripManagedFields()(o)
}

// runnable is a function that the manager runs on every hub, leader or not.
type runnable func(context.Context) error

// Start implements manager.Runnable.
func (r runnable) Start(ctx context.Context) error { return r(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (r runnable) NeedLeaderElection() bool { return false }

func serve(ctx context.Context, server *http.Server, l net.Listener, ready func()) error {
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(l, "", "") }()
	ready()
	select {
	case err := <-done:
		return fmt.Errorf("serve the hub's port: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		// Follows and buses do not end by themselves.
		err = server.Close()
		if err != nil {
			return fmt.Errorf("close the hub's port: %w", err)
		}
	}
	<-done
	return nil
}
