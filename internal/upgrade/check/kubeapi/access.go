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
	rules := o.Root.Get("rules").Items()
	for _, rule := range rules {
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
				out = append(out, c.role(o, rules, group, resource, s))
			}
		}
	}
	return out
}

func (c *Checker) role(o *check.Object, rules []check.Ref, group check.Ref, resource string, s state) check.Finding {
	last := s.gone[len(s.gone)-1]
	reason := fmt.Sprintf("Kubernetes %s has no %s in group %q; %s was the last that did, so this grants nothing", c.target, resource, group.Value.Text, name(lastServed(s.gone)))
	to, ok := c.table.instead(last.gvk(), c.target)
	if !ok {
		return o.Finding(ruleRBAC, check.Warning, group, reason, "remove it from the rule")
	}
	moved := c.table.find(to)[0]
	for _, rule := range rules {
		if has(rule.Get("apiGroups").Texts(), moved.Group) && hasResource(rule.Get("resources").Texts(), moved.Resource) {
			return o.Finding(ruleRBAC, check.Info, group, reason, fmt.Sprintf("remove it; %s in group %q are granted by this role already", moved.Resource, moved.Group))
		}
	}
	return o.Finding(ruleRBAC, check.Warning, group, reason, fmt.Sprintf("grant %s in group %q", moved.Resource, moved.Group))
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
