// Package hubtest runs a whole hub for the tests of hub halves: on the real Kubernetes API of package
// kubetest, on whichever bus the test has, with the features that it names. Only test files import it.
//
// What fails ends the test.
package hubtest

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Options are what a test chooses of its hub.
type Options struct {
	// API reaches the Kubernetes API as its administrator.
	API *rest.Config
	// Bus and Store are the hub's own; the test closes them after Stop.
	Bus   wire.Bus
	Store wire.Store
	// TLS of the hub's port and CA, its authority in PEM; an authority of the test's own when nil.
	TLS *tls.Config
	CA  []byte
	// GatewayCA is published, when not nil.
	GatewayCA []byte
	Features  []hub.Feature
	// Now is the hub's clock; time.Now when nil.
	Now func() time.Time
}

// Hub is one that runs.
type Hub struct {
	// URL and CA are the address and the authority of its port.
	URL string
	CA  []byte
	// Client reaches the API as its administrator, without a cache.
	Client client.Client
	// Stop ends the hub and returns when it has ended. The test's end calls it too.
	Stop func()
}

// Start returns when the hub serves.
func Start(t testing.TB, o Options) *Hub {
	t.Helper()
	if o.TLS == nil {
		serving := NewAuthority(t, "hub")
		o.CA = serving.PEM()
		o.TLS = &tls.Config{Certificates: []tls.Certificate{serving.Leaf(t, "127.0.0.1")}, ClientAuth: tls.RequestClientCert}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &Hub{URL: "https://" + l.Addr().String(), CA: o.CA, Client: Client(t, o.API)}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- hub.Run(ctx, hub.Options{
			Config: o.API, Bus: o.Bus, Store: o.Store, Listener: l, URL: h.URL, CA: o.CA, GatewayCA: o.GatewayCA, TLS: o.TLS,
			AdmissionURL: h.URL, Features: o.Features, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Now: o.Now,
		}, func() { close(ready) })
	}()
	h.Stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("hub: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatalf("hub: %v", err)
	}
	t.Cleanup(h.Stop)
	return h
}

// Client returns one that knows the built-in kinds and Skerry's.
func Client(t testing.TB, api *rest.Config) client.Client {
	t.Helper()
	scheme, err := hub.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(api, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// patience is how long something may take to come true, on a machine that does other things too.
const patience = 30 * time.Second

// Eventually waits until wrong returns nothing, or ends the test with what is wrong. It looks again and
// again, since the API has no event for most of what a test waits for.
func Eventually(t testing.TB, what string, wrong func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		was := wrong()
		if was == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", what, was)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
