package kubeapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/skerry-dev/skerry/catalog"
)

// GVK names a kind.
type GVK struct{ Group, Version, Kind string }

// APIVersion returns group and version as an object writes them.
func (g GVK) APIVersion() string {
	if g.Group == "" {
		return g.Version
	}
	return g.Group + "/" + g.Version
}

// Ranges are ranges of minors in order, both ends included.
type Ranges [][2]int

// Has reports whether minor lies in one of them.
func (r Ranges) Has(minor int) bool {
	return slices.ContainsFunc(r, func(x [2]int) bool { return x[0] <= minor && minor <= x[1] })
}

// API is a resource in one version.
type API struct {
	Group, Version, Kind string
	Resource             string // its name in a path and in RBAC
	Namespaced           bool
	// Served says which of the known minors have it when all is switched on; Default which have it when nothing is
	// said. Feature gates are not looked at.
	Served, Default Ranges
	// Deprecated is the minor from which its authors call it deprecated. Removed is the first known minor without it
	// or, with Source "markers", the one in which its authors mean to remove it. Zero stands for none.
	Deprecated, Removed int
	Replacement         *GVK   // what its authors name; nil for nothing
	Source              string // discovery, openapi or markers: what the newest statement is from
}

// gvk returns its name.
func (a *API) gvk() GVK { return GVK{a.Group, a.Version, a.Kind} }

// servedIn is Served, carried on beyond the newest known minor up to the one in which it is meant to be removed.
func (a *API) servedIn(t Target) bool { return a.during(a.Served, t) }

// defaultIn is Default, carried on in the same way.
func (a *API) defaultIn(t Target) bool { return a.during(a.Default, t) }

func (a *API) during(ranges Ranges, t Target) bool {
	if !t.Partial {
		return ranges.Has(t.Minor)
	}
	return ranges.Has(t.newest) && (a.Removed == 0 || t.Minor < a.Removed)
}

// Minor is what is known of one minor version.
type Minor struct {
	Minor       int
	Module, Sum string // the Go module that was read, and its checksum
	From        string // discovery or openapi
	Resources   int
	Digest      string // SHA-256 of the list that was read
}

// Table is all that is known. It does not change, and is safe for concurrent use.
type Table struct {
	Minors []Minor // in order
	APIs   []API

	byKind     map[GVK][]*API
	byResource map[[2]string][]*API // group and resource
	groups     map[string]bool
}

// Target is the minor that is asked about.
type Target struct {
	Minor int
	// Partial says that the minor is newer than those whose APIs are known: only what is meant to be removed is.
	Partial bool
	newest  int
}

// String returns "1.36".
func (t Target) String() string { return name(t.Minor) }

func name(minor int) string { return "1." + strconv.Itoa(minor) }

// ErrUnknownMinor is returned for a minor of which nothing is known.
var ErrUnknownMinor = errors.New("nothing is known of this Kubernetes minor")

// Load reads the table that is linked in.
func Load() (*Table, error) {
	data, err := catalog.Kubernetes.ReadFile("kubernetes/apis.json")
	if err != nil {
		return nil, fmt.Errorf("read the table of APIs: %w", err)
	}
	return parse(data)
}

func parse(data []byte) (*Table, error) {
	t := &Table{byKind: map[GVK][]*API{}, byResource: map[[2]string][]*API{}, groups: map[string]bool{}}
	if err := json.Unmarshal(data, t); err != nil {
		return nil, fmt.Errorf("the table of APIs: %w", err)
	}
	if len(t.Minors) == 0 {
		return nil, errors.New("the table of APIs knows no minor")
	}
	for i := range t.APIs {
		a := &t.APIs[i]
		t.byKind[a.gvk()] = append(t.byKind[a.gvk()], a)
		key := [2]string{a.Group, a.Resource}
		t.byResource[key] = append(t.byResource[key], a)
		t.groups[a.Group] = true
	}
	return t, nil
}

// Newest returns the newest minor whose APIs are known.
func (t *Table) Newest() Target { return Target{Minor: t.newest(), newest: t.newest()} }

func (t *Table) newest() int { return t.Minors[len(t.Minors)-1].Minor }

// planned returns the last minor of which a removal is announced.
func (t *Table) planned() int {
	last := t.newest()
	for i := range t.APIs {
		last = max(last, t.APIs[i].Removed)
	}
	return last
}

// Target reads a minor such as 1.36; a patch version behind it and a v before it are let pass.
func (t *Table) Target(text string) (Target, error) {
	parts := strings.Split(strings.TrimPrefix(text, "v"), ".")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "1" {
		return Target{}, fmt.Errorf("%q: want a minor version such as %s", text, t.Newest())
	}
	minor, err := strconv.ParseUint(parts[1], 10, 16)
	if err != nil {
		return Target{}, fmt.Errorf("%q: want a minor version such as %s", text, t.Newest())
	}
	target := Target{Minor: int(minor), newest: t.newest()}
	target.Partial = target.Minor > target.newest
	if target.Minor < t.Minors[0].Minor || target.Minor > t.planned() {
		return Target{}, fmt.Errorf("%q: %w: want one from %s to %s, or up to %s for what is announced", text, ErrUnknownMinor, name(t.Minors[0].Minor), t.Newest(), name(t.planned()))
	}
	return target, nil
}

// find returns the entries of a kind: several if the resource was renamed or its scope changed.
func (t *Table) find(of GVK) []*API { return t.byKind[of] }

// anyServed reports whether target serves one of them.
func anyServed(apis []*API, target Target) bool {
	return slices.ContainsFunc(apis, func(a *API) bool { return a.servedIn(target) })
}

// lastServed returns the newest known minor that served one of them.
func lastServed(apis []*API) int {
	last := 0
	for _, a := range apis {
		last = max(last, a.Served[len(a.Served)-1][1])
	}
	return last
}

// firstServed returns the first known minor that served one of them.
func firstServed(apis []*API) int {
	first := apis[0].Served[0][0]
	for _, a := range apis {
		first = min(first, a.Served[0][0])
	}
	return first
}

// instead returns what to write in place of a kind for target: what its authors name, followed as far as that is gone
// itself, else a version of the same group and kind. It prefers what is on by default, then the most stable version.
func (t *Table) instead(of GVK, target Target) (GVK, bool) {
	seen := map[GVK]bool{}
	for at := of; !seen[at]; {
		seen[at] = true
		for _, a := range t.find(at) {
			if a.Replacement != nil {
				at = *a.Replacement
			}
		}
		if at != of && slices.ContainsFunc(t.find(at), func(a *API) bool { return a.defaultIn(target) }) {
			return at, true
		}
	}
	var best *API
	for i := range t.APIs {
		a := &t.APIs[i]
		if a.Group != of.Group || a.Kind != of.Kind || a.gvk() == of || !a.servedIn(target) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(rank(a.defaultIn(target)), rank(best.defaultIn(target))), compareVersions(a.Version, best.Version)) > 0 {
			best = a
		}
	}
	if best == nil {
		return GVK{}, false
	}
	return best.gvk(), true
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compareVersions orders v1alpha1 < v1beta1 < v1beta2 < v1 < v2.
func compareVersions(a, b string) int {
	stage := func(v string) (int, int, int) {
		var major, minor int
		if n, _ := fmt.Sscanf(v, "v%dbeta%d", &major, &minor); n == 2 {
			return 1, major, minor
		}
		if n, _ := fmt.Sscanf(v, "v%dalpha%d", &major, &minor); n == 2 {
			return 0, major, minor
		}
		_, _ = fmt.Sscanf(v, "v%d", &major)
		return 2, major, 0
	}
	as, am, an := stage(a)
	bs, bm, bn := stage(b)
	return cmp.Or(cmp.Compare(as, bs), cmp.Compare(am, bm), cmp.Compare(an, bn))
}
