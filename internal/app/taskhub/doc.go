// Package taskhub is the hub half of tasks: it tells sites what runs once, or at its times, counts what became
// of it in the objects' status, and shows the results of each site to people.
//
// It is the one writer of the section "tasks" of every site. Like the hub half of apps it keeps nothing but what
// it can read again: who was told what stands in the desired state, what became of it in the sites' reports.
// What a namespace may place where is judged when an object is applied and again for each site before it is
// told. Only cmd imports it.
package taskhub

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// Bundles finds bundles in the hub's registry.
type Bundles interface {
	// Resolve returns the bundle that a tag or digest of a repository names. Its errors wrap
	// appapi.ErrBundleNotFound or appapi.ErrBundleInvalid where a person can do something.
	Resolve(ctx context.Context, repository, reference string) (appapi.Resolved, error)
	// OnPush registers fn to be called with each repository that something was pushed to. fn must not
	// block. Only before the hub starts.
	OnPush(fn func(repository string))
}

// Feature is the hub half of tasks.
type Feature struct {
	bundles Bundles
	host    *hub.Host
	book    *book
}

// New returns the feature; bundles is the hub's registry.
func New(bundles Bundles) *Feature { return &Feature{bundles: bundles} }

// Name implements hub.Feature.
func (f *Feature) Name() string { return "tasks" }

// Setup implements hub.Feature.
func (f *Feature) Setup(ctx context.Context, h *hub.Host) error {
	f.host, f.book = h, newBook(h.Desired)
	var sites v1alpha1.SiteList
	if err := h.Manager.GetAPIReader().List(ctx, &sites); err != nil {
		return fmt.Errorf("list sites: %w", err)
	}
	changes := map[task.Kind]*hub.Notifier{task.KindTask: hub.NewNotifier(), task.KindCronTask: hub.NewNotifier()}
	notify := func(ref task.Ref) { changes[ref.Kind].Notify(objectKey(ref)) }
	f.book.freed = notify
	for i := range sites.Items {
		refs, err := f.book.load(fleet.SiteName(sites.Items[i].Name))
		if err != nil {
			h.Log.Error("a stored section is damaged and is made anew", "site", sites.Items[i].Name, "error", err)
		}
		for _, ref := range refs { // what was deleted meanwhile leaves
			notify(ref)
		}
	}
	h.Fleet.OnChange(func(site fleet.SiteName) {
		for _, ref := range f.book.refsAt(site) {
			notify(ref)
		}
	})
	h.OnSiteGone(func(_ context.Context, s *v1alpha1.Site) error {
		f.book.forget(fleet.SiteName(s.Name))
		return nil
	})
	f.registerViews(h)
	hub.Validate(h, "grants", "tasks", f.checkTask)
	hub.Validate(h, "grants", "crontasks", f.checkCronTask)
	r := &reconciler{host: h, bundles: f.bundles, book: f.book, written: map[task.Ref]writeMark{}}
	if err := f.setUpTasks(h, r, changes[task.KindTask]); err != nil {
		return err
	}
	return f.setUpCronTasks(h, r, changes[task.KindCronTask])
}

func (f *Feature) setUpTasks(h *hub.Host, r *reconciler, changes *hub.Notifier) error {
	pushed := hub.NewNotifier()
	f.bundles.OnPush(func(repository string) { pushed.Notify(repositoryKey(repository)) })
	all := handler.EnqueueRequestsFromMapFunc(r.allTasks)
	err := ctrl.NewControllerManagedBy(h.Manager).Named("task").
		For(&v1alpha1.Task{}).
		Watches(&v1alpha1.Site{}, all).Watches(&v1alpha1.SiteGrant{}, all).
		Watches(&v1alpha1.App{}, handler.EnqueueRequestsFromMapFunc(r.tasksOfApp)).
		WatchesRawSource(changes.Source()).
		WatchesRawSource(pushed.MappedSource(r.tasksOfRepository)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(reconcile.Func(r.reconcileTask))
	if err != nil {
		return fmt.Errorf("set up task controller: %w", err)
	}
	return nil
}

func (f *Feature) setUpCronTasks(h *hub.Host, r *reconciler, changes *hub.Notifier) error {
	pushed := hub.NewNotifier()
	f.bundles.OnPush(func(repository string) { pushed.Notify(repositoryKey(repository)) })
	all := handler.EnqueueRequestsFromMapFunc(r.allCronTasks)
	err := ctrl.NewControllerManagedBy(h.Manager).Named("crontask").
		For(&v1alpha1.CronTask{}).
		Watches(&v1alpha1.Site{}, all).Watches(&v1alpha1.SiteGrant{}, all).
		Watches(&v1alpha1.App{}, handler.EnqueueRequestsFromMapFunc(r.cronTasksOfApp)).
		WatchesRawSource(changes.Source()).
		WatchesRawSource(pushed.MappedSource(r.cronTasksOfRepository)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(reconcile.Func(r.reconcileCronTask))
	if err != nil {
		return fmt.Errorf("set up crontask controller: %w", err)
	}
	return nil
}

// SiteBundles returns the bundles that site is told to run in tasks: what it may fetch from the registry.
func (f *Feature) SiteBundles(site fleet.SiteName) []app.Bundle { return f.book.bundlesAt(site) }

// LiveBundles returns every bundle that some site is told to run in tasks.
func (f *Feature) LiveBundles() []app.Bundle { return f.book.bundles() }

// reconciler brings tasks and schedules to their sites.
//
// It reads Tasks, CronTasks, Apps, Releases, Sites, SiteGrants, the registry and what sites report. It writes the
// sites' section of tasks and the status of both kinds, and deletes Tasks whose time is over.
type reconciler struct {
	host    *hub.Host
	bundles Bundles
	book    *book

	mu      sync.Mutex
	written map[task.Ref]writeMark
}

// writeMark is when the status of an object was last written by this hub, and for which generation.
type writeMark struct {
	at         time.Time
	generation int64
}

// problem stops a pass with something a person can act on.
type problem struct {
	reason, message string
	// again is when to look once more; zero when only a change can help.
	again time.Duration
}

// Error implements error.
func (p *problem) Error() string { return p.reason + ": " + p.message }

func objectKey(ref task.Ref) types.NamespacedName {
	return types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
}
