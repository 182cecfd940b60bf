package appapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// freezeConfig returns what a release keeps of the configuration, nil when neither bundle nor app declare
// any. Every error about what they declare is a *ConfigError.
func freezeConfig(a *v1alpha1.App, bundle app.BundleConfig, configMaps ConfigMaps) (*v1alpha1.ReleaseConfig, error) {
	if err := bundle.CheckDefaults(); err != nil {
		return nil, &ConfigError{Reason: v1alpha1.ReasonBundleInvalid, Field: specPath().Child("source", "bundle"), Err: err}
	}
	layers, err := Layers(a, bundle, configMaps)
	if err != nil {
		return nil, err
	}
	var out v1alpha1.ReleaseConfig
	if len(layers) > 0 {
		var base map[string]any
		for _, l := range layers {
			base = app.MergeValues(base, l.Values)
		}
		raw, err := rawValues(base)
		if err != nil {
			return nil, fmt.Errorf("freeze values of app %s/%s: %w", a.Namespace, a.Name, err)
		}
		out.Values = &raw
	}
	if out.Overrides, err = freezeOverrides(a); err != nil {
		return nil, err
	}
	if out.Files, err = freezeFiles(a, bundle); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(a.Spec.Env)) {
		if err := app.CheckReferences(string(a.Spec.Env[name])); err != nil {
			return nil, &ConfigError{Reason: v1alpha1.ReasonConfigInvalid, Field: specPath().Child("env").Key(name), Err: err}
		}
	}
	for name, value := range bundle.Environment() {
		if _, overridden := a.Spec.Env[name]; app.HasReference(value) && !overridden {
			if out.Env == nil {
				out.Env = map[string]string{}
			}
			out.Env[name] = value
		}
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("freeze configuration of app %s/%s: %w", a.Namespace, a.Name, err)
	}
	size := len(data)
	for name, value := range a.Spec.Env {
		size += len(name) + len(value)
	}
	if size > app.MaxReleaseConfigBytes {
		return nil, tooLarge("values, overrides, files and variables of bundle and app", size, app.MaxReleaseConfigBytes, "")
	}
	if string(data) == "{}" {
		return nil, nil
	}
	return &out, nil
}

// freezeOverrides returns the app's overrides with their values written in one way.
func freezeOverrides(a *v1alpha1.App) ([]v1alpha1.ValuesOverride, error) {
	read, err := overrides(a.Spec.Overrides)
	if err != nil {
		return nil, err
	}
	var out []v1alpha1.ValuesOverride
	for i, o := range read {
		frozen := *a.Spec.Overrides[i].DeepCopy()
		if frozen.Values, err = rawValues(o.layer.Values); err != nil {
			return nil, fmt.Errorf("freeze overrides of app %s/%s: %w", a.Namespace, a.Name, err)
		}
		out = append(out, frozen)
	}
	return out, nil
}

// freezeFiles returns the files of the bundle and of the app in the order of their paths.
func freezeFiles(a *v1alpha1.App, bundle app.BundleConfig) ([]v1alpha1.ConfigFile, error) {
	files := map[string]string{}
	if bundle.Defaults != nil {
		maps.Copy(files, bundle.Defaults.Files)
	}
	for _, f := range a.Spec.Files {
		if err := app.CheckReferences(f.Content); err != nil {
			return nil, &ConfigError{Reason: v1alpha1.ReasonConfigInvalid, Field: specPath().Child("files").Key(f.Path), Err: err}
		}
		files[f.Path] = f.Content
	}
	paths := slices.Sorted(maps.Keys(files))
	if err := app.CheckConfigPaths(paths); err != nil {
		return nil, &ConfigError{Reason: v1alpha1.ReasonConfigInvalid, Field: specPath().Child("files"), Err: err}
	}
	var out []v1alpha1.ConfigFile
	for _, p := range paths {
		out = append(out, v1alpha1.ConfigFile{Path: p, Content: files[p]})
	}
	return out, nil
}

// Renderer makes of one release what each site gets. What is the same at several sites is made once. It is
// not safe for concurrent use.
type Renderer struct {
	release   *v1alpha1.Release
	base      map[string]any
	overrides []override
	variants  map[string]*variant
}

// variant is what sites with the same overrides share.
type variant struct {
	applied []int
	values  map[string]any
	raw     json.RawMessage
	// texts are those that were expanded and that name no fact of a site.
	texts map[string]string
}

// NewRenderer reads a release, which must not change afterwards.
func NewRenderer(r *v1alpha1.Release) (*Renderer, error) {
	out := &Renderer{release: r, variants: map[string]*variant{}}
	if r.Spec.Config == nil {
		return out, nil
	}
	var err error
	if r.Spec.Config.Values != nil {
		if out.base, err = parseJSON(r.Spec.Config.Values.Raw); err != nil {
			return nil, fmt.Errorf("release %s/%s: values: %w", r.Namespace, r.Name, err)
		}
	}
	if out.overrides, err = overrides(r.Spec.Config.Overrides); err != nil {
		return nil, fmt.Errorf("release %s/%s: %w", r.Namespace, r.Name, err)
	}
	return out, nil
}

func (r *Renderer) variant(facts fleet.Facts) (*variant, error) {
	indices := applied(r.overrides, facts)
	key := fmt.Sprint(indices)
	if v, ok := r.variants[key]; ok {
		return v, nil
	}
	v := &variant{applied: indices, values: app.MergeValues(r.base, nil), texts: map[string]string{}}
	for _, i := range indices {
		v.values = app.MergeValues(v.values, r.overrides[i].layer.Values)
	}
	var err error
	if v.raw, err = json.Marshal(v.values); err != nil {
		return nil, fmt.Errorf("release %s/%s: values: %w", r.release.Namespace, r.release.Name, err)
	}
	if !slices.ContainsFunc(indices, func(i int) bool { return r.overrides[i].byName }) { // those are for one site
		r.variants[key] = v
	}
	return v, nil
}

// Final are the values of a site.
type Final struct {
	// Values are shared by sites with the same overrides and must not be changed.
	Values map[string]any
	// Overrides are those of the release that went into them, in order.
	Overrides []Layer
	// Key is the same for sites with the same overrides.
	Key string
}

// Values returns the final values of a site.
func (r *Renderer) Values(facts fleet.Facts) (Final, error) {
	v, err := r.variant(facts)
	if err != nil {
		return Final{}, err
	}
	final := Final{Values: v.values, Key: fmt.Sprint(v.applied)}
	for _, i := range v.applied {
		final.Overrides = append(final.Overrides, r.overrides[i].layer)
	}
	return final, nil
}

// expand fills in the references of text at one site.
func (v *variant) expand(text string, facts fleet.Facts) (string, error) {
	if !app.HasReference(text) {
		return text, nil
	}
	if done, ok := v.texts[text]; ok {
		return done, nil
	}
	done, err := app.Expand(text, app.Scope{Values: v.values, Site: facts}, app.MaxSiteConfigBytes)
	if err == nil && !strings.Contains(text, "${site.") {
		v.texts[text] = done
	}
	return done, err
}

// Render returns what a site gets of the release: a pure function of both. An error about what the release
// holds is a *ConfigError.
func (r *Renderer) Render(facts fleet.Facts) (app.Placement, error) {
	spec := &r.release.Spec
	p := app.Placement{
		App:     fleet.AppKey{Namespace: r.release.Namespace, Name: spec.App},
		Release: r.release.Name,
		Version: spec.Bundle.Version,
		Bundle: app.Bundle{
			Repository: spec.Bundle.Repository, Digest: fleet.Digest(spec.Bundle.Digest), Size: spec.Bundle.Size,
		},
		AllowRoot:  spec.Process != nil && spec.Process.AllowRoot,
		RemoveData: spec.OnDelete == v1alpha1.RemoveData,
	}
	if spec.Route != nil {
		p.Route = &app.Route{Host: spec.Route.Host, Path: spec.Route.Path}
	}
	v, err := r.variant(facts)
	if err != nil {
		return p, err
	}
	b := budget{site: facts.Name}
	if p.Env, err = r.env(v, facts, &b); err != nil {
		return p, err
	}
	if p.Config, err = r.config(v, facts, &b); err != nil {
		return p, err
	}
	p.Secrets = SecretRefs(spec.SecretRefs)
	return p, p.Seal()
}

// budget bounds what one app gets at one site, as it is made.
type budget struct {
	site fleet.SiteName
	used int
}

func (b *budget) take(texts ...string) error {
	for _, text := range texts {
		b.used += len(text)
	}
	if b.used > app.MaxSiteConfigBytes {
		return tooLarge("values, files and variables", b.used, app.MaxSiteConfigBytes, b.site)
	}
	return nil
}

func tooLarge(what string, size, most int, site fleet.SiteName) error {
	return &ConfigError{Reason: v1alpha1.ReasonConfigInvalid, Field: specPath(), Site: site, Err: fmt.Errorf(
		"%s are %d bytes together or more, at most %d are allowed: %w", what, size, most, app.ErrConfigTooLarge)}
}

// env returns the variables of the app and those of the bundle that hold references; nil when there are none.
func (r *Renderer) env(v *variant, facts fleet.Facts, b *budget) (map[string]string, error) {
	texts := map[string]string{}
	if r.release.Spec.Config != nil {
		maps.Copy(texts, r.release.Spec.Config.Env)
	}
	for name, value := range r.release.Spec.Env {
		texts[name] = string(value)
	}
	for _, ref := range r.release.Spec.SecretRefs { // a secret wins over the bundle; with the app it is refused
		for _, e := range ref.Env {
			delete(texts, e.Name)
		}
	}
	var out map[string]string
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		value, err := v.expand(texts[name], facts)
		if err == nil {
			err = app.CheckEnv(name, value)
		}
		if err != nil {
			return nil, &ConfigError{Reason: v1alpha1.ReasonConfigInvalid, Field: specPath().Child("env").Key(name), Site: facts.Name, Err: err}
		}
		if err := b.take(name, value); err != nil {
			return nil, err
		}
		if out == nil {
			out = make(map[string]string, len(texts))
		}
		out[name] = value
	}
	return out, nil
}

// config returns values and files, nil when neither bundle nor app declare any.
func (r *Renderer) config(v *variant, facts fleet.Facts, b *budget) (*app.Config, error) {
	c := r.release.Spec.Config
	if c == nil || c.Values == nil && len(c.Overrides) == 0 && len(c.Files) == 0 {
		return nil, nil
	}
	out := &app.Config{Values: v.raw}
	if err := b.take(string(v.raw)); err != nil {
		return nil, err
	}
	for _, f := range c.Files {
		content, err := v.expand(f.Content, facts)
		if err != nil {
			return nil, &ConfigError{Reason: v1alpha1.ReasonConfigInvalid, Field: specPath().Child("files").Key(f.Path), Site: facts.Name, Err: err}
		}
		if err := b.take(f.Path, content); err != nil {
			return nil, err
		}
		if out.Files == nil {
			out.Files = make(map[string]string, len(c.Files))
		}
		out.Files[f.Path] = content
	}
	return out, nil
}

// Render returns what one site gets of a release; see Renderer.
func Render(r *v1alpha1.Release, facts fleet.Facts) (app.Placement, error) {
	renderer, err := NewRenderer(r)
	if err != nil {
		return app.Placement{}, err
	}
	return renderer.Render(facts)
}

// AsConfigError finds what a person must mend in an error.
func AsConfigError(err error) (*ConfigError, bool) {
	var e *ConfigError
	return e, errors.As(err, &e)
}

func labelSet(facts fleet.Facts) labels.Set { return facts.Labels }
