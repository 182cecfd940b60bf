package apphub

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/wire"
)

// recall puts the app's last release back into sections that were lost, when a problem keeps the app from being
// told as it is now: a section that is made anew without it would make the site remove what it runs.
func (r *reconciler) recall(ctx context.Context, p *pass) error {
	if !r.book.anyLost() || p.app.Status.Release == "" {
		return nil
	}
	var release v1alpha1.Release
	err := r.host.Client.Get(ctx, client.ObjectKey{Namespace: p.key.Namespace, Name: p.app.Status.Release}, &release)
	if apierrors.IsNotFound(err) {
		return nil
	}
	var sites v1alpha1.SiteList
	var grants v1alpha1.SiteGrantList
	if err == nil {
		err = r.host.Client.List(ctx, &sites, client.UnsafeDisableDeepCopy)
	}
	if err == nil {
		err = r.host.Client.List(ctx, &grants)
	}
	if err != nil {
		return fmt.Errorf("app %s: recall release %s: %w", p.key, p.app.Status.Release, err)
	}
	selector, err := metav1.LabelSelectorAsSelector(&p.app.Spec.Placement.Sites)
	if err != nil {
		return nil // it selects no site, and its condition says so
	}
	renderer, err := appapi.NewRenderer(&release)
	if err != nil {
		return fmt.Errorf("app %s: recall release %s: %w", p.key, release.Name, err)
	}
	root := release.Spec.Process != nil && release.Spec.Process.AllowRoot
	for i := range sites.Items {
		site, facts := &sites.Items[i], appapi.Facts(&sites.Items[i])
		if !r.book.isLost(facts.Name) || r.book.told(facts.Name, p.key).Digest != "" || !selector.Matches(labels.Set(site.Labels)) ||
			!appapi.Granted(grants.Items, p.key.Namespace, release.Spec.Runtime, root, site) {
			continue
		}
		placement, err := renderer.Render(facts)
		if err != nil {
			return fmt.Errorf("app %s: recall release %s: %w", p.key, release.Name, err)
		}
		err = r.book.tell(ctx, facts, p.key, &placement)
		var taken *routeTakenError
		if errors.As(err, &taken) || errors.Is(err, wire.ErrTooLarge) {
			continue // another app has its place: the site's other apps must not wait for this one
		}
		if err != nil {
			return fmt.Errorf("app %s: recall release %s: %w", p.key, release.Name, err)
		}
	}
	return nil
}
