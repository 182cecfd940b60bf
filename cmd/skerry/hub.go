package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/skerry-dev/skerry/cmd/internal/backup"
	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/enroll/enrollhub"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/kube"
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
	// otherURLs are where sites reach the port too.
	otherURLs []string
	// credentialLife is how long a site's credentials hold; zero for the default.
	credentialLife time.Duration
	// kubeconfig names an existing cluster's API in place of the embedded one.
	kubeconfig string
	// inCluster uses the API of the cluster in which this runs as a pod.
	inCluster bool
	// identity is how the embedded API knows people.
	identity kube.Identity
	// natsListen is the address of NATS' own TLS port, for large hubs.
	natsListen string
	external   externalNATS
	adminAddr  string
	// backups are made when its directory is set.
	backups backup.Schedule
	// siteBinaries is the directory of the agents that new machines get.
	siteBinaries string
	log          *slog.Logger
}

// externalNATS is an existing NATS in place of the embedded one.
type externalNATS struct {
	url, account, signingKey string
	// ca is a file with the authority of its certificate; empty for the machine's own.
	ca string
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
	if err := os.WriteFile(filepath.Join(o.dataDir, dirs.URLFile), []byte(hubURL+"\n"), 0o600); err != nil {
		return fmt.Errorf("remember the hub's URL: %w", err)
	}
	authority, err := enrollhub.OpenAuthority(filepath.Join(o.dataDir, dirs.CA), time.Now)
	if err != nil {
		return err
	}
	gateways, err := enrollhub.OpenGatewayAuthority(filepath.Join(o.dataDir, dirs.CA), time.Now)
	if err != nil {
		return err
	}
	serving := authority.NewServing(append([]string{"127.0.0.1", "localhost"}, o.names...)...)

	bus, err := openBus(ctx, o, serving, metrics)
	if err != nil {
		return err
	}
	defer bus.close()
	api, err := openAPI(ctx, o, ports, metrics)
	if err != nil {
		return err
	}
	defer api.close()
	if err := api.ready(ctx); err != nil {
		return err
	}
	events.api(api.config.Host)

	exported := map[string]prometheus.Gatherer{
		"/metrics": telemetry.Join(metrics, ctrlmetrics.Registry), "/metrics/kubernetes": api.metrics,
	}
	features := newFeatures(o, exported, bus, authority, gateways)
	registry, err := ociregistry.Open(filepath.Join(o.dataDir, dirs.Registry), ociregistry.Options{
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
	if err := serveAdmin(ctx, &wg, o, exported, api); err != nil {
		return err
	}
	backUp, err := scheduleBackups(o, metrics)
	if err != nil {
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
		RevocationDelay: delay, AdmissionURL: api.reaches(o.publicURL, listener.Addr()),
		Config: api.config, Bus: bus.client, Store: bus.store, Listener: listener, TLS: serving.TLSConfig(),
		URL: hubURL, CA: authority.Bundle(), GatewayCA: gateways.PEM(), Features: features.list(), Log: o.log, Metrics: metrics,
	}, func() {
		wg.Go(func() { backUp(ctx) })
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

// scheduleBackups returns what backs the hub up until its context ends; it does nothing unless it was asked for.
func scheduleBackups(o hubOptions, metrics prometheus.Registerer) (func(context.Context), error) {
	s := o.backups
	if s.Dir == "" {
		return func(context.Context) {}, s.Register(metrics)
	}
	s.Log = o.log.With("component", "backup")
	s.Save = func(ctx context.Context, file string) error {
		_, err := backup.Save(ctx, backup.Options{DataDir: o.dataDir, Version: version(), Log: s.Log, Running: true}, file)
		return err
	}
	return s.Run, s.Register(metrics)
}

func serveAdmin(ctx context.Context, wg *sync.WaitGroup, o hubOptions, metrics map[string]prometheus.Gatherer, api *apiParts) error {
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
