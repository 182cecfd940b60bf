package apphub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
)

// reconciler brings one App to its sites, in the steps of Reconcile.
//
// It reads Apps, Sites, SiteGrants, ConfigMaps that Apps name, whether Secrets are there, the registry and what
// sites report. It writes Releases, the sites' section of apps, and App.status.
type reconciler struct {
	host    *hub.Host
	bundles Bundles
	secrets Secrets
	book    *book

	schemas    *schemas
	configMaps *configMaps

	pace hub.Pace

	mu       sync.Mutex
	written  map[fleet.AppKey]writeMark
	rendered map[fleet.AppKey]*rendered
}

// pass is what one reconcile of an App has found so far.
type pass struct {
	app    *v1alpha1.App
	key    fleet.AppKey
	bundle appapi.Resolved
	// draft is the newest release, and release the same once it is stored.
	draft   *draft
	release *v1alpha1.Release
	// sites that the app selects and may use, by name; refused counts those that it may not use.
	sites   map[fleet.SiteName]*v1alpha1.Site
	refused int
	targets map[fleet.SiteName]app.Placement
	states  []app.SiteState
	// missing says which Secret or key the app has to wait for; empty when all are there.
	missing string
}

// problem stops a pass with something a person can act on.
type problem struct {
	reason, message string
	// again is when to look once more; zero when only a change can help.
	again time.Duration
}

// Error implements error.
func (p *problem) Error() string { return p.reason + ": " + p.message }

// bundlePoll is how often a missing bundle is looked for, beside being told of each push.
const bundlePoll = 30 * time.Second

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	key := fleet.AppKey{Namespace: req.Namespace, Name: req.Name}
	var a v1alpha1.App
	err := r.host.Client.Get(ctx, req.NamespacedName, &a)
	if apierrors.IsNotFound(err) || err == nil && !a.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, errors.Join(r.withdraw(ctx, key), r.book.settled(ctx, key))
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read app %s: %w", key, err)
	}
	began := r.host.Now()
	if wait := r.early(key, &a, began); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	defer func() { r.pace.Done(key.String(), began, r.host.Now()) }()
	p := &pass{app: &a, key: key}
	var stop *problem
	err = r.run(ctx, p)
	if err != nil && !errors.As(err, &stop) {
		return ctrl.Result{}, err
	}
	if stop != nil {
		if err := r.recall(ctx, p); err != nil {
			return ctrl.Result{}, err
		}
	}
	if err := r.book.settled(ctx, key); err != nil {
		return ctrl.Result{}, err
	}
	again, err := r.writeStatus(ctx, p, stop)
	if err != nil {
		return ctrl.Result{}, err
	}
	if stop != nil && stop.again > 0 && (again == 0 || stop.again < again) {
		again = stop.again
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// early returns how long an App's next pass has to wait after a long one. What a person changed waits for nothing.
func (r *reconciler) early(key fleet.AppKey, a *v1alpha1.App, now time.Time) time.Duration {
	if a.Status.ObservedGeneration != a.Generation {
		r.pace.Forget(key.String())
	}
	return r.pace.Wait(key.String(), now)
}

func (r *reconciler) run(ctx context.Context, p *pass) error {
	for _, step := range []func(context.Context, *pass) error{r.needs, r.resolve, r.place, r.leave, r.freeze, r.render, r.keep, r.tell, r.prune, r.lacks} {
		if err := step(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// withdraw takes an app that is gone from every site that was told of it.
func (r *reconciler) withdraw(ctx context.Context, key fleet.AppKey) error {
	for _, site := range r.book.sitesOf(key) {
		if err := r.book.tell(ctx, r.book.factsOf(site), key, nil); err != nil {
			return fmt.Errorf("withdraw app %s: %w", key, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.written, key)
	delete(r.rendered, key)
	r.pace.Forget(key.String())
	return nil
}

// resolve finds the app's bundle.
func (r *reconciler) resolve(ctx context.Context, p *pass) error {
	repository, reference := appapi.Repository(p.app)
	bundle, err := r.bundles.Resolve(ctx, repository, reference)
	switch {
	case errors.Is(err, ErrBundleNotFound):
		return &problem{v1alpha1.ReasonBundleNotFound, fmt.Sprintf(
			"source.bundle: the hub's registry has no %s in namespace %s: run `skerry push` first", p.app.Spec.Source.Bundle, p.app.Namespace), bundlePoll}
	case errors.Is(err, ErrBundleInvalid):
		return &problem{v1alpha1.ReasonBundleInvalid, "source.bundle: " + err.Error(), 0}
	case err != nil:
		return fmt.Errorf("app %s: resolve bundle: %w", p.key, err)
	}
	p.bundle = bundle
	return nil
}

// place finds the sites that the app selects and that its namespace may use.
func (r *reconciler) place(ctx context.Context, p *pass) error {
	selector, err := metav1.LabelSelectorAsSelector(&p.app.Spec.Placement.Sites)
	if err != nil {
		return &problem{v1alpha1.ReasonSelectorInvalid, "placement.sites: " + err.Error(), 0}
	}
	var sites v1alpha1.SiteList
	var grants v1alpha1.SiteGrantList
	// The cache's own objects, which nothing here changes: a copy of every site at each pass is too much.
	err = errors.Join(r.host.Client.List(ctx, &sites, client.UnsafeDisableDeepCopy), r.host.Client.List(ctx, &grants))
	if err != nil {
		return fmt.Errorf("app %s: list sites and grants: %w", p.key, err)
	}
	root := p.app.Spec.Process != nil && p.app.Spec.Process.AllowRoot
	p.sites = map[fleet.SiteName]*v1alpha1.Site{}
	for i := range sites.Items {
		site := &sites.Items[i]
		if !site.DeletionTimestamp.IsZero() || !selector.Matches(labels.Set(site.Labels)) {
			continue
		}
		if !appapi.Granted(grants.Items, p.app.Namespace, p.bundle.Config.Runtime, root, site) {
			p.refused++
			continue
		}
		p.sites[fleet.SiteName(site.Name)] = site
	}
	return nil
}

// leave takes the app from sites that it is no longer placed on.
func (r *reconciler) leave(ctx context.Context, p *pass) error {
	for _, site := range r.book.sitesOf(p.key) {
		if _, placed := p.sites[site]; placed {
			continue
		}
		if err := r.book.tell(ctx, r.book.factsOf(site), p.key, nil); err != nil {
			return fmt.Errorf("app %s: %w", p.key, err)
		}
	}
	return nil
}

// tell tells the sites whose turn it is, and every other site of changed facts.
func (r *reconciler) tell(ctx context.Context, p *pass) error {
	limit, err := appapi.MaxUnavailable(p.app.Spec.Update, len(p.states))
	if err != nil {
		return &problem{v1alpha1.ReasonUpdateInvalid, err.Error(), 0}
	}
	next := map[fleet.SiteName]bool{}
	for _, name := range app.NextSites(p.states, limit) {
		next[name] = p.missing == ""
	}
	// Many at a time: each waits until what it is told is on the bus' disk.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	full := make([]error, len(p.states))
	slots := make(chan struct{}, tellTogether)
	var wg sync.WaitGroup
	for i := range p.states {
		placement := r.book.told(p.states[i].Site, p.key)
		if next[p.states[i].Site] {
			placement = p.targets[p.states[i].Site]
		}
		if placement.Digest == "" {
			continue
		}
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			var err error
			if full[i], err = r.tellSite(ctx, p, &p.states[i], &placement); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("app %s: %w", p.key, context.Cause(ctx))
	}
	for _, full := range full { // a site that is full keeps nobody else from being told
		if full != nil {
			return full
		}
	}
	return nil
}

// tellTogether bounds how many sites are told at one moment.
const tellTogether = 32

// tellSite tells one site. A site that is full is a problem; err is what ends the pass.
func (r *reconciler) tellSite(ctx context.Context, p *pass, s *app.SiteState, placement *app.Placement) (full, err error) {
	err = r.book.tell(ctx, appapi.Facts(p.sites[s.Site]), p.key, placement)
	var taken *routeTakenError
	switch {
	case errors.As(err, &taken): // by an app that was told since this one was rendered
		s.Blocked = routeTaken(placement.Route, taken.holder)
		return nil, nil
	case errors.Is(err, wire.ErrTooLarge):
		return &problem{v1alpha1.ReasonSectionTooLarge, fmt.Sprintf(
			"site %s cannot be told of more: take apps away from it, or configuration from its apps: %v", s.Site, err), 0}, nil
	case err != nil:
		return nil, err
	}
	s.Told = placement.Digest
	return nil, nil
}

func (r *reconciler) reportOf(site fleet.SiteName, key fleet.AppKey) *app.AppReport {
	for _, a := range siteApps(r.host.Fleet, site) {
		if a.App == key {
			return &a
		}
	}
	return nil
}

func (r *reconciler) allApps(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.appsWhere(ctx, func(*v1alpha1.App) bool { return true })
}

func (r *reconciler) appsOfRepository(ctx context.Context, key types.NamespacedName) []reconcile.Request {
	return r.appsWhere(ctx, func(a *v1alpha1.App) bool {
		repository, _ := appapi.Repository(a)
		return repositoryKey(repository) == key
	}, client.InNamespace(key.Namespace))
}

func (r *reconciler) appsWhere(ctx context.Context, want func(*v1alpha1.App) bool, opts ...client.ListOption) []reconcile.Request {
	var apps v1alpha1.AppList
	if err := r.host.Client.List(ctx, &apps, opts...); err != nil {
		r.host.Log.Error("list apps", "error", err)
		return nil
	}
	var out []reconcile.Request
	for i := range apps.Items {
		if want(&apps.Items[i]) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&apps.Items[i])})
		}
	}
	return out
}

func repositoryKey(repository string) types.NamespacedName {
	namespace, name, _ := strings.Cut(repository, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}
}
