package kubeapi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// Checker looks for APIs that a target does not serve.
type Checker struct {
	table  *Table
	target Target
}

// New returns a Checker for a target of the table.
func New(table *Table, target Target) *Checker { return &Checker{table, target} }

// Check implements check.Checker.
func (c *Checker) Check(objects []*check.Object) []check.Finding {
	var out []check.Finding
	if c.target.Partial {
		out = append(out, check.Finding{
			Rule: rulePartial, Severity: check.Warning,
			Reason: fmt.Sprintf("of Kubernetes %s only announced removals are known, so no finding does not mean that it is safe", c.target),
			Fix:    fmt.Sprintf("check against %s, the newest minor whose APIs are known, as well", name(c.table.newest())),
		})
	}
	crds := definitions(objects)
	for _, o := range objects {
		out = append(out, c.object(o)...)
		out = append(out, c.references(o)...)
		out = append(out, crds.check(o)...)
		switch o.Group() {
		case "rbac.authorization.k8s.io":
			out = append(out, c.roles(o)...)
		case "admissionregistration.k8s.io":
			out = append(out, c.webhooks(o)...)
		case "apiregistration.k8s.io":
			out = append(out, c.services(o)...)
		}
	}
	return out
}

// notResources are kinds of the core that are never stored: files of clients, and lists of mixed objects.
var notResources = []string{"Config", "List", "Status"}

// object looks at the object's own version and kind.
func (c *Checker) object(o *check.Object) []check.Finding {
	of := GVK{o.Group(), o.Version(), o.Kind}
	at := o.Root.Get("apiVersion")
	apis := c.table.find(of)
	t := c.target
	switch {
	case len(apis) == 0:
		if !c.table.groups[of.Group] || (of.Group == "" && slices.Contains(notResources, of.Kind)) {
			return nil
		}
		return []check.Finding{o.Finding(ruleUnknown, check.Warning, at,
			fmt.Sprintf("no Kubernetes from %s to %s has the kind %s in %s", name(c.table.Minors[0].Minor), name(c.table.newest()), of.Kind, of.APIVersion()),
			c.fix(of, "look for a slip of the pen in apiVersion and kind"))}
	case !anyServed(apis, t) && firstServed(apis) > t.Minor:
		return []check.Finding{o.Finding(ruleTooNew, check.Failure, at,
			fmt.Sprintf("%s %s comes with Kubernetes %s, and %s is asked about", of.APIVersion(), of.Kind, name(firstServed(apis)), t), c.fix(of, "leave it out until then"))}
	case !anyServed(apis, t):
		return []check.Finding{o.Finding(ruleRemoved, check.Failure, at, c.gone(of, apis), c.fix(of, "nothing takes its place: remove the object"))}
	case !slices.ContainsFunc(apis, func(a *API) bool { return a.defaultIn(t) }):
		return []check.Finding{o.Finding(ruleOptIn, check.Warning, at,
			fmt.Sprintf("Kubernetes %s serves %s %s only if its API server is told to", t, of.APIVersion(), of.Kind),
			c.fix(of, "start the API server with --runtime-config="+of.APIVersion()+"=true"))}
	}
	for _, a := range apis {
		if a.Deprecated == 0 || a.Deprecated > t.Minor || !a.servedIn(t) {
			continue
		}
		when := "no minor is named in which it goes"
		if a.Removed > 0 {
			when = "it is gone from " + name(a.Removed)
			if a.Source == "markers" {
				when = "it is to go in " + name(a.Removed)
			}
		}
		return []check.Finding{o.Finding(ruleDeprecated, check.Warning, at,
			fmt.Sprintf("%s %s is deprecated since Kubernetes %s; %s", of.APIVersion(), of.Kind, name(a.Deprecated), when), c.fix(of, ""))}
	}
	return nil
}

// gone says since when a kind is not served.
func (c *Checker) gone(of GVK, apis []*API) string {
	for _, a := range apis {
		if a.Source == "markers" && a.Removed > 0 && a.Removed <= c.target.Minor {
			return fmt.Sprintf("Kubernetes %s is to remove %s %s, its authors say", name(a.Removed), of.APIVersion(), of.Kind)
		}
	}
	return fmt.Sprintf("Kubernetes %s no longer serves %s %s; %s was the last that did", c.target, of.APIVersion(), of.Kind, name(lastServed(apis)))
}

// fix says what to write in place of a kind, or otherwise.
func (c *Checker) fix(of GVK, otherwise string) string {
	to, ok := c.table.instead(of, c.target)
	if !ok {
		return otherwise
	}
	if to.Kind != of.Kind {
		return fmt.Sprintf("use apiVersion %s, kind %s", to.APIVersion(), to.Kind)
	}
	return "use apiVersion " + to.APIVersion()
}

// references looks for maps that have an apiVersion and a kind, wherever they stand: what a scaler scales, owners,
// templates that others make objects of.
func (c *Checker) references(o *check.Object) []check.Finding {
	var out []check.Finding
	var steps []step
	var walk func(v *check.Value)
	walk = func(v *check.Value) {
		for i, item := range v.Items {
			steps = append(steps, step{index: i})
			walk(item)
			steps = steps[:len(steps)-1]
		}
		for i, f := range v.Fields {
			steps = append(steps, step{index: i, field: true})
			walk(f.Value)
			steps = steps[:len(steps)-1]
		}
		if v.Kind != check.Map || len(steps) == 0 {
			return
		}
		at := check.Ref{Value: v}
		version, kind := at.Get("apiVersion").Text(), at.Get("kind").Text()
		if version == "" || kind == "" {
			return
		}
		named := check.Object{APIVersion: version}
		of := GVK{named.Group(), named.Version(), kind}
		if apis := c.table.find(of); len(apis) > 0 && !anyServed(apis, c.target) && firstServed(apis) <= c.target.Minor {
			out = append(out, o.Finding(ruleReference, check.Failure, follow(o.Root, steps).Get("apiVersion"), c.gone(of, apis), c.fix(of, "nothing takes its place")))
		}
	}
	walk(o.Root.Value)
	return out
}

// step is a part of a way. Paths are written out for findings alone: names can be long, and values many.
type step struct {
	index int
	field bool // the field of this index, not the item
}

// follow goes the way of steps.
func follow(at check.Ref, steps []step) check.Ref {
	for _, s := range steps {
		if s.field {
			at = at.Fields()[s.index]
		} else {
			at = at.Items()[s.index]
		}
	}
	return at
}

// quoted writes names of a list for a sentence.
func quoted(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}
