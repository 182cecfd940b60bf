// Package apphub is the hub half of apps: it freezes each App into a Release, places it on the sites that
// it selects and is granted, tells them a few at a time, and says in App.status where it stands.
//
// It is the one writer of the section "apps" of every site. It keeps nothing but what it can read again:
// which site was told which release stands in the desired state on the bus, what became of it in the
// sites' reports. Only cmd imports it.
package apphub

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// Errors that a Bundles returns.
var (
	ErrBundleNotFound = appapi.ErrBundleNotFound
	ErrBundleInvalid  = appapi.ErrBundleInvalid
)

// Bundles finds bundles in the hub's registry.
type Bundles interface {
	// Resolve returns the bundle that a tag or digest of a repository names.
	Resolve(ctx context.Context, repository, reference string) (appapi.Resolved, error)
	// OnPush registers fn to be called with each repository that something was pushed to. fn must not
	// block. Only before the hub starts.
	OnPush(fn func(repository string))
}

// Feature is the hub half of apps.
type Feature struct {
	bundles    Bundles
	schemas    *schemas
	configMaps *configMaps
	secrets    Secrets
	host       *hub.Host
	book       *book
	// told are called with each site after what it is told changed.
	told []func(fleet.SiteName)
}

// New returns the feature; bundles is the hub's registry.
func New(bundles Bundles) *Feature {
	return &Feature{bundles: bundles, schemas: &schemas{kept: map[fleet.Digest]compiled{}}, secrets: noSecrets{}}
}

// Name implements hub.Feature.
func (f *Feature) Name() string { return "apps" }

// Setup implements hub.Feature.
func (f *Feature) Setup(ctx context.Context, h *hub.Host) error {
	f.host = h
	var sites v1alpha1.SiteList
	if err := h.Manager.GetAPIReader().List(ctx, &sites); err != nil {
		return fmt.Errorf("list sites: %w", err)
	}
	f.book = newBook(h.Desired, f.tellTold)
	if err := f.loadBook(ctx, sites.Items); err != nil {
		return err
	}
	changes := hub.NewNotifier()
	f.book.freed = func(key fleet.AppKey) { changes.Notify(objectKey(key)) }
	for _, key := range f.book.apps() {
		changes.Notify(objectKey(key))
	}
	h.Fleet.OnChange(func(site fleet.SiteName) {
		for _, key := range f.book.appsAt(site) {
			changes.Notify(objectKey(key))
		}
	})
	h.OnSiteGone(func(_ context.Context, s *v1alpha1.Site) error {
		f.book.forget(fleet.SiteName(s.Name))
		return nil
	})
	byRepository := hub.NewNotifier()
	f.bundles.OnPush(func(repository string) { byRepository.Notify(repositoryKey(repository)) })
	bySecret := hub.NewNotifier()
	f.secrets.OnChange(func(namespace, name string) { bySecret.Notify(types.NamespacedName{Namespace: namespace, Name: name}) })
	f.registerViews(h)
	hub.Validate(h, "grants", "apps", f.checkGrants)
	hub.Validate(h, "secrets", "apps", f.checkSecrets)
	hub.Validate(h, "values", "apps", f.checkConfig)
	if err := h.Manager.GetFieldIndexer().IndexField(ctx, &v1alpha1.App{}, indexConfigMap, configMapNames); err != nil {
		return fmt.Errorf("index apps by ConfigMap: %w", err)
	}
	f.configMaps = &configMaps{metadata: h.Client, live: h.Manager.GetAPIReader(), kept: map[types.NamespacedName]keptConfigMap{}}
	if err := h.Metrics.Register(newStandings(h.Client)); err != nil {
		return fmt.Errorf("metrics of apps: %w", err)
	}
	r := &reconciler{
		host: h, bundles: f.bundles, secrets: f.secrets, book: f.book, schemas: f.schemas, configMaps: f.configMaps,
		written: map[fleet.AppKey]writeMark{}, rendered: map[fleet.AppKey]*rendered{},
	}
	err := ctrl.NewControllerManagedBy(h.Manager).Named("app").
		For(&v1alpha1.App{}).
		Watches(&v1alpha1.Site{}, handler.EnqueueRequestsFromMapFunc(r.allApps)).
		Watches(&v1alpha1.SiteGrant{}, handler.EnqueueRequestsFromMapFunc(r.allApps)).
		WatchesMetadata(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.appsOfConfigMap)).
		WatchesRawSource(changes.Source()).
		WatchesRawSource(byRepository.MappedSource(r.appsOfRepository)).
		WatchesRawSource(bySecret.MappedSource(r.appsOfSecret)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up app controller: %w", err)
	}
	return nil
}

// loadBook reads what every site was told. A section that is gone or damaged, of a site that has machines, is
// made anew as a whole.
func (f *Feature) loadBook(ctx context.Context, sites []v1alpha1.Site) error {
	var apps v1alpha1.AppList
	if err := f.host.Manager.GetAPIReader().List(ctx, &apps); err != nil {
		return fmt.Errorf("list apps: %w", err)
	}
	var keys []fleet.AppKey
	for i := range apps.Items {
		keys = append(keys, fleet.AppKey{Namespace: apps.Items[i].Namespace, Name: apps.Items[i].Name})
	}
	for i := range sites {
		name := fleet.SiteName(sites[i].Name)
		known, err := f.book.load(name)
		if err != nil {
			f.host.Log.Error("a stored section is damaged and is made anew", "site", name, "error", err)
		}
		if !known && len(keys) > 0 && len(sites[i].Status.Members) > 0 {
			f.book.rebuild(name, keys)
		}
	}
	return nil
}

// SiteBundles returns the bundles that site is told to run: what it may fetch from the registry.
func (f *Feature) SiteBundles(site fleet.SiteName) []app.Bundle { return f.book.bundlesAt(site) }

// LiveBundles returns every bundle that some site is told to run.
func (f *Feature) LiveBundles() []app.Bundle { return f.book.bundles() }
