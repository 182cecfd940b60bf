package apphub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// Bounds of a check while somebody waits for its answer.
const (
	maxRefusals = 10
	checkWithin = time.Second
)

// checkConfig refuses an App of which some site that it is for would get a configuration that it cannot be
// given. What it lets pass, because bundle or ConfigMaps are yet to come, or because there was no time to
// look at every site, is judged again before any site is told.
func (f *Feature) checkConfig(ctx context.Context, old, a *v1alpha1.App) ([]string, field.ErrorList) {
	if old != nil && equality.Semantic.DeepEqual(old.Spec, a.Spec) {
		return nil, nil
	}
	repository, reference := appapi.Repository(a)
	bundle, err := f.bundles.Resolve(ctx, repository, reference)
	if err != nil {
		return nil, nil // checkGrants warns of it
	}
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	configMaps, err := f.configMaps.read(ctx, a)
	if err != nil {
		return []string{fmt.Sprintf("values could not be checked: %v", err)}, nil
	}
	sites, err := f.sitesFor(ctx, a, bundle.Config.Runtime)
	if err != nil {
		return nil, nil // the app's condition will say it
	}
	d, err := draw(a, bundle, configMaps, f.schemas)
	if err == nil {
		return nil, d.refusals(ctx, sites)
	}
	e, ok := appapi.AsConfigError(err)
	if ok && e.Reason == v1alpha1.ReasonConfigMapNotFound {
		return []string{e.Error()}, nil
	}
	if ok {
		return nil, field.ErrorList{e.Refusal()}
	}
	return nil, field.ErrorList{field.InternalError(field.NewPath("spec"), err)}
}

// sitesFor returns the facts of the sites that the app is for, as far as its namespace may use them, by name.
func (f *Feature) sitesFor(ctx context.Context, a *v1alpha1.App, runtime string) ([]fleet.Facts, error) {
	selector, err := metav1.LabelSelectorAsSelector(&a.Spec.Placement.Sites)
	if err != nil {
		return nil, err
	}
	var sites v1alpha1.SiteList
	var grants v1alpha1.SiteGrantList
	if err := errors.Join(f.host.Client.List(ctx, &sites), f.host.Client.List(ctx, &grants)); err != nil {
		return nil, err
	}
	root := a.Spec.Process != nil && a.Spec.Process.AllowRoot
	var out []fleet.Facts
	for i := range sites.Items {
		s := &sites.Items[i]
		if s.DeletionTimestamp.IsZero() && selector.Matches(labels.Set(s.Labels)) && appapi.Granted(grants.Items, a.Namespace, runtime, root, s) {
			out = append(out, appapi.Facts(s))
		}
	}
	slices.SortFunc(out, func(a, b fleet.Facts) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return out, nil
}

// refusals says what is wrong at the sites, each fault once, until ctx ends.
func (d *draft) refusals(ctx context.Context, sites []fleet.Facts) field.ErrorList {
	var out field.ErrorList
	seen := map[string]bool{}
	add := func(e *appapi.ConfigError) {
		if key := e.Field.String() + e.Err.Error(); !seen[key] && len(out) < maxRefusals {
			seen[key] = true
			out = append(out, e.Refusal())
		}
	}
	if len(sites) == 0 {
		// Sites that are yet to come may have overrides that say what is missing now.
		found, _ := d.violations(fleet.Facts{})
		for _, e := range found {
			if !e.Missing {
				add(e)
			}
		}
	}
	for _, facts := range sites {
		if ctx.Err() != nil || len(out) == maxRefusals {
			break
		}
		found, err := d.violations(facts)
		for _, e := range found {
			add(e)
		}
		if err == nil && len(found) == 0 {
			_, err = d.renderer.Render(facts)
		}
		if e, ok := appapi.AsConfigError(err); ok {
			add(e)
		}
	}
	return out
}
