// Package appapi turns the Kubernetes types of apps into the core's plain ones: what a release freezes,
// what a site gets of it, and what grants allow. It is a leaf for the hub half and the CLI.
//
// Its functions are pure: the same inputs give the same outputs, names and digests included.
package appapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// Repository returns the repository of the hub's registry that an app's source names, and the tag or
// digest in it.
func Repository(a *v1alpha1.App) (repository, reference string) {
	name, digest, ok := strings.Cut(a.Spec.Source.Bundle, "@")
	if ok {
		return a.Namespace + "/" + name, digest
	}
	name, tag, _ := strings.Cut(a.Spec.Source.Bundle, ":")
	return a.Namespace + "/" + name, tag
}

// Resolved is a bundle as it was found in the registry.
type Resolved struct {
	Bundle  app.Bundle
	Version string
	Config  app.BundleConfig
}

// Freeze returns the release that an app and its resolved bundle make. Its name ends in a digest of its
// spec. It shares nothing with the app.
func Freeze(a *v1alpha1.App, bundle Resolved) (*v1alpha1.Release, error) {
	a = a.DeepCopy()
	spec := v1alpha1.ReleaseSpec{
		App: a.Name,
		Bundle: v1alpha1.ReleaseBundle{
			Repository: bundle.Bundle.Repository, Version: bundle.Version, Digest: string(bundle.Bundle.Digest), Size: bundle.Bundle.Size,
		},
		Runtime:    bundle.Config.Runtime,
		Env:        a.Spec.Env,
		SecretRefs: a.Spec.SecretRefs,
		Route:      a.Spec.Route,
		Process:    a.Spec.Process,
		OnDelete:   a.Spec.OnDelete,
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("freeze app %s/%s: %w", a.Namespace, a.Name, err)
	}
	sum := sha256.Sum256(data)
	return &v1alpha1.Release{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.Namespace, Name: a.Name + "-" + hex.EncodeToString(sum[:])[:nameDigits]},
		Spec:       spec,
	}, nil
}

// nameDigits of the spec's digest stand in a release's name: ten hexadecimal digits make two releases of
// one app share a name once in a million million.
const nameDigits = 10

// Render returns what a site gets of a release: a pure function of both.
func Render(r *v1alpha1.Release, _ fleet.Facts) (app.Placement, error) {
	p := app.Placement{
		App:     fleet.AppKey{Namespace: r.Namespace, Name: r.Spec.App},
		Release: r.Name,
		Version: r.Spec.Bundle.Version,
		Bundle: app.Bundle{
			Repository: r.Spec.Bundle.Repository, Digest: fleet.Digest(r.Spec.Bundle.Digest), Size: r.Spec.Bundle.Size,
		},
		AllowRoot:  r.Spec.Process != nil && r.Spec.Process.AllowRoot,
		RemoveData: r.Spec.OnDelete == v1alpha1.RemoveData,
	}
	if r.Spec.Route != nil {
		p.Route = &app.Route{Host: r.Spec.Route.Host, Path: r.Spec.Route.Path}
	}
	if len(r.Spec.Env) > 0 {
		p.Env = make(map[string]string, len(r.Spec.Env))
		for k, v := range r.Spec.Env {
			p.Env[k] = string(v)
		}
	}
	p.Secrets = SecretRefs(r.Spec.SecretRefs)
	return p, p.Seal()
}

// Facts returns what apps may know of a site.
func Facts(s *v1alpha1.Site) fleet.Facts {
	return fleet.Facts{Name: fleet.SiteName(s.Name), Labels: s.Labels, Zone: s.Spec.Zone}
}

// Granted reports whether any grant lets apps of a namespace use a runtime, and the host when root is
// asked for, on a site; an empty runtime stands for whichever. A grant whose selector cannot be read grants
// nothing.
func Granted(grants []v1alpha1.SiteGrant, namespace, runtime string, root bool, site *v1alpha1.Site) bool {
	for i := range grants {
		if !allows(&grants[i].Spec, namespace, runtime, root) {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(&grants[i].Spec.Sites)
		if err == nil && selector.Matches(labels.Set(site.Labels)) {
			return true
		}
	}
	return false
}

// GrantedSomewhere is Granted for sites that may be yet to come.
func GrantedSomewhere(grants []v1alpha1.SiteGrant, namespace, runtime string, root bool) bool {
	return slices.ContainsFunc(grants, func(g v1alpha1.SiteGrant) bool { return allows(&g.Spec, namespace, runtime, root) })
}

func allows(g *v1alpha1.SiteGrantSpec, namespace, runtime string, root bool) bool {
	return (slices.Contains(g.Namespaces, namespace) || slices.Contains(g.Namespaces, "*")) &&
		(runtime == "" || slices.Contains(g.Runtimes, runtime)) && (!root || g.Host.Root)
}

// MaxUnavailable returns how many of total sites may be without a healthy release at once: at least one.
func MaxUnavailable(policy v1alpha1.UpdatePolicy, total int) (int, error) {
	value := intstr.FromString("10%")
	if policy.MaxUnavailable != nil {
		value = *policy.MaxUnavailable
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(&value, total, true)
	if err != nil {
		return 0, fmt.Errorf("update.maxUnavailable: %w", err)
	}
	return max(1, n), nil
}
