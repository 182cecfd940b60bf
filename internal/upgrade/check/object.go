package check

import "strings"

// Object is one Kubernetes object of the input. Nobody changes it once it is made.
type Object struct {
	File string
	// Within names the object and the field that this one was found in (a ConfigMap that holds manifests), or is
	// empty. Objects of a List are not within it.
	Within string
	// APIVersion and Kind are of the object itself, or, for an item of a typed list that has none, of the list.
	APIVersion, Kind string
	// Root is the object; its Path is empty, or that of the item in its List.
	Root Ref
}

// Group returns the group of APIVersion, empty for the core.
func (o *Object) Group() string {
	group, _, found := strings.Cut(o.APIVersion, "/")
	if !found {
		return ""
	}
	return group
}

// Version returns the version of APIVersion.
func (o *Object) Version() string {
	_, version, found := strings.Cut(o.APIVersion, "/")
	if !found {
		return o.APIVersion
	}
	return version
}

// Name returns metadata.name, or generateName with an asterisk.
func (o *Object) Name() string {
	meta := o.Root.Get("metadata")
	if name := meta.Get("name").Text(); name != "" {
		return name
	}
	if prefix := meta.Get("generateName").Text(); prefix != "" {
		return prefix + "*"
	}
	return ""
}

// Namespace returns metadata.namespace.
func (o *Object) Namespace() string { return o.Root.Get("metadata", "namespace").Text() }

// String returns "Deployment shop/web", and what the object was found in.
func (o *Object) String() string {
	name := o.Name()
	if ns := o.Namespace(); ns != "" {
		name = ns + "/" + name
	}
	out := strings.TrimSpace(o.Kind + " " + name)
	if o.Within != "" {
		out += " in " + o.Within
	}
	return out
}

// Finding returns a finding of the object at a field.
func (o *Object) Finding(rule string, severity Severity, at Ref, reason, fix string) Finding {
	return Finding{Rule: rule, Severity: severity, File: o.File, Line: at.Line, Object: o.String(), Field: at.Path, Reason: reason, Fix: fix}
}
