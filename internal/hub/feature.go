package hub

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Feature is one capability's half at the hub.
type Feature interface {
	// Name is used in logs and errors.
	Name() string
	// Setup registers the feature's reconcilers and handlers. It must not block; long work belongs into
	// runnables of Host.Manager, which start after every Setup and stop with the hub.
	Setup(ctx context.Context, h *Host) error
}

// Host is what features share. All of it is safe for concurrent use.
type Host struct {
	// Manager runs reconcilers; Client reads from its caches.
	Manager ctrl.Manager
	Client  client.Client
	// Bus reaches the sites.
	Bus wire.Bus
	// Desired is the only writer of what sites are told.
	Desired *Desired
	// Fleet knows what sites report and whether they are there.
	Fleet *Fleet
	// Caller asks members something now.
	Caller *Caller
	// People authenticates and authorises requests of people on the hub's port.
	People *People
	// Admission is where Validate registers what to refuse while it is applied.
	Admission *Admission
	// Public is the mux of the hub's one port. A handler registered here authenticates its callers itself.
	Public *http.ServeMux
	// URL is the address of that port as others reach it, such as "https://127.0.0.1:7443".
	URL string
	// CA is the certificate authority of the hub's port in PEM, as of its start.
	CA  []byte
	Log *slog.Logger
	// Metrics is where features register theirs; names start with "skerry_".
	Metrics prometheus.Registerer
	// Now is the hub's clock.
	Now func() time.Time

	// direct reaches the API without a cache, before and beside the manager.
	direct  client.Client
	options Options
	gone    []func(context.Context, *v1alpha1.Site) error
}

// OnSiteGone registers what must happen before a deleted Site's object may go, such as revoking its
// credentials. fn is called again until it succeeds. Only Setup may call this.
func (h *Host) OnSiteGone(fn func(context.Context, *v1alpha1.Site) error) {
	h.gone = append(h.gone, fn)
}

// SystemNamespace holds the hub's own objects.
const SystemNamespace = "skerry-system"

// SecretUse says that an app needs a Secret of its own namespace. It holds names alone.
type SecretUse struct {
	App  fleet.AppKey
	Name string
	// Keys in order and each once; none means all.
	Keys []string
	// Optional says that the app runs without what is missing.
	Optional bool
}
