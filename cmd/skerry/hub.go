package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/enroll/enrollhub"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/kube"
	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/ociregistry"
	"github.com/skerry-dev/skerry/internal/telemetry"
)

// hubOptions are what a person says of a hub to run.
type hubOptions struct {
	dataDir string
	// addr is the hub's one port, kubeAddr that of the embedded API; exact when another port will not do.
	addr, kubeAddr   string
	exact, kubeExact bool
	// publicURL is how sites and people reach the port; empty: by addr. names are further names and
	// addresses for certificates.
	publicURL string
	names     []string
	// kubeconfig names an existing cluster's API in place of the embedded one.
	kubeconfig string
	// natsListen is the address of NATS' own TLS port, for large hubs.
	natsListen string
	external   externalNATS
	adminAddr  string
	log        *slog.Logger
}

// externalNATS is an existing NATS in place of the embedded one.
type externalNATS struct {
	url, account, signingKey string
}

// hubEvents are told while a hub starts; each at most once.
type hubEvents struct {
	// api: the Kubernetes API answers; hub: the port serves sites and people.
	api, hub func(url string)
}

// runningHub is what cmd knows of the hub that it runs.
type runningHub struct {
	config  *rest.Config
	url     string
	dataDir string
}

// runHub runs a hub until ctx ends and everything has stopped, in the order in which one part needs the
// other. started is called when the hub serves.
func runHub(ctx context.Context, o hubOptions, events hubEvents, started func(runningHub)) error {
	release, err := dirs.Lock(o.dataDir, "hub")
	if err != nil {
		return err
	}
	defer release()
	quietLibraries(o.log)
	metrics := telemetry.NewRegistry()
	ports := dirs.OpenPorts(o.dataDir)
	listener, err := ports.Listen("hub", o.addr, o.exact)
	if err != nil {
		return err
	}
	defer listener.Close()
	hubURL := o.publicURL
	if hubURL == "" {
		hubURL = "https://" + listener.Addr().String()
	}
	authority, err := enrollhub.OpenAuthority(filepath.Join(o.dataDir, "ca"), time.Now)
	if err != nil {
		return err
	}
	gateways, err := enrollhub.OpenGatewayAuthority(filepath.Join(o.dataDir, "ca"), time.Now)
	if err != nil {
		return err
	}
	serving := authority.NewServing(append([]string{"127.0.0.1", "localhost"}, o.names...)...)

	bus, err := openBus(ctx, o, serving, metrics)
	if err != nil {
		return err
	}
	defer bus.close()
	api, err := openAPI(ctx, o, ports)
	if err != nil {
		return err
	}
	defer api.close()
	if err := api.ready(ctx); err != nil {
		return err
	}
	events.api(api.config.Host)

	features := newFeatures(bus, authority, gateways)
	registry, err := ociregistry.Open(filepath.Join(o.dataDir, "registry"), ociregistry.Options{
		Authorizer: features.registry, Log: o.log.With("component", "registry"), Metrics: metrics,
	})
	if err != nil {
		return err
	}
	defer registry.Close()
	features.bind(registry)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	if err := serveAdmin(ctx, &wg, o, metrics, api); err != nil {
		return err
	}
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-api.stopped:
			cancel(errors.Join(errors.New("the Kubernetes API server ended"), api.err()))
		}
	})
	delay := time.Duration(0)
	if !bus.issuer.CanRevoke() {
		delay = natsserver.MaxTTLWithoutRevocation
	}
	err = hub.Run(ctx, hub.Options{
		RevocationDelay: delay,
		Config:          api.config, Bus: bus.client, Store: bus.store, Listener: listener, TLS: serving.TLSConfig(),
		URL: hubURL, CA: authority.PEM(), GatewayCA: gateways.PEM(), Features: features.list(), Log: o.log, Metrics: metrics,
	}, func() {
		events.hub(hubURL)
		started(runningHub{config: api.config, url: hubURL, dataDir: o.dataDir})
	})
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	cancel(nil)
	return err
}

// quietLibraries gives Kubernetes' libraries a logger. Theirs is one for the whole process, so it is set
// here, once, before anything of theirs runs.
func quietLibraries(log *slog.Logger) {
	quiet := telemetry.Quiet(log.With("component", "kubernetes").Handler())
	klog.SetSlogLogger(slog.New(quiet))
	ctrl.SetLogger(logr.FromSlogHandler(quiet))
}

func serveAdmin(ctx context.Context, wg *sync.WaitGroup, o hubOptions, metrics *prometheus.Registry, api *apiParts) error {
	if o.adminAddr == "" {
		return nil
	}
	l, err := telemetry.Listen(ctx, o.adminAddr)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.dataDir, "admin.addr"), []byte(l.Addr().String()), 0o600); err != nil {
		return fmt.Errorf("remember administration address: %w", err)
	}
	handler := telemetry.Handler(metrics, map[string]telemetry.Check{"kubernetes": api.check})
	wg.Go(func() {
		if err := telemetry.Serve(ctx, l, handler); err != nil {
			o.log.Error("administration port failed", "error", err)
		}
	})
	return nil
}

// apiParts are the Kubernetes API that a hub uses, embedded or not.
type apiParts struct {
	config  *rest.Config
	ready   func(context.Context) error
	check   telemetry.Check
	stopped <-chan struct{}
	err     func() error
	close   func()
}

func openAPI(ctx context.Context, o hubOptions, ports *dirs.Ports) (*apiParts, error) {
	if o.kubeconfig != "" {
		return existingAPI(o.kubeconfig)
	}
	l, err := ports.Listen("kubernetes", o.kubeAddr, o.kubeExact)
	if err != nil {
		return nil, err
	}
	options := kube.Options{Dir: filepath.Join(o.dataDir, "kubernetes"), Listener: l, Log: o.log}
	for _, name := range o.names {
		if ip := net.ParseIP(name); ip != nil {
			options.IPs = append(options.IPs, ip)
		} else {
			options.Names = append(options.Names, name)
		}
	}
	server, err := kube.Start(ctx, options)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ready := func(ctx context.Context) error {
		if err := server.WaitReady(ctx); err != nil {
			return err
		}
		return server.WriteKubeconfig(filepath.Join(o.dataDir, "kubeconfig"))
	}
	return &apiParts{config: server.Config(), ready: ready, check: server.WaitReady, stopped: server.Stopped(), err: server.Err, close: server.Stop}, nil
}

// existingAPI uses a cluster that is there: it starts nothing and stops nothing.
func existingAPI(file string) (*apiParts, error) {
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("read --kubeconfig: %w", err)
	}
	config.QPS = -1
	check := func(ctx context.Context) error {
		client, err := rest.HTTPClientFor(config)
		if err != nil {
			return fmt.Errorf("client of the Kubernetes API: %w", err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("the Kubernetes API at %s does not answer: %w", config.Host, err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("the Kubernetes API at %s is not ready: %s", config.Host, res.Status)
		}
		return nil
	}
	return &apiParts{config: config, ready: check, check: check, stopped: make(chan struct{}), err: func() error { return nil }, close: func() {}}, nil
}

// busParts are the bus that a hub uses, embedded or not.
type busParts struct {
	client *natsbus.Client
	store  *natsbus.Store
	issuer enrollhub.Issuer
	// webSocket serves the bus on the hub's port.
	webSocket http.Handler
	// siteURLs are given to sites in place of that; empty: none.
	siteURLs []string
	close    func()
}

func openBus(ctx context.Context, o hubOptions, serving *enrollhub.Serving, _ prometheus.Registerer) (*busParts, error) {
	log := o.log.With("component", "bus")
	if o.external.url != "" {
		return externalBus(ctx, o.external, log)
	}
	options := natsserver.Options{Dir: filepath.Join(o.dataDir, "bus"), Log: log, Listen: o.natsListen}
	if o.natsListen != "" {
		options.TLS = serving.TLSConfig()
	}
	server, err := natsserver.Start(options)
	if err != nil {
		return nil, err
	}
	credential, sign, err := server.IssueHub()
	if err != nil {
		server.Stop()
		return nil, err
	}
	client, err := natsbus.Connect(ctx, natsbus.Options{
		InProcess: server.InProcessConn, Name: "hub", Log: log, Sign: sign,
		Credentials: func() (string, error) { return credential, nil },
	})
	if err != nil {
		server.Stop()
		return nil, err
	}
	b := &busParts{client: client, issuer: server, webSocket: server.WebSocketHandler(), close: func() { client.Close(); server.Stop() }}
	if addr := server.TLSAddr(); addr != nil {
		if b.siteURLs, err = tlsPortURLs(o, addr); err != nil {
			b.close()
			return nil, err
		}
	}
	if err := b.open(ctx, 1); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// tlsPortURLs is where sites reach NATS' own TLS port: at the host of the hub's public URL when the port
// listens on every address.
func tlsPortURLs(o hubOptions, addr net.Addr) ([]string, error) {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return nil, fmt.Errorf("--nats-listen: %w", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		public, err := url.Parse(o.publicURL)
		if err != nil || public.Hostname() == "" {
			return nil, fmt.Errorf("--nats-listen %s: sites need a name for it: set --public-url", o.natsListen)
		}
		host = public.Hostname()
	}
	return []string{"tlsfirst://" + net.JoinHostPort(host, port)}, nil
}

// externalBus uses a NATS that is there. Sites reach it through the hub's port alone, like the embedded
// one: NATS by itself does not keep them apart, the gate does.
func externalBus(ctx context.Context, e externalNATS, log *slog.Logger) (*busParts, error) {
	seed, err := os.ReadFile(e.signingKey)
	if err != nil {
		return nil, fmt.Errorf("read --nats-signing-key: %w", err)
	}
	issuer, err := natsserver.NewIssuer(e.account, seed)
	if err != nil {
		return nil, err
	}
	credential, sign, err := issuer.IssueHub()
	if err != nil {
		return nil, err
	}
	dial, err := natsserver.Upstream(e.url, nil)
	if err != nil {
		return nil, fmt.Errorf("--nats-url: %w", err)
	}
	client, err := natsbus.Connect(ctx, natsbus.Options{
		URLs: []string{e.url}, Name: "hub", Log: log, Sign: sign,
		Credentials: func() (string, error) { return credential, nil },
	})
	if err != nil {
		return nil, err
	}
	gate := natsserver.NewGate(dial, maxExternalConnections, log)
	b := &busParts{client: client, issuer: issuer, webSocket: gate.WebSocketHandler(), close: func() { gate.Stop(); client.Close() }}
	if err := b.open(ctx, 1); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// maxExternalConnections bounds the sites that a hub relays to an external NATS: each costs two sockets
// and two files beside its own.
const maxExternalConnections = 5_000

// busTimeout bounds the wait for the bus at the start.
const busTimeout = 30 * time.Second

func (b *busParts) open(ctx context.Context, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	if err := b.client.AwaitConnected(ctx); err != nil {
		return fmt.Errorf("connect to the bus: %w", err)
	}
	store, err := natsbus.NewStore(b.client)
	if err != nil {
		return err
	}
	b.store = store
	return store.EnsureStreams(ctx, replicas)
}
