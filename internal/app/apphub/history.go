package apphub

import (
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
)

// maxHistory is how many releases of an app are kept beside those that some site is told to run. Each keeps
// its bundle in the registry.
const maxHistory = 10

// prune removes the oldest releases of the app beyond its history. The newest one and whatever a site is
// told to run stay.
func (r *reconciler) prune(ctx context.Context, p *pass) error {
	var list v1alpha1.ReleaseList
	if err := r.host.Client.List(ctx, &list, client.InNamespace(p.key.Namespace)); err != nil {
		return fmt.Errorf("app %s: list releases: %w", p.key, err)
	}
	told := map[string]bool{p.release.Name: true}
	for _, site := range r.book.sitesOf(p.key) {
		told[r.book.told(site, p.key).Release] = true
	}
	old := slices.DeleteFunc(list.Items, func(rel v1alpha1.Release) bool { return rel.Spec.App != p.key.Name || told[rel.Name] })
	slices.SortFunc(old, func(a, b v1alpha1.Release) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
	for i := maxHistory; i < len(old); i++ {
		if err := r.host.Client.Delete(ctx, &old[i]); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("app %s: remove release %s: %w", p.key, old[i].Name, err)
		}
	}
	return nil
}
