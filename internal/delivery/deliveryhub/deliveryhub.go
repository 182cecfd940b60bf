// Package deliveryhub is the hub half of delivery: it tells each site how its downloads are bounded, and which
// neighbours it has.
//
// It is the one writer of the section "delivery". It reads Sites and what they report of their addresses, and writes
// nothing to the Kubernetes API. A site of which nothing is said has no section. Only cmd imports it.
package deliveryhub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/delivery"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// reach is how far a site's neighbours are from it, before and after, on the ring of its network's names: each site
// has as many, and every two that know of each other do so both ways, as they must to answer each other.
const reach = 3

// indexNetwork finds the sites of a network in the cache.
const indexNetwork = "spec.network"

// Feature is the hub half of delivery.
type Feature struct {
	host    *hub.Host
	changes *hub.Notifier

	mu sync.Mutex
	// known is what others were told of each site when it was last looked at: a change concerns them.
	known map[fleet.SiteName]known
}

type known struct {
	network   string
	neighbour delivery.Neighbour
}

// New returns the feature.
func New() *Feature {
	return &Feature{changes: hub.NewNotifier(), known: map[fleet.SiteName]known{}}
}

// Name implements hub.Feature.
func (f *Feature) Name() string { return delivery.SectionName }

// Setup implements hub.Feature.
func (f *Feature) Setup(ctx context.Context, h *hub.Host) error {
	f.host = h
	err := h.Manager.GetFieldIndexer().IndexField(ctx, &v1alpha1.Site{}, indexNetwork, func(o client.Object) []string {
		if s, ok := o.(*v1alpha1.Site); ok && s.Spec.Network != "" {
			return []string{s.Spec.Network}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index sites by network: %w", err)
	}
	h.Fleet.OnChange(func(site fleet.SiteName) {
		reported := f.reported(site)
		f.mu.Lock()
		changed := !slices.Equal(reported, f.known[site].neighbour.Addresses)
		f.mu.Unlock()
		if changed {
			f.changes.NotifySite(site)
		}
	})
	err = ctrl.NewControllerManagedBy(h.Manager).Named(delivery.SectionName).
		For(&v1alpha1.Site{}).
		WatchesRawSource(f.changes.Source()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(f)
	if err != nil {
		return fmt.Errorf("set up controller of delivery: %w", err)
	}
	return nil
}

// reported returns where a site says that its neighbours reach it.
func (f *Feature) reported(site fleet.SiteName) []string {
	report, ok := f.host.Fleet.Report(site)
	if !ok {
		return nil
	}
	var r delivery.Report
	if json.Unmarshal(report.Modules[delivery.SectionName], &r) != nil {
		return nil
	}
	r.Addresses = slices.DeleteFunc(r.Addresses, func(a string) bool { return delivery.CheckAddress(a) != nil })
	return r.Addresses[:min(len(r.Addresses), delivery.MaxAddresses)]
}

// Reconcile implements reconcile.Reconciler.
func (f *Feature) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	name := fleet.SiteName(req.Name)
	var site v1alpha1.Site
	err := f.host.Client.Get(ctx, req.NamespacedName, &site)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("read site %s: %w", name, err)
	}
	gone := err != nil || !site.DeletionTimestamp.IsZero()
	if err := f.tellOthers(ctx, name, &site, gone); err != nil || gone {
		return ctrl.Result{}, err
	}
	section, err := f.section(ctx, &site)
	if err != nil {
		return ctrl.Result{}, err
	}
	body, err := section.Encode()
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("site %s: encode delivery: %w", name, err)
	}
	return ctrl.Result{}, f.host.Desired.Set(ctx, name, delivery.SectionName, body)
}

// tellOthers has the sites of a network looked at again when one of theirs came, went, or is not what it was.
func (f *Feature) tellOthers(ctx context.Context, name fleet.SiteName, site *v1alpha1.Site, gone bool) error {
	var now known
	if !gone {
		now.network = site.Spec.Network
		now.neighbour, _ = f.neighbour(site)
	}
	f.mu.Lock()
	old := f.known[name]
	f.known[name] = now
	if gone {
		delete(f.known, name)
	}
	f.mu.Unlock()
	if reflect.DeepEqual(old, now) {
		return nil
	}
	var errs []error
	for _, network := range slices.Compact([]string{old.network, now.network}) {
		if network != "" {
			errs = append(errs, f.notify(ctx, network, name))
		}
	}
	return errors.Join(errs...)
}

func (f *Feature) notify(ctx context.Context, network string, but fleet.SiteName) error {
	sites, err := f.on(ctx, network)
	for _, s := range sites {
		if s.Name != string(but) {
			f.changes.NotifySite(fleet.SiteName(s.Name))
		}
	}
	return err
}

// on returns the sites of a network that stay, in the order of their names.
func (f *Feature) on(ctx context.Context, network string) ([]v1alpha1.Site, error) {
	var list v1alpha1.SiteList
	if err := f.host.Client.List(ctx, &list, client.MatchingFields{indexNetwork: network}); err != nil {
		return nil, fmt.Errorf("list sites of network %s: %w", network, err)
	}
	list.Items = slices.DeleteFunc(list.Items, func(s v1alpha1.Site) bool { return !s.DeletionTimestamp.IsZero() })
	slices.SortFunc(list.Items, func(a, b v1alpha1.Site) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return list.Items, nil
}

// section is what the site is told.
func (f *Feature) section(ctx context.Context, site *v1alpha1.Site) (delivery.Section, error) {
	s := delivery.Section{TimeZone: site.Spec.TimeZone}
	if d := site.Spec.Downloads; d != nil {
		if d.Bandwidth != nil {
			s.BytesPerSecond = d.Bandwidth.Value()
		}
		for _, w := range d.Hours {
			s.Hours = append(s.Hours, delivery.Window{Days: w.Days, From: w.From, To: w.To})
		}
	}
	if len(s.Hours) == 0 {
		s.TimeZone = "" // means nothing then, and a change of it is none
	}
	if site.Spec.Network == "" {
		return s, nil
	}
	others, err := f.on(ctx, site.Spec.Network)
	if err != nil {
		return s, err
	}
	s.Neighbours = f.around(site.Name, others)
	return s, nil
}

// around returns the neighbours of a site among those of its network, in the order of their names.
func (f *Feature) around(name string, ring []v1alpha1.Site) []delivery.Neighbour {
	var out []delivery.Neighbour
	at := slices.IndexFunc(ring, func(o v1alpha1.Site) bool { return o.Name == name })
	for i := range ring {
		apart := (i - at + len(ring)) % len(ring)
		if at < 0 || i == at || min(apart, len(ring)-apart) > reach {
			continue
		}
		if n, ok := f.neighbour(&ring[i]); ok {
			out = append(out, n)
		}
	}
	return out
}

// neighbour describes a site to others; false when it has no machine that may speak for it.
func (f *Feature) neighbour(site *v1alpha1.Site) (delivery.Neighbour, bool) {
	n := delivery.Neighbour{Site: fleet.SiteName(site.Name), Addresses: f.reported(fleet.SiteName(site.Name))}
	for _, m := range site.Status.Members {
		if !hub.Revoked(site, m.ID) {
			n.Keys = append(n.Keys, m.PublicKey)
		}
	}
	return n, len(n.Keys) > 0
}
