package apitest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/config"
)

func (s *server) testDefaults(t *testing.T) {
	tests := []struct {
		object string
		want   map[string]any
	}{
		{app("hello", "  route: {host: shop}"), map[string]any{
			"spec.onDelete": "KeepData", "spec.update.maxUnavailable": "10%", "spec.route.path": "/", "status.observedGeneration": int64(-1),
		}},
		{app("plain", ""), map[string]any{"spec.route": nil, "spec.process": nil, "spec.update.maxUnavailable": "10%"}},
		{"kind: Site\nmetadata: {name: bare}", map[string]any{"spec.zone": nil, "status.observedGeneration": int64(-1)}},
		{grant("namespaces: [a], sites: {}, runtimes: [process]"), map[string]any{"spec.host.root": false}},
	}
	for _, tt := range tests {
		u := object(t, tt.object)
		s.create(t, u)
		for path, want := range tt.want {
			got, _, err := unstructured.NestedFieldNoCopy(u.Object, strings.Split(path, ".")...)
			if err != nil || got != want {
				t.Errorf("%s %s: %s = %v, %v, want %v", u.GetKind(), u.GetName(), path, got, err, want)
			}
		}
	}
}

func (s *server) testImmutable(t *testing.T) {
	u := object(t, release("app: a, runtime: process, bundle: {repository: default/a, digest: '"+digest+"', size: 1}, env: {A: '1'}"))
	s.create(t, u)
	for path, value := range map[string]any{"spec.env.A": "2", "spec.runtime": "wasm", "spec.bundle.version": "2", "spec.route.path": "/x"} {
		changed := u.DeepCopy()
		if err := unstructured.SetNestedField(changed.Object, value, strings.Split(path, ".")...); err != nil {
			t.Fatal(err)
		}
		err := s.client.Update(t.Context(), changed)
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "a release never changes; change the app instead") {
			t.Errorf("a changed %s was answered with %v", path, err)
		}
	}
	labelled := u.DeepCopy()
	labelled.SetLabels(map[string]string{"ring": "canary"})
	if err := s.client.Update(t.Context(), labelled); err != nil {
		t.Errorf("a label is no content: %v", err)
	}
}

// testStatus writes spec and status through each other's door.
func (s *server) testStatus(t *testing.T) {
	for _, text := range []string{app("hello", ""), "kind: Site\nmetadata: {name: shop-1}"} {
		u := object(t, text)
		if err := unstructured.SetNestedField(u.Object, "9.9.9", "status", "version"); err != nil {
			t.Fatal(err)
		}
		s.create(t, u)
		version := func() string {
			v, _, _ := unstructured.NestedString(u.Object, "status", "version")
			return v
		}
		if got := version(); got != "" {
			t.Errorf("%s: who creates an object wrote its status: %q", u.GetKind(), got)
		}
		generation := u.GetGeneration()
		_ = unstructured.SetNestedField(u.Object, "1.0.0", "status", "version")
		if err := s.client.Status().Update(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		if got := version(); got != "1.0.0" || u.GetGeneration() != generation {
			t.Errorf("%s: status is %q at generation %d, want generation %d", u.GetKind(), got, u.GetGeneration(), generation)
		}
		_ = unstructured.SetNestedField(u.Object, "2.0.0", "status", "version")
		u.SetLabels(map[string]string{"a": "b"})
		if err := s.client.Update(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		if got := version(); got != "1.0.0" || u.GetLabels()["a"] != "b" {
			t.Errorf("%s: an update of the object wrote its status: %q", u.GetKind(), got)
		}
	}
}

// table asks for objects as kubectl does.
func (s *server) table(t *testing.T, resource string) metav1.Table {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	data, err := d.RESTClient().Get().AbsPath("/apis/skerry.dev/v1alpha1", resource).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(data, &table); err != nil {
		t.Fatal(err)
	}
	return table
}

func (s *server) testColumns(t *testing.T) {
	u := object(t, "kind: Site\nmetadata: {name: shop-1}\nspec: {zone: north}")
	s.create(t, u)
	status := map[string]any{
		"version": "1.2.3", "gateway": "http://127.0.0.1:8081", "observedGeneration": int64(1),
		"conditions": []any{map[string]any{
			"type": "Ready", "status": "True", "reason": "Connected", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z",
		}},
	}
	if err := unstructured.SetNestedMap(u.Object, status, "status"); err != nil {
		t.Fatal(err)
	}
	if err := s.client.Status().Update(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{ // wide ones in brackets
		"sites":      "Name Ready Link Belief Zone Version Agent URL (Arch) (Host) Age",
		"apps":       "Name Ready Version Sites Updated Healthy (Waiting) (Failed) (Release) (Message) Age",
		"releases":   "Name App Version Runtime (Bundle) Age",
		"siteclaims": "Name Fingerprint Hostname Arch From Decision Site (Member) Age",
		"sitegrants": "Name Namespaces Runtimes Root Age",
	}
	for resource, columns := range want {
		table := s.table(t, resource)
		var got []string
		for _, c := range table.ColumnDefinitions {
			name := c.Name
			if c.Priority > 0 {
				name = "(" + name + ")"
			}
			got = append(got, name)
		}
		if diff := cmp.Diff(columns, strings.Join(got, " ")); diff != "" {
			t.Errorf("columns of %s (-want +got):\n%s", resource, diff)
		}
		if resource == "sites" {
			if row := fmt.Sprint(table.Rows[0].Cells[:8]); row != "[shop-1 True Connected <nil> north 1.2.3 <nil> http://127.0.0.1:8081]" {
				t.Errorf("a site is shown as %s", row)
			}
		}
	}
}

// testNames finds every kind by what a person types.
func (s *server) testNames(t *testing.T) {
	d, err := discovery.NewDiscoveryClientForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	list, err := d.ServerResourcesForGroupVersion("skerry.dev/v1alpha1")
	if err != nil {
		t.Fatal(err)
	}
	namespaced := map[string]bool{"apps": true, "releases": true, "sites": false, "sitegrants": false, "siteclaims": false}
	short := map[string]string{}
	for _, r := range list.APIResources {
		want, ok := namespaced[r.Name]
		if !ok {
			continue // a subresource
		}
		delete(namespaced, r.Name)
		if r.Namespaced != want {
			t.Errorf("%s is namespaced: %v", r.Name, r.Namespaced)
		}
		if !slices.Contains(r.Categories, "skerry") {
			t.Errorf("`kubectl get skerry` does not show %s", r.Name)
		}
		for _, name := range append(r.ShortNames, r.SingularName) {
			if other, taken := short[name]; taken {
				t.Errorf("%s and %s are both called %s", other, r.Name, name)
			}
			short[name] = r.Name
		}
	}
	if len(namespaced) > 0 {
		t.Errorf("not served: %v", namespaced)
	}
	if short["rel"] != "releases" || short["sg"] != "sitegrants" {
		t.Errorf("short names are %v", short)
	}
}

// testExplained walks every field of every schema: `kubectl explain` must have something to say of it.
func (s *server) testExplained(t *testing.T) {
	entries, err := config.CRDs.ReadDir("crd")
	if err != nil || len(entries) < 4 {
		t.Fatalf("%d types are built in: %v", len(entries), err)
	}
	for _, e := range entries {
		data, err := config.CRDs.ReadFile("crd/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &crd); err != nil {
			t.Fatal(err)
		}
		for _, v := range crd.Spec.Versions {
			explained(t, crd.Spec.Names.Kind, v.Schema.OpenAPIV3Schema)
		}
		// What is built in is what the server serves.
		var served apiextensionsv1.CustomResourceDefinition
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
		if err := s.client.Get(t.Context(), client.ObjectKey{Name: crd.Name}, u); err != nil {
			t.Fatal(err)
		}
		raw, err := u.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &served); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(crd.Spec.Versions[0].Schema, served.Spec.Versions[0].Schema); diff != "" {
			t.Errorf("%s is served with another schema:\n%s", crd.Name, diff)
		}
	}
}

func explained(t *testing.T, path string, s *apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	for name, field := range s.Properties {
		at := path + "." + name
		// The server itself explains these two.
		if strings.HasSuffix(at, ".metadata") || strings.HasSuffix(at, ".apiVersion") || strings.HasSuffix(at, ".kind") {
			continue
		}
		if len(strings.Fields(field.Description)) < 3 {
			t.Errorf("%s is explained as %q", at, field.Description)
		}
		explained(t, at, &field)
	}
	if s.Items != nil && s.Items.Schema != nil {
		explained(t, path+"[]", s.Items.Schema)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		explained(t, path+"{}", s.AdditionalProperties.Schema)
	}
}
