package taskhub

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/appschema"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// pass is what one reconcile of a task or schedule has found so far.
type pass struct {
	ref        task.Ref
	uid        string
	generation int64
	work       *v1alpha1.TaskWork
	placement  *v1alpha1.Placement
	// pinned is the bundle that was found before, which does not change any more; nil to look for it.
	pinned *v1alpha1.ReleaseBundle
	// complete adds to an entry what the kind has beside its work.
	complete func(*task.Entry)

	// runtime and root are what the work needs of a grant; bundle is the source, resolved; with an app,
	// selector is that of the app's sites.
	runtime  string
	root     bool
	bundle   appapi.Resolved
	selector labels.Selector
	renderer *appapi.Renderer
	schema   *appschema.Schema

	// sites that the task selects and may use, by name; refused counts those that it may not use.
	sites   map[fleet.SiteName]*v1alpha1.Site
	refused int
	states  []task.SiteState
}

// bundlePoll is how often a missing bundle is looked for, beside being told of each push.
const bundlePoll = 30 * time.Second

// asApp is a task's own bundle in the form in which configuration is made: an App that is never stored.
func asApp(ref task.Ref, work *v1alpha1.TaskWork) *v1alpha1.App {
	return &v1alpha1.App{
		ObjectMeta: metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Key().Name},
		Spec: v1alpha1.AppSpec{
			Source: *work.Source, Env: work.Env, Values: work.Values, Process: work.Process, OnDelete: v1alpha1.RemoveData,
		},
	}
}

// resolve finds what the work runs, and what that needs of a grant.
func (r *reconciler) resolve(ctx context.Context, p *pass) error {
	if p.work.App != "" {
		return r.resolveApp(ctx, p)
	}
	a := asApp(p.ref, p.work)
	repository, reference := appapi.Repository(a)
	if p.pinned != nil {
		reference = p.pinned.Digest
	}
	bundle, err := r.bundles.Resolve(ctx, repository, reference)
	switch {
	case errors.Is(err, appapi.ErrBundleNotFound):
		return &problem{v1alpha1.ReasonBundleNotFound, fmt.Sprintf(
			"work.source.bundle: the hub's registry has no %s in namespace %s: run `skerry push` first", p.work.Source.Bundle, p.ref.Namespace), bundlePoll}
	case errors.Is(err, appapi.ErrBundleInvalid):
		return &problem{v1alpha1.ReasonBundleInvalid, "work.source.bundle: " + err.Error(), 0}
	case err != nil:
		return fmt.Errorf("%s: resolve bundle: %w", p.ref, err)
	}
	if p.pinned != nil {
		bundle.Version = p.pinned.Version
	}
	p.bundle, p.runtime = bundle, bundle.Config.Runtime
	p.root = p.work.Process != nil && p.work.Process.AllowRoot
	release, err := appapi.Freeze(a, bundle, nil)
	if err == nil {
		p.renderer, err = appapi.NewRenderer(release)
	}
	if err != nil {
		return asProblem(err)
	}
	if d := bundle.Config.Defaults; d != nil && d.Schema != nil {
		if p.schema, err = appschema.Compile(d.Schema); err != nil {
			return &problem{v1alpha1.ReasonBundleInvalid, "work.source.bundle: " + err.Error(), 0}
		}
	}
	return nil
}

// resolveApp finds the app, and the release that says what it needs.
func (r *reconciler) resolveApp(ctx context.Context, p *pass) error {
	var a v1alpha1.App
	err := r.host.Client.Get(ctx, client.ObjectKey{Namespace: p.ref.Namespace, Name: p.work.App}, &a)
	if apierrors.IsNotFound(err) {
		return &problem{v1alpha1.ReasonAppNotFound, fmt.Sprintf("work.app: there is no App %s in namespace %s", p.work.App, p.ref.Namespace), 0}
	}
	if err != nil {
		return fmt.Errorf("%s: read app: %w", p.ref, err)
	}
	var release v1alpha1.Release
	if a.Status.Release != "" {
		err = r.host.Client.Get(ctx, client.ObjectKey{Namespace: p.ref.Namespace, Name: a.Status.Release}, &release)
	}
	if a.Status.Release == "" || apierrors.IsNotFound(err) {
		return &problem{v1alpha1.ReasonAppNotFound, fmt.Sprintf("work.app: App %s has no release yet", p.work.App), bundlePoll}
	}
	if err != nil {
		return fmt.Errorf("%s: read release of app %s: %w", p.ref, p.work.App, err)
	}
	p.runtime, p.root = release.Spec.Runtime, release.Spec.Process != nil && release.Spec.Process.AllowRoot
	if p.selector, err = metav1.LabelSelectorAsSelector(&a.Spec.Placement.Sites); err != nil {
		return &problem{v1alpha1.ReasonSelectorInvalid, fmt.Sprintf("App %s: placement.sites: %v", p.work.App, err), 0}
	}
	return nil
}

// asProblem turns what a person must mend into a problem.
func asProblem(err error) error {
	if e, ok := appapi.AsConfigError(err); ok {
		return &problem{e.Reason, "work: " + e.Error(), 0}
	}
	return err
}

// place finds the sites that are selected and that the namespace may use.
func (r *reconciler) place(ctx context.Context, p *pass) error {
	selector, err := metav1.LabelSelectorAsSelector(&p.placement.Sites)
	if err != nil {
		return &problem{v1alpha1.ReasonSelectorInvalid, "placement.sites: " + err.Error(), 0}
	}
	var sites v1alpha1.SiteList
	var grants v1alpha1.SiteGrantList
	if err := errors.Join(r.host.Client.List(ctx, &sites, client.UnsafeDisableDeepCopy), r.host.Client.List(ctx, &grants)); err != nil {
		return fmt.Errorf("%s: list sites and grants: %w", p.ref, err)
	}
	p.sites = map[fleet.SiteName]*v1alpha1.Site{}
	for i := range sites.Items {
		site := &sites.Items[i]
		if !site.DeletionTimestamp.IsZero() || !selector.Matches(labels.Set(site.Labels)) ||
			p.selector != nil && !p.selector.Matches(labels.Set(site.Labels)) {
			continue
		}
		if !appapi.Granted(grants.Items, p.ref.Namespace, p.runtime, p.root, site) {
			p.refused++
			continue
		}
		p.sites[fleet.SiteName(site.Name)] = site
	}
	return nil
}

// leave takes the task from sites at which it no longer is to be.
func (r *reconciler) leave(ctx context.Context, p *pass) error {
	for _, site := range r.book.sitesOf(p.ref) {
		if _, placed := p.sites[site]; placed {
			continue
		}
		if err := r.book.tell(ctx, r.book.factsOf(site), p.ref, nil); err != nil {
			return fmt.Errorf("%s: %w", p.ref, err)
		}
	}
	return nil
}

// entry makes what one site is told.
func (p *pass) entry(facts fleet.Facts) (task.Entry, error) {
	e := task.Entry{Ref: p.ref, UID: p.uid, App: p.work.App, Retries: int(p.work.Retries), DeadlineSeconds: 600}
	if p.work.Deadline != nil {
		e.DeadlineSeconds = max(1, int(p.work.Deadline.Seconds()))
	}
	for _, arg := range p.work.Command {
		e.Command = append(e.Command, string(arg))
	}
	for _, arg := range p.work.Args {
		e.Args = append(e.Args, string(arg))
	}
	p.complete(&e)
	if p.work.App != "" {
		for name, value := range p.work.Env {
			if e.Env == nil {
				e.Env = map[string]string{}
			}
			e.Env[name] = string(value)
		}
		return e, nil
	}
	if p.schema != nil {
		final, err := p.renderer.Values(facts)
		if err != nil {
			return e, err
		}
		violations, err := p.schema.Validate(final.Values)
		if err != nil {
			return e, fmt.Errorf("values: %w", err)
		}
		if len(violations) > 0 {
			return e, violations[0]
		}
	}
	placement, err := p.renderer.Render(facts)
	if err != nil {
		return e, err
	}
	e.Bundle = &placement
	return e, nil
}

// releaseBundle is a bundle as a status holds it.
func releaseBundle(b appapi.Resolved) *v1alpha1.ReleaseBundle {
	if b.Bundle == (app.Bundle{}) {
		return nil
	}
	return &v1alpha1.ReleaseBundle{Repository: b.Bundle.Repository, Version: b.Version, Digest: string(b.Bundle.Digest), Size: b.Bundle.Size}
}
