package taskhub

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/task"
)

// checkTask refuses a Task that could run nowhere because its namespace has no grant. What it lets pass is judged
// again, site by site, before any is told.
func (f *Feature) checkTask(ctx context.Context, old, t *v1alpha1.Task) ([]string, field.ErrorList) {
	if old != nil && equality.Semantic.DeepEqual(old.Spec.Work, t.Spec.Work) && equality.Semantic.DeepEqual(old.Spec.Placement, t.Spec.Placement) {
		return nil, nil // who may no longer place a task may still cancel it
	}
	ref := task.Ref{Kind: task.KindTask, Namespace: t.Namespace, Name: t.Name}
	return f.check(ctx, ref, &t.Spec.Work, &t.Spec.Placement)
}

// checkCronTask does the same for a CronTask, and reads its schedule.
func (f *Feature) checkCronTask(ctx context.Context, old, c *v1alpha1.CronTask) ([]string, field.ErrorList) {
	if err := scheduleOf(&c.Spec).ScheduleRules.Validate(); err != nil {
		return nil, field.ErrorList{field.Invalid(field.NewPath("spec", "schedule"), c.Spec.Schedule, err.Error())}
	}
	if old != nil && equality.Semantic.DeepEqual(old.Spec, c.Spec) {
		return nil, nil
	}
	ref := task.Ref{Kind: task.KindCronTask, Namespace: c.Namespace, Name: c.Name}
	return f.check(ctx, ref, &c.Spec.Work, &c.Spec.Placement)
}

// needs are what a task needs of a grant, as far as it is known; an empty runtime is any.
type needs struct {
	runtime  string
	root     bool
	selector labels.Selector
	warnings []string
}

func (f *Feature) needsOf(ctx context.Context, ref task.Ref, work *v1alpha1.TaskWork) (n needs, fault *field.Error) {
	source := &v1alpha1.App{}
	n.selector = labels.Everything()
	if work.App == "" {
		source = asApp(ref, work)
	} else {
		err := f.host.Client.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: work.App}, source)
		path := field.NewPath("spec", "work", "app")
		if apierrors.IsNotFound(err) {
			n.warnings = append(n.warnings, fmt.Sprintf("there is no App %s in namespace %s yet", work.App, ref.Namespace))
			return n, nil
		}
		if err == nil {
			if n.selector, err = metav1.LabelSelectorAsSelector(&source.Spec.Placement.Sites); err != nil {
				return n, field.Invalid(path, work.App, err.Error())
			}
		}
	}
	if source.Spec.Source.Bundle == "" {
		return n, nil // nothing is read yet: the condition will say it
	}
	n.root = source.Spec.Process != nil && source.Spec.Process.AllowRoot
	repository, reference := appapi.Repository(source)
	bundle, err := f.bundles.Resolve(ctx, repository, reference)
	if err != nil {
		n.warnings = append(n.warnings, fmt.Sprintf("the hub's registry has no %s in namespace %s yet: `skerry push` it", source.Spec.Source.Bundle, ref.Namespace))
		return n, nil
	}
	n.runtime = bundle.Config.Runtime
	return n, nil
}

func (f *Feature) check(ctx context.Context, ref task.Ref, work *v1alpha1.TaskWork, placement *v1alpha1.Placement) ([]string, field.ErrorList) {
	warnings, faults := f.judge(ctx, ref, work, placement, f.host.Client)
	if len(faults) > 0 {
		// A grant that was applied a moment before the task is not in the cache yet.
		warnings, faults = f.judge(ctx, ref, work, placement, f.host.Manager.GetAPIReader())
	}
	return warnings, faults
}

// judge is check with the grants that a reader has.
func (f *Feature) judge(ctx context.Context, ref task.Ref, work *v1alpha1.TaskWork, placement *v1alpha1.Placement, reader client.Reader) ([]string, field.ErrorList) {
	path := field.NewPath("spec", "placement", "sites")
	selector, err := metav1.LabelSelectorAsSelector(&placement.Sites)
	if err != nil {
		return nil, field.ErrorList{field.Invalid(path, placement.Sites, err.Error())}
	}
	n, fault := f.needsOf(ctx, ref, work)
	if fault != nil {
		return nil, field.ErrorList{fault}
	}
	var sites v1alpha1.SiteList
	var grants v1alpha1.SiteGrantList
	if f.host.Client.List(ctx, &sites) != nil || reader.List(ctx, &grants) != nil {
		return nil, nil
	}
	what := "any runtime"
	if n.runtime != "" {
		what = "runtime " + n.runtime
	}
	if n.root {
		what += " as root"
	}
	if !appapi.GrantedSomewhere(grants.Items, ref.Namespace, n.runtime, n.root) {
		return n.warnings, field.ErrorList{field.Forbidden(path, fmt.Sprintf(
			"no SiteGrant lets namespace %s use %s on any site: ask a fleet-admin for one", ref.Namespace, what))}
	}
	selected, granted := 0, 0
	for i := range sites.Items {
		set := labels.Set(sites.Items[i].Labels)
		if !selector.Matches(set) || !n.selector.Matches(set) {
			continue
		}
		selected++
		if appapi.Granted(grants.Items, ref.Namespace, n.runtime, n.root, &sites.Items[i]) {
			granted++
		}
	}
	switch {
	case selected == 0:
		n.warnings = append(n.warnings, "spec.placement.sites selects no site now: see `kubectl get sites --show-labels`")
	case granted == 0:
		return n.warnings, field.ErrorList{field.Forbidden(path, fmt.Sprintf(
			"no SiteGrant lets namespace %s use %s on any of the %d sites that this selects: ask a fleet-admin for one", ref.Namespace, what, selected))}
	case granted < selected:
		n.warnings = append(n.warnings, fmt.Sprintf(
			"spec.placement.sites selects %d sites, of which namespace %s is granted %d: it runs on those alone", selected, ref.Namespace, granted))
	}
	return n.warnings, nil
}
