package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/enroll/enrollhub"
	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/natsserver"
)

// busParts are the bus that a hub uses, embedded or not.
type busParts struct {
	client *natsbus.Client
	store  *natsbus.Store
	issuer enrollhub.Issuer
	// webSocket serves the bus on the hub's port.
	webSocket http.Handler
	// connections counts those of sites, and how many there may be.
	connections func() (now, limit int)
	// onTransport registers who is told of members' connections.
	onTransport func(natsserver.TransportFunc) error
	// siteURLs are given to sites in place of that; empty: none.
	siteURLs []string
	close    func()
}

func openBus(ctx context.Context, o hubOptions, serving *enrollhub.Serving, metrics prometheus.Registerer) (*busParts, error) {
	log := o.log.With("component", "bus")
	open := embeddedBus
	if o.external.url != "" {
		open = externalBus
	}
	b, err := open(ctx, o, serving, log)
	if err != nil {
		return nil, err
	}
	err = b.open(ctx, 1)
	if err == nil {
		err = b.register(metrics)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// register makes the bus' own counts visible.
func (b *busParts) register(metrics prometheus.Registerer) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		gauge("skerry_bus_connections", "Connections of sites to the bus.", func() float64 { now, _ := b.connections(); return float64(now) }),
		gauge("skerry_bus_connections_limit", "Connections of sites beyond which further ones are refused.", func() float64 { _, limit := b.connections(); return float64(limit) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "skerry_bus_messages_dropped_total", Help: "Messages that the hub itself was too slow to take.",
		}, func() float64 { return float64(b.client.Dropped()) }),
	} {
		if err := metrics.Register(c); err != nil {
			return fmt.Errorf("metrics of the bus: %w", err)
		}
	}
	return nil
}

func embeddedBus(ctx context.Context, o hubOptions, serving *enrollhub.Serving, log *slog.Logger) (*busParts, error) {
	options := natsserver.Options{Dir: filepath.Join(o.dataDir, dirs.Bus), Log: log, Listen: o.natsListen}
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
	b := &busParts{
		client: client, issuer: server, webSocket: server.WebSocketHandler(), connections: server.Connections,
		onTransport: server.OnTransport,
		close:       func() { client.Close(); server.Stop() },
	}
	if addr := server.TLSAddr(); addr != nil {
		if b.siteURLs, err = tlsPortURLs(o, addr); err != nil {
			b.close()
			return nil, err
		}
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
func externalBus(ctx context.Context, o hubOptions, _ *enrollhub.Serving, log *slog.Logger) (*busParts, error) {
	e := o.external
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
	trust, err := e.trust()
	if err != nil {
		return nil, err
	}
	dial, err := natsserver.Upstream(e.url, trust)
	if err != nil {
		return nil, fmt.Errorf("--nats-url: %w", err)
	}
	client, err := natsbus.Connect(ctx, natsbus.Options{
		URLs: []string{e.url}, Name: "hub", Log: log, Sign: sign, TLS: trust,
		Credentials: func() (string, error) { return credential, nil },
	})
	if err != nil {
		return nil, err
	}
	gate := natsserver.NewGate(dial, maxExternalConnections, log)
	return &busParts{
		client: client, issuer: issuer, webSocket: gate.WebSocketHandler(), connections: gate.Connections,
		onTransport: func(fn natsserver.TransportFunc) error { return gate.OnTransport(issuer, fn) },
		close:       func() { gate.Stop(); client.Close() },
	}, nil
}

// trust returns what the external NATS' certificate must chain to; nil for the machine's own roots.
func (e externalNATS) trust() (*tls.Config, error) {
	if e.ca == "" {
		return nil, nil
	}
	data, err := os.ReadFile(e.ca)
	if err != nil {
		return nil, fmt.Errorf("read --nats-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("--nats-ca %s: holds no certificate in PEM", e.ca)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
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
