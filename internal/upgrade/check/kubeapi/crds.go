package kubeapi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// definition is what a CustomResourceDefinition of the input says of its versions.
type definition struct {
	served, known []string
}

// crds are the definitions of the input by group and kind.
type crds map[[2]string]definition

func isCRD(o *check.Object) bool {
	return o.Group() == "apiextensions.k8s.io" && o.Kind == "CustomResourceDefinition"
}

// definitions reads those whose versions stand in a list, which all of apiextensions.k8s.io/v1 do.
func definitions(objects []*check.Object) crds {
	out := crds{}
	for _, o := range objects {
		spec := o.Root.Get("spec")
		if !isCRD(o) {
			continue
		}
		key := [2]string{spec.Get("group").Text(), spec.Get("names", "kind").Text()}
		d := out[key]
		for _, v := range spec.Get("versions").Items() {
			d.known = append(d.known, v.Get("name").Text())
			if v.Get("served").True() {
				d.served = append(d.served, v.Get("name").Text())
			}
		}
		if len(d.known) > 0 {
			out[key] = d
		}
	}
	return out
}

// check looks at an object of a kind that the input defines, and at definitions themselves.
func (c crds) check(o *check.Object) []check.Finding {
	if isCRD(o) {
		return storage(o)
	}
	d, ok := c[[2]string{o.Group(), o.Kind}]
	if !ok || slices.Contains(d.served, o.Version()) {
		return nil
	}
	reason := "has no version " + o.Version()
	if slices.Contains(d.known, o.Version()) {
		reason = "does not serve version " + o.Version()
	}
	fix := "serve a version"
	if len(d.served) > 0 {
		fix = "use one of " + strings.Join(d.served, ", ")
	}
	return []check.Finding{o.Finding(ruleCRDVersion, check.Failure, o.Root.Get("apiVersion"),
		fmt.Sprintf("the CustomResourceDefinition of %s in the input %s", o.Kind, reason), fix)}
}

// storage holds a definition to have one version that is stored, as the API server does.
func storage(o *check.Object) []check.Finding {
	versions := o.Root.Get("spec", "versions")
	var stored []string
	for _, v := range versions.Items() {
		if v.Get("storage").True() {
			stored = append(stored, v.Get("name").Text())
		}
	}
	if len(stored) == 1 || len(versions.Items()) == 0 {
		return nil
	}
	reason := "no version is the one that is stored"
	if len(stored) > 1 {
		reason = fmt.Sprintf("%d versions are to be stored: %s", len(stored), strings.Join(stored, ", "))
	}
	return []check.Finding{o.Finding(ruleCRDStorage, check.Failure, versions, reason, "set storage: true for one version")}
}
