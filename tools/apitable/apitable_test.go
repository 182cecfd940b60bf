package main

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"
)

// files makes a module of texts.
func files(of map[string]string) module {
	root := fstest.MapFS{}
	for name, text := range of {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return module{Name: "example.com/m@v1", Sum: "h1:x", root: root}
}

func TestDiscovery(t *testing.T) {
	got, err := readDiscovery(files(map[string]string{
		"api/discovery/apis__apps__v1.json": `{"kind":"APIResourceList","groupVersion":"apps/v1","resources":[
			{"name":"deployments","kind":"Deployment","namespaced":true},{"name":"deployments/scale","kind":"Scale","namespaced":true}]}`,
		"api/discovery/api__v1.json":          `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"nodes","kind":"Node"}]}`,
		"api/discovery/apis__apps.json":       `{"kind":"APIGroup"}`,
		"api/discovery/aggregated_v2.json":    `{"kind":"APIGroupDiscoveryList"}`,
		"api/openapi-spec/swagger.json":       `never read`,
		"api/discovery/README.md":             `nor this`,
		"api/discovery/apis__empty__v1.json":  `{"kind":"APIResourceList","groupVersion":"empty/v1"}`,
		"api/discovery/apis__other__v2a.json": `{"kind":"APIResourceList","groupVersion":"other/v2a","resources":[{"name":"x","kind":"X"}]}`,
	}))
	want := map[gvr]served{
		{"apps", "v1", "deployments"}: {kind: "Deployment", namespaced: true},
		{"", "v1", "nodes"}:           {kind: "Node"},
		{"other", "v2a", "x"}:         {kind: "X"},
	}
	if err != nil || !same(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := readDiscovery(files(map[string]string{"api/discovery/x.json": "{"})); err == nil {
		t.Error("a broken list was read")
	}
}

func same(a, b map[gvr]served) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

func TestOpenAPI(t *testing.T) {
	kind := func(group, version, kind string) string {
		return `{"x-kubernetes-group-version-kind":{"group":"` + group + `","version":"` + version + `","kind":"` + kind + `"}}`
	}
	got, err := readOpenAPI(files(map[string]string{"api/openapi-spec/swagger.json": `{"paths":{
		"/apis/apps/v1/":{"get":{}},
		"/apis/apps/v1/deployments":{"get":` + kind("apps", "v1", "Deployment") + `},
		"/apis/apps/v1/namespaces/{namespace}/deployments":{"get":` + kind("apps", "v1", "Deployment") + `,"post":` + kind("apps", "v1", "Deployment") + `,"parameters":[]},
		"/apis/apps/v1/namespaces/{namespace}/deployments/{name}":{"get":` + kind("apps", "v1", "Deployment") + `},
		"/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale":{"get":` + kind("autoscaling", "v1", "Scale") + `},
		"/apis/apps/v1/watch/deployments":{"get":` + kind("apps", "v1", "Deployment") + `},
		"/api/v1/nodes":{"get":` + kind("", "v1", "Node") + `},
		"/api/v1/namespaces/{namespace}/bindings":{"post":` + kind("", "v1", "Binding") + `}}}`}))
	want := map[gvr]served{
		{"apps", "v1", "deployments"}: {kind: "Deployment", namespaced: true},
		{"", "v1", "nodes"}:           {kind: "Node"},
		{"", "v1", "bindings"}:        {kind: "Binding", namespaced: true},
	}
	if err != nil || !same(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"{", `{"paths":{"/api/v1/nodes":{"get":` + kind("apps", "v1", "Node") + `}}}`} {
		if _, err := readOpenAPI(files(map[string]string{"api/openapi-spec/swagger.json": bad})); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

// source of the form that Kubernetes has, short.
const controlplane = `package controlplane
import (
	appsv1 "k8s.io/api/apps/v1"
	flowv1beta1 "k8s.io/kubernetes/pkg/apis/flowcontrol/v1beta1"
	apiv1 "k8s.io/api/core/v1"
)
var stable = []schema.GroupVersion{apiv1.SchemeGroupVersion, appsv1.SchemeGroupVersion}
var legacy = []schema.GroupVersionResource{flowv1beta1.SchemeGroupVersion.WithResource("flowschemas")}
func DefaultAPIResourceConfigSource() *serverstorage.ResourceConfig {
	ret := serverstorage.NewResourceConfig()
	ret.EnableVersions(stable...)
	ret.DisableVersions(flowv1beta1.SchemeGroupVersion)
	ret.EnableResources(legacy...)
	return ret
}
`

func TestDefaults(t *testing.T) {
	of := map[string]string{
		"pkg/apis/apps/register.go":        "package apps\nconst GroupName = \"apps\"\n",
		"pkg/apis/core/register.go":        "package core\nconst GroupName = \"\"\n",
		"pkg/apis/flowcontrol/register.go": "package flowcontrol\nconst GroupName = \"flowcontrol.apiserver.k8s.io\"\n",
		"pkg/controlplane/instance.go":     controlplane,
	}
	_, err := readDefaults(files(of))
	if err == nil || !strings.Contains(err.Error(), "only 3 versions") {
		t.Errorf("a source with so few versions was answered with %v", err)
	}
	// The same with enough of them.
	for i := range 20 {
		name := string(rune('a' + i))
		of["pkg/apis/"+name+"x/register.go"] = "package x\nconst GroupName = \"" + name + "\"\n"
		of["pkg/controlplane/instance.go"] = strings.Replace(strings.Replace(of["pkg/controlplane/instance.go"], "\n)", "\n\t"+name+" \"k8s.io/api/"+name+"x/v1\"\n)", 1),
			"stable = []schema.GroupVersion{", "stable = []schema.GroupVersion{"+name+".SchemeGroupVersion, ", 1)
	}
	d, err := readDefaults(files(of))
	if err != nil {
		t.Fatal(err)
	}
	for r, want := range map[gvr]bool{
		{"apps", "v1", "deployments"}: true,
		{"", "v1", "pods"}:            true,
		{"flowcontrol.apiserver.k8s.io", "v1beta1", "flowschemas"}:  true,
		{"flowcontrol.apiserver.k8s.io", "v1beta1", "others"}:       false,
		{"apiextensions.k8s.io", "v1", "customresourcedefinitions"}: true,
	} {
		if on, err := d.on(r); err != nil || on != want {
			t.Errorf("%v is on by default: %v, %v, want %v", r, on, err, want)
		}
	}
	if _, err := d.on(gvr{"new", "v1", "things"}); err == nil {
		t.Error("of a version that nothing says anything about something was said")
	}
	for old, bad := range map[string]string{
		"EnableVersions(stable...)": "EnableAllVersions(stable...)", "ret.DisableVersions(flowv1beta1.SchemeGroupVersion)": "ret.DisableVersions(flowv1beta1.Other)",
		"legacy...": "others...", "pkg/apis/flowcontrol/v1beta1": "pkg/apis/unknown/v1beta1",
	} {
		text := of["pkg/controlplane/instance.go"]
		of["pkg/controlplane/instance.go"] = strings.Replace(text, old, bad, 1)
		if _, err := readDefaults(files(of)); err == nil {
			t.Errorf("%s was read", bad)
		}
		of["pkg/controlplane/instance.go"] = text
	}
}

func TestMarkers(t *testing.T) {
	var b strings.Builder
	b.WriteString("package v1beta1\n")
	for i := range 50 {
		b.WriteString("func (in *K" + string(rune('A'+i%26)) + string(rune('a'+i/26)) + ") APILifecycleIntroduced() (major, minor int) { return 1, 3 }\n")
	}
	b.WriteString("func (in *KAa) APILifecycleDeprecated() (major, minor int) { return 1, 14 }\nfunc (in *KAa) APILifecycleRemoved() (major, minor int) { return 1, 22 }\n" +
		"func (in *KAa) APILifecycleReplacement() schema.GroupVersionKind { return schema.GroupVersionKind{Group: \"g\", Version: \"v1\", Kind: \"K\"} }\n")
	of := map[string]string{"g/v1beta1/register.go": "package v1beta1\nconst GroupName = \"g\"\n", "g/v1beta1/zz_generated.prerelease-lifecycle.go": b.String()}
	got, err := readMarkers(files(of))
	if err != nil {
		t.Fatal(err)
	}
	mark := got.of[gvk{"g", "v1beta1", "KAa"}]
	if mark.deprecated != 14 || mark.removed != 22 || mark.replacement == nil || *mark.replacement != (gvk{"g", "v1", "K"}) {
		t.Errorf("the marker is %+v", mark)
	}
	for old, bad := range map[string]string{"return 1, 22": "return 2, 0", "APILifecycleRemoved": "APILifecycleGone", `Kind: "K"`: "Kind: k"} {
		broken := map[string]string{"g/v1beta1/register.go": of["g/v1beta1/register.go"], "g/v1beta1/zz_generated.prerelease-lifecycle.go": strings.Replace(b.String(), old, bad, 1)}
		if _, err := readMarkers(files(broken)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestTable(t *testing.T) {
	beta, v1, gone := gvr{"apps", "v1beta1", "x"}, gvr{"apps", "v1", "x"}, gvr{"apps", "v1alpha1", "y"}
	minors := []minor{
		{number: 1, From: "openapi", resources: map[gvr]served{beta: {"X", true, true}, gone: {"Y", false, false}}},
		{number: 2, From: "openapi", resources: map[gvr]served{beta: {"X", true, false}, v1: {"X", true, true}}},
		{number: 3, From: "discovery", resources: map[gvr]served{beta: {"X", true, false}, v1: {"X", true, true}, gone: {"Y", false, false}}},
		{number: 4, From: "discovery", resources: map[gvr]served{beta: {"X", true, false}, v1: {"X", true, true}}},
	}
	marks := markers{of: map[gvk]marker{{"apps", "v1beta1", "X"}: {deprecated: 2, removed: 6, replacement: &gvk{"apps", "v1", "X"}}, {"apps", "v1alpha1", "Y"}: {removed: 9}}}
	data, err := encode(newTable(minors, marks))
	if err != nil {
		t.Fatal(err)
	}
	var got table
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	want := `[{"group":"apps","version":"v1","kind":"X","resource":"x","namespaced":true,"served":[[2,4]],"default":[[2,4]],"source":"discovery"},` +
		`{"group":"apps","version":"v1beta1","kind":"X","resource":"x","namespaced":true,"served":[[1,4]],"default":[[1,1]],"deprecated":2,"removed":6,"replacement":{"group":"apps","version":"v1","kind":"X"},"source":"markers"},` +
		`{"group":"apps","version":"v1alpha1","kind":"Y","resource":"y","served":[[1,1],[3,3]],"removed":4,"source":"discovery"}]`
	rows, err := json.Marshal(got.APIs)
	if err != nil || string(rows) != want {
		t.Errorf("got  %s, %v\nwant %s", rows, err, want)
	}
	if len(got.Minors) != 4 || got.Minors[3].Resources != 2 || got.Minors[0].Digest == got.Minors[1].Digest || len(got.Minors[0].Digest) != 64 {
		t.Errorf("minors are %+v", got.Minors)
	}
}
