// Package appapi turns the Kubernetes types of apps into the core's plain ones: what a release freezes,
// what a site gets of it, and what grants allow. It is a leaf for the hub half and the CLI.
//
// Its functions are pure: the same inputs give the same outputs, names and digests included.
package appapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
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

// Errors of who resolves bundles.
var (
	// ErrBundleNotFound means that the registry has no such repository, tag or digest.
	ErrBundleNotFound = errors.New("bundle not found")
	// ErrBundleInvalid means that what the registry has is not a bundle that can be run.
	ErrBundleInvalid = errors.New("bundle invalid")
)

// Resolved is a bundle as it was found in the registry.
type Resolved struct {
	Bundle  app.Bundle
	Version string
	Config  app.BundleConfig
}

// Freeze returns the release that an app, its resolved bundle and the ConfigMaps that it names make. Its name
// ends in a digest of its spec. It shares nothing with the app. What a person must mend is a *ConfigError.
func Freeze(a *v1alpha1.App, bundle Resolved, configMaps ConfigMaps) (*v1alpha1.Release, error) {
	config, err := freezeConfig(a, bundle.Config, configMaps)
	if err != nil {
		return nil, err
	}
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
		Config:     config,
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

// Facts returns what apps may know of a site.
func Facts(s *v1alpha1.Site) fleet.Facts {
	return fleet.Facts{Name: fleet.SiteName(s.Name), Labels: s.Labels, Zone: s.Spec.Zone, TimeZone: s.Spec.TimeZone}
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
