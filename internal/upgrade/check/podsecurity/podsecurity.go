// Package podsecurity holds pods, and what pods are made of, to the Pod Security Standards by Kubernetes' own library,
// the one that the API server enforces them with.
//
// It is a leaf of package check around k8s.io/pod-security-admission; the command line imports it. A pod that the library
// cannot read is a finding.
package podsecurity

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// Levels are the names of the levels, the strictest first.
func Levels() []string {
	return []string{string(api.LevelRestricted), string(api.LevelBaseline), string(api.LevelPrivileged)}
}

// Checker holds pods to a level. It is safe for concurrent use.
type Checker struct {
	level    api.Level
	severity check.Severity
	checks   []versioned
}

// versioned is a check of the library in the form that holds for the target.
type versioned struct {
	id  string
	pod policy.CheckPodFn
}

// ErrLevel is returned for a level that there is not.
var ErrLevel = errors.New("want restricted, baseline or privileged")

// New returns a Checker for a level as Kubernetes 1.minor defines it, or, for a minor newer than the library, as the
// newest one that it knows does. Findings have the given severity.
func New(level string, minor int, severity check.Severity) (*Checker, error) {
	if !slices.Contains(Levels(), level) {
		return nil, fmt.Errorf("%q: %w", level, ErrLevel)
	}
	c := &Checker{level: api.Level(level), severity: severity}
	target := api.MajorMinorVersion(1, minor)
	var overridden []policy.CheckID
	for _, k := range policy.DefaultChecks() {
		if c.level == api.LevelPrivileged || (c.level == api.LevelBaseline && k.Level != api.LevelBaseline) {
			continue
		}
		var best *policy.VersionedCheck
		for i := range k.Versions {
			if v := &k.Versions[i]; !target.Older(v.MinimumVersion) {
				best = v
			}
		}
		if best == nil {
			continue
		}
		overridden = append(overridden, best.OverrideCheckIDs...)
		c.checks = append(c.checks, versioned{id: string(k.ID), pod: best.CheckPod})
	}
	c.checks = slices.DeleteFunc(c.checks, func(v versioned) bool { return slices.Contains(overridden, policy.CheckID(v.id)) })
	return c, nil
}

// Check implements check.Checker.
func (c *Checker) Check(objects []*check.Object) []check.Finding {
	var out []check.Finding
	if c.level == api.LevelPrivileged {
		return nil
	}
	for _, o := range objects {
		if at, ok := podOf(o); ok {
			out = append(out, c.pod(o, at)...)
		}
	}
	return out
}

// podOf returns the part of an object of Kubernetes' own kinds that has a pod's metadata and spec.
func podOf(o *check.Object) (check.Ref, bool) {
	if !slices.Contains([]string{"", "apps", "batch", "extensions"}, o.Group()) {
		return check.Ref{}, false
	}
	at := o.Root
	switch o.Kind {
	case "Pod":
	case "PodTemplate":
		at = at.Get("template")
	case "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job":
		at = at.Get("spec", "template")
	case "CronJob":
		at = at.Get("spec", "jobTemplate", "spec", "template")
	default:
		return check.Ref{}, false
	}
	return at, at.Get("spec").Exists()
}

// pod runs the checks on one pod.
func (c *Checker) pod(o *check.Object, at check.Ref) []check.Finding {
	var meta metav1.ObjectMeta
	var spec corev1.PodSpec
	// Of the metadata the library reads annotations alone; a template's may be missing.
	if err := decode(at.Get("metadata", "annotations"), &meta.Annotations); err != nil {
		return []check.Finding{unreadable(o, at.Get("metadata", "annotations"), err)}
	}
	if err := decode(at.Get("spec"), &spec); err != nil {
		return []check.Finding{unreadable(o, at.Get("spec"), err)}
	}
	for i, v := range spec.Volumes {
		if v.VolumeSource == (corev1.VolumeSource{}) {
			// As the API server's defaults have it, which come before its own check.
			spec.Volumes[i].EmptyDir = &corev1.EmptyDirVolumeSource{}
		}
	}
	var out []check.Finding
	for _, k := range c.checks {
		if result := k.pod(&meta, &spec); !result.Allowed {
			out = append(out, c.findings(o, at, k, &meta, &spec, result)...)
		}
	}
	return out
}

func decode(from check.Ref, into any) error {
	if !from.Exists() {
		return nil
	}
	data, err := check.AppendJSON(nil, from.Value)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func unreadable(o *check.Object, at check.Ref, err error) check.Finding {
	reason := "the pod cannot be read: " + err.Error()
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		reason = fmt.Sprintf("the pod cannot be read: a %s stands where %s is wanted", wrong.Value, wrong.Type)
		for name := range strings.SplitSeq(wrong.Field, ".") {
			if next := at.Get(name); next.Value != nil {
				at = next
			}
		}
	}
	return o.Finding(ruleUnreadable, check.Failure, at, reason, "write the field as the API describes it")
}

// findings tells one violation: for the pod as a whole if it is there without any container as well, else for each
// container that has it alone. The library names containers in a sentence; asking it again says which they are.
func (c *Checker) findings(o *check.Object, at check.Ref, k versioned, meta *metav1.ObjectMeta, spec *corev1.PodSpec, result policy.CheckResult) []check.Finding {
	bare := spec.DeepCopy()
	bare.InitContainers, bare.Containers, bare.EphemeralContainers = nil, nil, nil
	if of := k.pod(meta, bare); !of.Allowed {
		return []check.Finding{c.finding(o, k, place(at, check.Ref{}, k.id), result)}
	}
	var out []check.Finding
	try := func(list string, i int, alone *corev1.PodSpec) {
		if of := k.pod(meta, alone); !of.Allowed {
			items := at.Get("spec", list).Items()
			if i < len(items) {
				out = append(out, c.finding(o, k, place(at, items[i], k.id), of))
			}
		}
	}
	for i := range spec.InitContainers {
		alone := bare.DeepCopy()
		alone.InitContainers = spec.InitContainers[i : i+1]
		try("initContainers", i, alone)
	}
	for i := range spec.Containers {
		alone := bare.DeepCopy()
		alone.Containers = spec.Containers[i : i+1]
		try("containers", i, alone)
	}
	for i := range spec.EphemeralContainers {
		alone := bare.DeepCopy()
		alone.EphemeralContainers = spec.EphemeralContainers[i : i+1]
		try("ephemeralContainers", i, alone)
	}
	if len(out) == 0 {
		out = append(out, c.finding(o, k, at.Get("spec"), result))
	}
	return out
}

func (c *Checker) finding(o *check.Object, k versioned, at check.Ref, result policy.CheckResult) check.Finding {
	reason := fmt.Sprintf("Pod Security level %s forbids it: %s", c.level, result.ForbiddenReason)
	if result.ForbiddenDetail != "" {
		reason += ": " + result.ForbiddenDetail
	}
	return o.Finding(prefix+k.id, c.severity, at, reason, about(k.id).fix)
}

// place returns the field that a check reads: the first that is there of the container's, then of the pod's, else the
// container or the pod's spec, where the field is missing.
func place(pod, container check.Ref, id string) check.Ref {
	a := about(id)
	if container.Value != nil {
		for _, path := range a.container {
			if at := container.Get(path...); at.Value != nil {
				return at
			}
		}
	}
	for _, path := range a.pod {
		if at := pod.Get(path...); at.Value != nil {
			return at
		}
	}
	if container.Value != nil {
		return container
	}
	return pod.Get("spec")
}
