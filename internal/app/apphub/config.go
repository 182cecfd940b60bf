package apphub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/appschema"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// draft is a release before it is told to anyone: what is needed to make and check what each site gets.
type draft struct {
	release  *v1alpha1.Release
	renderer *appapi.Renderer
	layers   []appapi.Layer
	// schema is nil when the bundle has none.
	schema *appschema.Schema
	// judged are the violations of sites with the same overrides, which are looked for once.
	judged map[string]judgement
}

type judgement struct {
	violations []*app.Violation
	err        error
}

// draw makes the draft of an app. What a person must mend is a *appapi.ConfigError.
func draw(a *v1alpha1.App, bundle appapi.Resolved, configMaps appapi.ConfigMaps, schemas *schemas) (*draft, error) {
	layers, err := appapi.Layers(a, bundle.Config, configMaps)
	if err != nil {
		return nil, err
	}
	d := &draft{layers: layers, judged: map[string]judgement{}}
	if d.release, err = appapi.Freeze(a, bundle, configMaps); err != nil {
		return nil, err
	}
	if d.renderer, err = appapi.NewRenderer(d.release); err != nil {
		return nil, err
	}
	if defaults := bundle.Config.Defaults; defaults != nil && defaults.Schema != nil {
		if d.schema, err = schemas.compile(defaults.Schema); err != nil {
			return nil, &appapi.ConfigError{Reason: v1alpha1.ReasonBundleInvalid, Field: field.NewPath("spec", "source", "bundle"), Err: err}
		}
	}
	return d, nil
}

// violations returns what the bundle's schema does not allow of what a site would get.
func (d *draft) violations(facts fleet.Facts) ([]*appapi.ConfigError, error) {
	if d.schema == nil {
		return nil, nil
	}
	final, err := d.renderer.Values(facts)
	if err != nil {
		return nil, err
	}
	j, ok := d.judged[final.Key]
	if !ok {
		j.violations, j.err = d.schema.Validate(final.Values)
		d.judged[final.Key] = j
	}
	if j.err != nil {
		return nil, &appapi.ConfigError{Reason: v1alpha1.ReasonValuesInvalid, Field: field.NewPath("spec", "values"), Site: facts.Name, Err: j.err}
	}
	var out []*appapi.ConfigError
	for _, v := range j.violations {
		out = append(out, appapi.Blame(slices.Concat(d.layers, final.Overrides), v, facts.Name))
	}
	return out, nil
}

// render makes and checks what a site gets: a pure function of the draft and the facts.
func (d *draft) render(facts fleet.Facts) (app.Placement, error) {
	found, err := d.violations(facts)
	if err != nil {
		return app.Placement{}, err
	}
	if len(found) > 0 {
		return app.Placement{}, found[0]
	}
	return d.renderer.Render(facts)
}

// rendered keeps what the sites of one app get, so that a pass makes anew only what changed. It is as large
// as what the sites are told.
type rendered struct {
	release string
	sites   map[fleet.SiteName]renderedSite
}

type renderedSite struct {
	facts     fleet.Facts
	placement app.Placement
}

// placement returns what a site gets of a draft, made anew when draft or facts changed.
func (c *rendered) placement(d *draft, facts fleet.Facts) (app.Placement, error) {
	if c.release != d.release.Name {
		c.release, c.sites = d.release.Name, map[fleet.SiteName]renderedSite{}
	}
	if have, ok := c.sites[facts.Name]; ok && have.facts.Zone == facts.Zone && maps.Equal(have.facts.Labels, facts.Labels) {
		return have.placement, nil
	}
	p, err := d.render(facts)
	if err != nil {
		return app.Placement{}, err
	}
	c.sites[facts.Name] = renderedSite{facts, p}
	return p, nil
}

// renderedOf returns the rendered sites of an app. Only the pass of this app may use them.
func (r *reconciler) renderedOf(key fleet.AppKey) *rendered {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.rendered[key]
	if !ok {
		c = &rendered{}
		r.rendered[key] = c
	}
	return c
}

// freeze makes the release of the app as it is now, which nobody knows of yet.
func (r *reconciler) freeze(ctx context.Context, p *pass) error {
	configMaps, err := r.configMaps.read(ctx, p.app)
	if err != nil {
		return fmt.Errorf("app %s: %w", p.key, err)
	}
	if p.draft, err = draw(p.app, p.bundle, configMaps, r.schemas); err != nil {
		return asProblem(err)
	}
	return nil
}

// asProblem turns what a person must mend into a problem.
func asProblem(err error) error {
	if e, ok := appapi.AsConfigError(err); ok {
		return &problem{e.Reason, e.Error(), 0}
	}
	return err
}

// render makes what each site should get in the end, and gathers what is known of each. A release that some
// site cannot be given is told to none, unless some were told of it before: then what changed is the site.
func (r *reconciler) render(_ context.Context, p *pass) error {
	p.targets = make(map[fleet.SiteName]app.Placement, len(p.sites))
	states := make([]app.SiteState, 0, len(p.sites))
	cache := r.renderedOf(p.key)
	var wrong error
	known := false
	for _, name := range slices.Sorted(maps.Keys(p.sites)) {
		told := r.book.told(name, p.key)
		known = known || told.Release == p.draft.release.Name
		state := app.SiteState{Site: name, Link: r.host.Fleet.Link(name), Told: told.Digest, Report: r.reportOf(name, p.key)}
		target, err := cache.placement(p.draft, appapi.Facts(p.sites[name]))
		if err != nil {
			if wrong == nil {
				wrong = asProblem(err)
			}
			state.Blocked = err.Error()
			states = append(states, state)
			continue
		}
		p.targets[name], state.Target = target, target.Digest
		if holder, taken := r.book.routeHolder(name, target); taken {
			state.Blocked = routeTaken(target.Route, holder)
		}
		states = append(states, state)
	}
	maps.DeleteFunc(cache.sites, func(name fleet.SiteName, _ renderedSite) bool { return p.sites[name] == nil })
	var stop *problem
	if wrong != nil && (!known || !errors.As(wrong, &stop)) {
		return wrong
	}
	p.states = states
	return nil
}

// keep stores the release, before any site is told of it.
func (r *reconciler) keep(ctx context.Context, p *pass) error {
	release := p.draft.release
	if err := controllerutil.SetControllerReference(p.app, release, r.host.Client.Scheme()); err != nil {
		return fmt.Errorf("app %s: own release: %w", p.key, err)
	}
	var have v1alpha1.Release
	err := r.host.Client.Get(ctx, client.ObjectKeyFromObject(release), &have)
	if apierrors.IsNotFound(err) {
		err = r.host.Client.Create(ctx, release.DeepCopy())
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("app %s: make release %s: %w", p.key, release.Name, err)
	}
	p.release = release
	return nil
}
