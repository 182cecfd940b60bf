// Package secrethub is the hub half of secrets: it seals the Secrets that the apps of a site use to each
// member of that site, and says of which Secrets or keys an app has to wait for.
//
// It is the one writer of the section "secrets" of every site. A Secret is read in the namespace of the app
// that names it and nowhere else, from the API when it is needed, and forgotten when it is sealed: only its
// metadata is watched, and the names of its keys are remembered. What was sealed is sealed again only when
// the Secret, the keys that are needed, or the members of the site changed, as the section itself says; a
// hub that starts compares, and writes nothing. Only cmd imports it.
package secrethub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/secret"
)

// Apps says which apps a site is told to run.
type Apps interface {
	// SecretsAt returns what the apps that site is told to run need. known is false while a hub that just
	// started cannot say.
	SecretsAt(site fleet.SiteName) (uses []hub.SecretUse, known bool)
	// Settled reports whether site runs what it was told of the app, or was told nothing of it: then it
	// needs no secret of an earlier release any more.
	Settled(site fleet.SiteName, app fleet.AppKey) bool
	// OnTold registers fn to be called with each site after it was told of other apps or releases. fn must
	// not block. Only before the hub starts.
	OnTold(fn func(fleet.SiteName))
}

// Feature is the hub half of secrets.
type Feature struct {
	apps  Apps
	host  *hub.Host
	fresh client.Reader
	told  *hub.Notifier
	// watchers are called with each Secret that was asked for, after it changed.
	watchers []func(namespace, name string)

	mu sync.Mutex
	// keys remembers the names of the keys of Secrets that apps name; see Missing.
	keys map[types.NamespacedName]knownKeys
	// sites says which sites need a Secret, and undelivered why one did not reach a site.
	sites       map[types.NamespacedName]map[fleet.SiteName]bool
	undelivered map[types.NamespacedName]map[fleet.SiteName]string
	sealed      prometheus.Counter
	// unsettled are the sites that keep a secret for an earlier release: their reports are looked at.
	unsettled map[fleet.SiteName]bool
	// closed are the sites that could not open something.
	closed map[fleet.SiteName]bool
}

// New returns the feature.
func New(apps Apps) *Feature {
	return &Feature{
		apps: apps, told: hub.NewNotifier(), keys: map[types.NamespacedName]knownKeys{},
		sites:       map[types.NamespacedName]map[fleet.SiteName]bool{},
		undelivered: map[types.NamespacedName]map[fleet.SiteName]string{},
		unsettled:   map[fleet.SiteName]bool{},
		closed:      map[fleet.SiteName]bool{},
		sealed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skerry_hub_secrets_sealed_total", Help: "Times that a Secret was sealed to a member of a site."}),
	}
}

// Name implements hub.Feature.
func (f *Feature) Name() string { return "secrets" }

// Setup implements hub.Feature.
func (f *Feature) Setup(_ context.Context, h *hub.Host) error {
	f.host, f.fresh = h, h.Manager.GetAPIReader()
	undelivered := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "skerry_hub_secrets_undelivered", Help: "Secrets that did not reach a site that needs them, counted by site."}, f.countUndelivered)
	if err := errors.Join(h.Metrics.Register(f.sealed), h.Metrics.Register(undelivered)); err != nil {
		return fmt.Errorf("register metrics of secrets: %w", err)
	}
	f.apps.OnTold(f.told.NotifySite)
	h.Fleet.OnChange(func(site fleet.SiteName) {
		closed := len(f.closedAt(site)) > 0
		f.mu.Lock()
		look := f.unsettled[site] || closed || f.closed[site]
		f.mu.Unlock()
		if look {
			f.told.NotifySite(site)
		}
	})
	h.OnSiteGone(func(_ context.Context, s *v1alpha1.Site) error {
		f.forget(fleet.SiteName(s.Name))
		return nil
	})
	err := ctrl.NewControllerManagedBy(h.Manager).Named("secret").
		For(&v1alpha1.Site{}).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(f.changed)).
		WatchesRawSource(f.told.Source()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(f)
	if err != nil {
		return fmt.Errorf("set up secret controller: %w", err)
	}
	return nil
}

// changed tells who asked for a Secret that it changed, and returns the sites that need it.
func (f *Feature) changed(_ context.Context, obj client.Object) []reconcile.Request {
	key := client.ObjectKeyFromObject(obj)
	f.mu.Lock()
	_, asked := f.keys[key]
	var out []reconcile.Request
	for site := range f.sites[key] {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: string(site)}})
	}
	f.mu.Unlock()
	if asked {
		f.tell(key)
	}
	return out
}

func (f *Feature) tell(key types.NamespacedName) {
	for _, fn := range f.watchers {
		fn(key.Namespace, key.Name)
	}
}

// note keeps which Secrets a site needs, and which of them did not reach it, and returns those of which the
// latter changed.
func (f *Feature) note(site fleet.SiteName, needed []types.NamespacedName, problems map[types.NamespacedName]string) []types.NamespacedName {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, sites := range f.sites {
		if delete(sites, site); len(sites) == 0 {
			delete(f.sites, key)
		}
	}
	for _, key := range needed {
		if f.sites[key] == nil {
			f.sites[key] = map[fleet.SiteName]bool{}
		}
		f.sites[key][site] = true
	}
	var changed []types.NamespacedName
	for key, sites := range f.undelivered {
		if _, still := problems[key]; !still && sites[site] != "" {
			changed = append(changed, key)
			if delete(sites, site); len(sites) == 0 {
				delete(f.undelivered, key)
			}
		}
	}
	for key, problem := range problems {
		if f.undelivered[key] == nil {
			f.undelivered[key] = map[fleet.SiteName]string{}
		}
		if f.undelivered[key][site] != problem {
			changed = append(changed, key)
			f.undelivered[key][site] = problem
		}
	}
	return changed
}

// watch says whether reports of a site are to be looked at.
func (f *Feature) watch(site fleet.SiteName, unsettled, closed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if delete(f.unsettled, site); unsettled {
		f.unsettled[site] = true
	}
	if delete(f.closed, site); closed {
		f.closed[site] = true
	}
}

// closedAt returns what a site says that it cannot open of what it is told now, by "namespace/name".
func (f *Feature) closedAt(site fleet.SiteName) map[string]string {
	report, ok := f.host.Fleet.Report(site)
	if !ok || report.Modules[sectionName] == nil {
		return nil
	}
	if m := f.host.Desired.Manifest(site); report.HubEpoch != m.HubEpoch || report.Generation != m.Generation {
		return nil // it speaks of something older
	}
	var r secret.Report
	if err := json.Unmarshal(report.Modules[sectionName], &r); err != nil {
		return nil
	}
	return r.Closed
}

func (f *Feature) forget(site fleet.SiteName) {
	f.watch(site, false, false)
	for _, key := range f.note(site, nil, nil) {
		f.tell(key)
	}
}

// Undelivered says why a Secret that the uses name did not reach one of the sites that need it; empty when
// all did.
func (f *Feature) Undelivered(uses []hub.SecretUse) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, use := range uses {
		sites := f.undelivered[secretKey(use)]
		var names []fleet.SiteName
		for site := range sites {
			names = append(names, site)
		}
		if len(names) > 0 {
			site := slices.Min(names)
			return fmt.Sprintf("site %s: Secret %s: %s", site, use.Name, sites[site])
		}
	}
	return ""
}

func (f *Feature) countUndelivered() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, sites := range f.undelivered {
		n += len(sites)
	}
	return float64(n)
}

// OnChange registers fn to be called with each Secret that some app names after it changed, or after it
// became known that it did not reach a site. fn must not block. Only before the hub starts.
func (f *Feature) OnChange(fn func(namespace, name string)) { f.watchers = append(f.watchers, fn) }

func secretKey(use hub.SecretUse) types.NamespacedName {
	return types.NamespacedName{Namespace: use.App.Namespace, Name: use.Name}
}
