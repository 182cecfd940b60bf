package apitest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// testValues wants values to be stored as they were written, null and unknown names included. (Applying at the
// client drops null before it is sent; see docs/spec/app.md.)
func (s *server) testValues(t *testing.T) {
	want := map[string]any{"a": nil, "b": int64(1), "c": map[string]any{"d": nil, "apiVersion": "x"}, "e": []any{nil, 1.5}}
	for name, write := range map[string]func(*unstructured.Unstructured) error{
		"create": func(u *unstructured.Unstructured) error { return s.client.Create(t.Context(), u) },
		"apply": func(u *unstructured.Unstructured) error {
			return s.client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("test"))
		},
	} {
		u := object(t, app("values-"+name, "  values: {a: null, b: 1, c: {d: null, apiVersion: x}, e: [null, 1.5]}"))
		if err := write(u); err != nil {
			t.Fatal(err)
		}
		// What the hub does meanwhile changes nothing of it.
		if err := s.client.Status().Patch(t.Context(), u, client.RawPatch(types.MergePatchType, []byte(`{"status":{"release":"x"}}`))); err != nil {
			t.Fatal(err)
		}
		if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(u), u); err != nil {
			t.Fatal(err)
		}
		got, _, err := unstructured.NestedMap(u.Object, "spec", "values")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
		if err := s.client.Delete(t.Context(), u); err != nil {
			t.Error(err)
		}
	}
}
