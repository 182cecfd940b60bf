package apphub

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/appapi"
)

// checkGrants refuses an App that could run nowhere because its namespace has no grant. What it lets pass is
// judged again, site by site, whenever the app is placed: grants and labels change.
func (f *Feature) checkGrants(ctx context.Context, old, a *v1alpha1.App) ([]string, field.ErrorList) {
	if old != nil && equality.Semantic.DeepEqual(old.Spec, a.Spec) {
		return nil, nil // who may no longer place an app may still label it, or take a finalizer away
	}
	warnings, faults := f.judgeGrants(ctx, a, f.host.Client)
	if len(faults) > 0 {
		// A grant that was applied a moment before the app is not in the cache yet.
		warnings, faults = f.judgeGrants(ctx, a, f.host.Manager.GetAPIReader())
	}
	return warnings, faults
}

// judgeGrants is checkGrants with the grants that a reader has.
func (f *Feature) judgeGrants(ctx context.Context, a *v1alpha1.App, reader client.Reader) ([]string, field.ErrorList) {
	path := field.NewPath("spec", "placement", "sites")
	selector, err := metav1.LabelSelectorAsSelector(&a.Spec.Placement.Sites)
	if err != nil {
		return nil, field.ErrorList{field.Invalid(path, a.Spec.Placement.Sites, err.Error())}
	}
	var sites v1alpha1.SiteList
	var grants v1alpha1.SiteGrantList
	if f.host.Client.List(ctx, &sites) != nil || reader.List(ctx, &grants) != nil {
		return nil, nil // nothing is read yet: the app's condition will say it
	}
	var warnings []string
	runtime, what := "", "any runtime"
	repository, reference := appapi.Repository(a)
	if bundle, err := f.bundles.Resolve(ctx, repository, reference); err == nil {
		runtime, what = bundle.Config.Runtime, "runtime "+bundle.Config.Runtime
	} else {
		warnings = append(warnings, fmt.Sprintf("the hub's registry has no %s in namespace %s yet: `skerry push` it", a.Spec.Source.Bundle, a.Namespace))
	}
	root := a.Spec.Process != nil && a.Spec.Process.AllowRoot
	if root {
		what += " as root"
	}
	if !appapi.GrantedSomewhere(grants.Items, a.Namespace, runtime, root) {
		return warnings, field.ErrorList{field.Forbidden(path, fmt.Sprintf(
			"no SiteGrant lets namespace %s use %s on any site: ask a fleet-admin for one", a.Namespace, what))}
	}
	selected, granted := 0, 0
	for i := range sites.Items {
		if !selector.Matches(labels.Set(sites.Items[i].Labels)) {
			continue
		}
		selected++
		if appapi.Granted(grants.Items, a.Namespace, runtime, root, &sites.Items[i]) {
			granted++
		}
	}
	switch {
	case selected > 0 && granted == 0:
		return warnings, field.ErrorList{field.Forbidden(path, fmt.Sprintf(
			"no SiteGrant lets namespace %s use %s on any of the %d sites that this selects: ask a fleet-admin for one", a.Namespace, what, selected))}
	case granted < selected:
		warnings = append(warnings, fmt.Sprintf(
			"spec.placement.sites selects %d sites, of which namespace %s is granted %d: the app runs on those alone", selected, a.Namespace, granted))
	}
	return warnings, nil
}
