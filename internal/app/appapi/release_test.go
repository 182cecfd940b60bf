package appapi_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/fleet"
)

const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

func hello() *v1alpha1.App {
	return &v1alpha1.App{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "hello", Generation: 3, ResourceVersion: "77", Annotations: map[string]string{"a": "b"}},
		Spec: v1alpha1.AppSpec{
			Source: v1alpha1.AppSource{Bundle: "hello:1.0.0"},
			Route:  &v1alpha1.Route{Host: "shop.example", Path: "/hello"},
			Env:    map[string]v1alpha1.EnvValue{"A": "1", "B": "2", "C": "3", "D": "4"},
		},
	}
}

func resolved() appapi.Resolved {
	return appapi.Resolved{
		Bundle: app.Bundle{Repository: "shop/hello", Digest: digest, Size: 10}, Version: "1.0.0",
		Config: app.BundleConfig{Runtime: app.RuntimeProcess},
	}
}

func freeze(t *testing.T, a *v1alpha1.App, r appapi.Resolved) *v1alpha1.Release {
	t.Helper()
	release, err := appapi.Freeze(a, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return release
}

func TestRepository(t *testing.T) {
	tests := []struct{ bundle, repository, reference, reason string }{
		{"hello:1.0.0", "shop/hello", "1.0.0", "a version is a tag"},
		{"hello@" + digest, "shop/hello", digest, "a digest is not cut at its own colon"},
		{"hello", "shop/hello", "", "the schema refuses this; it must not panic"},
	}
	for _, tt := range tests {
		a := hello()
		a.Spec.Source.Bundle = tt.bundle
		repository, reference := appapi.Repository(a)
		if repository != tt.repository || reference != tt.reference {
			t.Errorf("%s names %q, %q: %s", tt.bundle, repository, reference, tt.reason)
		}
	}
}

// TestFreezeNames changes each input of a release: what a site gets decides the name, and nothing else.
func TestFreezeNames(t *testing.T) {
	// The name is frozen: a hub of another version must not make every release anew, which would roll
	// everything out again.
	const want = "hello-bb552ca8d9"
	base := freeze(t, hello(), resolved())
	if base.Name != want || base.Namespace != "shop" {
		t.Errorf("release is %s/%s, want shop/%s", base.Namespace, base.Name, want)
	}
	tests := []struct {
		reason string
		same   bool
		change func(*v1alpha1.App, *appapi.Resolved)
	}{
		{"the same inputs", true, func(*v1alpha1.App, *appapi.Resolved) {}},
		{"metadata is not content", true, func(a *v1alpha1.App, _ *appapi.Resolved) {
			a.Generation, a.ResourceVersion, a.Annotations, a.Labels = 9, "99", nil, map[string]string{"x": "y"}
		}},
		{"where it runs is not content", true, func(a *v1alpha1.App, _ *appapi.Resolved) {
			a.Spec.Placement.Sites.MatchLabels = map[string]string{"kind": "shop"}
		}},
		{"how it is updated is not content", true, func(a *v1alpha1.App, _ *appapi.Resolved) {
			a.Spec.Update.MaxUnavailable = new(intstr.FromInt32(3))
		}},
		{"variables have no order", true, func(a *v1alpha1.App, _ *appapi.Resolved) {
			a.Spec.Env = map[string]v1alpha1.EnvValue{"D": "4", "C": "3", "B": "2", "A": "1"}
		}},
		{"other content", false, func(_ *v1alpha1.App, r *appapi.Resolved) { r.Bundle.Digest = fleet.DigestOf(nil) }},
		{"another version", false, func(_ *v1alpha1.App, r *appapi.Resolved) { r.Version = "1.0.1" }},
		{"another variable", false, func(a *v1alpha1.App, _ *appapi.Resolved) { a.Spec.Env["A"] = "x" }},
		{"another route", false, func(a *v1alpha1.App, _ *appapi.Resolved) { a.Spec.Route.Path = "/" }},
		{"no route", false, func(a *v1alpha1.App, _ *appapi.Resolved) { a.Spec.Route = nil }},
		{"root", false, func(a *v1alpha1.App, _ *appapi.Resolved) { a.Spec.Process = &v1alpha1.ProcessSpec{AllowRoot: true} }},
		{"another end", false, func(a *v1alpha1.App, _ *appapi.Resolved) { a.Spec.OnDelete = v1alpha1.RemoveData }},
		{"another app", false, func(a *v1alpha1.App, _ *appapi.Resolved) { a.Name = "hallo" }},
	}
	for _, tt := range tests {
		for range 5 { // maps have no order
			a, r := hello(), resolved()
			tt.change(a, &r)
			if got := freeze(t, a, r); (got.Name == base.Name) != tt.same {
				t.Errorf("release is %s, before %s: %s", got.Name, base.Name, tt.reason)
			}
		}
	}
	empty, none := hello(), hello()
	empty.Spec.Env, none.Spec.Env = map[string]v1alpha1.EnvValue{}, nil
	if freeze(t, empty, resolved()).Name != freeze(t, none, resolved()).Name {
		t.Error("an empty environment is another release than none")
	}
	long := hello()
	long.Name = strings.Repeat("a", 52)
	if got := freeze(t, long, resolved()).Name; len(got) > 63 {
		t.Errorf("a release's name of %d characters fits no label", len(got))
	}
}

func TestFreezeDoesNotShare(t *testing.T) {
	a := hello()
	a.Spec.Process = &v1alpha1.ProcessSpec{}
	release := freeze(t, a, resolved())
	before := release.DeepCopy()
	a.Spec.Env["A"], a.Spec.Route.Path, a.Spec.Process.AllowRoot = "changed", "/changed", true
	if diff := cmp.Diff(before, release); diff != "" {
		t.Errorf("changing the app changed what was frozen (-before +after):\n%s", diff)
	}
}

func TestRender(t *testing.T) {
	a := hello()
	a.Spec.Process, a.Spec.OnDelete = &v1alpha1.ProcessSpec{AllowRoot: true}, v1alpha1.RemoveData
	release := freeze(t, a, resolved())
	before := release.DeepCopy()
	got, err := appapi.Render(release, fleet.Facts{Name: "shop-1"})
	if err != nil {
		t.Fatal(err)
	}
	want := app.Placement{
		App: fleet.AppKey{Namespace: "shop", Name: "hello"}, Release: release.Name, Version: "1.0.0",
		Bundle: app.Bundle{Repository: "shop/hello", Digest: digest, Size: 10}, Route: &app.Route{Host: "shop.example", Path: "/hello"},
		Env: map[string]string{"A": "1", "B": "2", "C": "3", "D": "4"}, AllowRoot: true, RemoveData: true,
	}
	if err := want.Seal(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what a site gets differs (-want +got):\n%s", diff)
	}
	again, err := appapi.Render(release, fleet.Facts{Name: "shop-1"})
	if err != nil || again.Digest != got.Digest {
		t.Errorf("the same inputs give %s and %s: %v", got.Digest, again.Digest, err)
	}
	got.Env["A"], got.Route.Path = "changed", "/changed"
	if diff := cmp.Diff(before, release); diff != "" {
		t.Errorf("changing what was rendered changed the release (-before +after):\n%s", diff)
	}
	section := app.Section{Apps: []app.Placement{again}}
	data, err := section.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.DecodeSection(data); err != nil {
		t.Errorf("a site refuses what was rendered: %v", err)
	}
	bare := hello()
	bare.Spec.Route, bare.Spec.Env = nil, nil
	least, err := appapi.Render(freeze(t, bare, resolved()), fleet.Facts{})
	if err != nil || least.Route != nil || least.Env != nil || least.AllowRoot || least.RemoveData {
		t.Errorf("an app that asks for nothing gets %+v, %v", least, err)
	}
}

func TestFacts(t *testing.T) {
	site := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "shop-1", Labels: map[string]string{"kind": "shop"}}, Spec: v1alpha1.SiteSpec{Zone: "north"}}
	want := fleet.Facts{Name: "shop-1", Labels: map[string]string{"kind": "shop"}, Zone: "north"}
	if diff := cmp.Diff(want, appapi.Facts(site)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGranted(t *testing.T) {
	shops := metav1.LabelSelector{MatchLabels: map[string]string{"kind": "shop"}}
	broken := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "kind", Operator: "Like", Values: []string{"s*"}}}}
	grant := func(sites metav1.LabelSelector, root bool, runtime string, namespaces ...string) v1alpha1.SiteGrant {
		return v1alpha1.SiteGrant{Spec: v1alpha1.SiteGrantSpec{
			Namespaces: namespaces, Sites: sites, Runtimes: []string{runtime}, Host: v1alpha1.HostAccess{Root: root},
		}}
	}
	shop := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "shop-1", Labels: map[string]string{"kind": "shop"}}}
	gate := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "gate-1"}}
	tests := []struct {
		reason string
		grants []v1alpha1.SiteGrant
		site   *v1alpha1.Site
		root   bool
		want   bool
	}{
		{"without any grant nothing is allowed", nil, shop, false, false},
		{"a grant of this namespace, runtime and site", []v1alpha1.SiteGrant{grant(shops, false, "process", "default")}, shop, false, true},
		{"one of several namespaces", []v1alpha1.SiteGrant{grant(shops, false, "process", "other", "default")}, shop, false, true},
		{"every namespace", []v1alpha1.SiteGrant{grant(shops, false, "process", "*")}, shop, false, true},
		{"another namespace", []v1alpha1.SiteGrant{grant(shops, false, "process", "other")}, shop, false, false},
		{"a namespace that only begins alike", []v1alpha1.SiteGrant{grant(shops, false, "process", "default-2", "def")}, shop, false, false},
		{"another runtime", []v1alpha1.SiteGrant{grant(shops, false, "wasm", "default")}, shop, false, false},
		{"another site", []v1alpha1.SiteGrant{grant(shops, false, "process", "default")}, gate, false, false},
		{"every site", []v1alpha1.SiteGrant{grant(metav1.LabelSelector{}, false, "process", "default")}, gate, false, true},
		{"root needs a grant of its own", []v1alpha1.SiteGrant{grant(shops, false, "process", "default")}, shop, true, false},
		{"root is granted", []v1alpha1.SiteGrant{grant(shops, true, "process", "default")}, shop, true, true},
		{"root is no duty", []v1alpha1.SiteGrant{grant(shops, true, "process", "default")}, shop, false, true},
		{"two grants do not add up: root elsewhere is not root here", []v1alpha1.SiteGrant{
			grant(shops, false, "process", "default"), grant(shops, true, "wasm", "default"), grant(shops, true, "process", "other")}, shop, true, false},
		{"a selector that cannot be read grants nothing", []v1alpha1.SiteGrant{grant(broken, true, "process", "*")}, shop, false, false},
		{"a broken grant does not take another's away", []v1alpha1.SiteGrant{
			grant(broken, true, "process", "*"), grant(shops, false, "process", "default")}, shop, false, true},
	}
	for _, tt := range tests {
		if got := appapi.Granted(tt.grants, "default", "process", tt.root, tt.site); got != tt.want {
			t.Errorf("Granted = %v: %s", got, tt.reason)
		}
	}
}

func TestMaxUnavailable(t *testing.T) {
	tests := []struct {
		value  *intstr.IntOrString
		total  int
		want   int
		reason string
	}{
		{nil, 100, 10, "a tenth by default"},
		{nil, 11, 2, "rounded up"},
		{nil, 3, 1, "at least one, or nothing would ever change"},
		{nil, 0, 1, "of no sites too"},
		{new(intstr.FromString("1%")), 1000, 10, "a part"},
		{new(intstr.FromString("1%")), 1001, 11, "a part, rounded up"},
		{new(intstr.FromString("100%")), 7, 7, "all at once"},
		{new(intstr.FromInt32(4)), 100, 4, "a number"},
		{new(intstr.FromInt32(40)), 3, 40, "a number above all sites is all of them"},
		{new(intstr.FromInt32(0)), 3, 1, "none, which the schema refuses, would stop everything"},
		{new(intstr.FromInt32(-2)), 3, 1, "so would less"},
	}
	for _, tt := range tests {
		got, err := appapi.MaxUnavailable(v1alpha1.UpdatePolicy{MaxUnavailable: tt.value}, tt.total)
		if err != nil || got != tt.want {
			t.Errorf("MaxUnavailable(%v, %d) = %d, %v, want %d: %s", tt.value, tt.total, got, err, tt.want, tt.reason)
		}
	}
	if _, err := appapi.MaxUnavailable(v1alpha1.UpdatePolicy{MaxUnavailable: new(intstr.FromString("abc"))}, 3); err == nil || !strings.Contains(err.Error(), "maxUnavailable") {
		t.Errorf("a word was answered with %v", err)
	}
}
