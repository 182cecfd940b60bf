package kubeapi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// match is what a rule of RBAC or of admission speaks of.
type match struct{ groups, versions, resources []string }

// state says of a match what becomes of it.
type state struct {
	known  bool // it names something that a known minor served
	served bool // the target serves some of it
	gone   []*API
}

const all = "*"

func has(list []string, s string) bool {
	return slices.Contains(list, s) || slices.Contains(list, all)
}

// look finds what a match names in the table. Groups that are not Kubernetes' own count as served: nothing is known of
// them. Versions are nil for rules that have none.
func (c *Checker) look(m match) state {
	var s state
	for _, g := range m.groups {
		if g == all || !c.table.groups[g] {
			s.served = true
			return s
		}
	}
	for i := range c.table.APIs {
		a := &c.table.APIs[i]
		if !slices.Contains(m.groups, a.Group) || !hasResource(m.resources, a.Resource) || (m.versions != nil && !has(m.versions, a.Version)) {
			continue
		}
		if a.servedIn(c.target) {
			s.served = true
			return s
		}
		if firstServed([]*API{a}) <= c.target.Minor {
			s.known = true
			s.gone = append(s.gone, a)
		}
	}
	return s
}

// hasResource knows that pods/log, pods/* and */* speak of pods as well.
func hasResource(list []string, resource string) bool {
	return slices.ContainsFunc(list, func(r string) bool {
		r, _, _ = strings.Cut(r, "/")
		return r == all || r == resource
	})
}

// roles looks at the rules of Roles and ClusterRoles, each group and resource of them alone: a right that names what
// is gone grants nothing.
func (c *Checker) roles(o *check.Object) []check.Finding {
	var out []check.Finding
	for _, rule := range o.Root.Get("rules").Items() {
		resources := rule.Get("resources").Texts()
		for _, group := range rule.Get("apiGroups").Items() {
			if group.Value.Kind != check.String {
				continue
			}
			for _, resource := range resources {
				s := c.look(match{groups: []string{group.Value.Text}, resources: []string{resource}})
				if s.served || !s.known {
					continue
				}
				out = append(out, c.role(o, rule, group, resource, s))
			}
		}
	}
	return out
}

func (c *Checker) role(o *check.Object, rule, group check.Ref, resource string, s state) check.Finding {
	plural, sub, _ := strings.Cut(resource, "/")
	what := "has no " + resource
	if plural == all {
		what = "has nothing"
	}
	reason := fmt.Sprintf("Kubernetes %s %s in group %q; %s was the last that had, so this grants nothing", c.target, what, group.Value.Text, name(lastServed(s.gone)))
	if plural == all {
		if groups := c.groupsInstead(s.gone); len(groups) > 0 {
			return o.Finding(ruleRBAC, check.Warning, group, reason, "grant what is needed of it in "+strings.Join(groups, ", "))
		}
		return o.Finding(ruleRBAC, check.Warning, group, reason, "remove it from the rule")
	}
	to, ok := c.table.instead(s.gone[len(s.gone)-1].gvk(), c.target)
	if !ok {
		return o.Finding(ruleRBAC, check.Warning, group, reason, "remove it from the rule")
	}
	moved := c.table.find(to)[0].Resource
	if sub != "" {
		moved += "/" + sub
	}
	for _, verb := range rule.Get("verbs").Texts() {
		if !granted(o, to.Group, moved, verb) {
			return o.Finding(ruleRBAC, check.Warning, group, reason, fmt.Sprintf("grant %s in group %q", moved, to.Group))
		}
	}
	return o.Finding(ruleRBAC, check.Info, group, reason, fmt.Sprintf("remove it; this role grants the same for %s in group %q", moved, to.Group))
}

// groupsInstead returns the groups in which what is gone is now, in order.
func (c *Checker) groupsInstead(gone []*API) []string {
	var out []string
	for _, a := range gone {
		if to, ok := c.table.instead(a.gvk(), c.target); ok && to.Group != "" && !slices.Contains(out, to.Group) {
			out = append(out, to.Group)
		}
	}
	slices.Sort(out)
	return out
}

// granted reports whether a role grants a verb on all objects of a resource.
func granted(o *check.Object, group, resource, verb string) bool {
	_, sub, isSub := strings.Cut(resource, "/")
	return slices.ContainsFunc(o.Root.Get("rules").Items(), func(rule check.Ref) bool {
		resources := rule.Get("resources").Texts()
		return has(rule.Get("apiGroups").Texts(), group) && has(rule.Get("verbs").Texts(), verb) &&
			(has(resources, resource) || isSub && slices.Contains(resources, "*/"+sub)) && len(rule.Get("resourceNames").Items()) == 0
	})
}

// webhooks looks at what webhooks and admission policies match: a rule of which nothing is served never matches.
func (c *Checker) webhooks(o *check.Object) []check.Finding {
	var rules []check.Ref
	for _, hook := range o.Root.Get("webhooks").Items() {
		rules = append(rules, hook.Get("rules").Items()...)
	}
	rules = append(rules, o.Root.Get("spec", "matchConstraints", "resourceRules").Items()...)
	var out []check.Finding
	for _, rule := range rules {
		m := match{rule.Get("apiGroups").Texts(), rule.Get("apiVersions").Texts(), rule.Get("resources").Texts()}
		s := c.look(m)
		if s.served || !s.known {
			continue
		}
		last := s.gone[len(s.gone)-1]
		fix := "remove the rule"
		if to, ok := c.table.instead(last.gvk(), c.target); ok {
			fix = fmt.Sprintf("match %s of %s", c.table.find(to)[0].Resource, to.APIVersion())
		}
		out = append(out, o.Finding(ruleWebhook, check.Warning, rule.Get("apiVersions"),
			fmt.Sprintf("Kubernetes %s serves nothing that this rule matches (%s of version %s in group %q); %s was the last that did, so it is never called",
				c.target, quoted(m.resources), quoted(m.versions), strings.Join(m.groups, ", "), name(lastServed(s.gone))), fix))
	}
	return out
}

// services looks at APIServices that are served by the API server itself.
func (c *Checker) services(o *check.Object) []check.Finding {
	spec := o.Root.Get("spec")
	group, version := spec.Get("group").Text(), spec.Get("version").Text()
	if o.Kind != "APIService" || spec.Get("service").Exists() || !c.table.groups[group] {
		return nil
	}
	var of []*API
	for i := range c.table.APIs {
		if a := &c.table.APIs[i]; a.Group == group && a.Version == version {
			of = append(of, a)
		}
	}
	if len(of) == 0 || anyServed(of, c.target) || firstServed(of) > c.target.Minor {
		return nil
	}
	return []check.Finding{o.Finding(ruleService, check.Warning, spec.Get("version"),
		fmt.Sprintf("Kubernetes %s no longer serves %s; %s was the last that did", c.target, GVK{group, version, ""}.APIVersion(), name(lastServed(of))), "remove the APIService")}
}
