package v1alpha1_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skerry-dev/skerry/api/v1alpha1"
)

// TestKinds makes every kind through a scheme, as any client library does, and takes it through JSON and a
// deep copy.
func TestKinds(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for kind := range scheme.KnownTypes(v1alpha1.SchemeGroupVersion()) {
		object, err := scheme.New(v1alpha1.SchemeGroupVersion().WithKind(kind))
		if err != nil {
			t.Fatal(err)
		}
		if reflect.TypeOf(object).Elem().PkgPath() != reflect.TypeOf(v1alpha1.App{}).PkgPath() {
			continue // apimachinery's own, such as ListOptions
		}
		kinds = append(kinds, kind)
		fill(reflect.ValueOf(object).Elem(), 4)
		if again := object.DeepCopyObject(); !reflect.DeepEqual(object, again) {
			t.Errorf("%s: a deep copy differs", kind)
		}
		data, err := json.Marshal(object)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		decoded, err := scheme.New(v1alpha1.SchemeGroupVersion().WithKind(kind))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, decoded); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if again, err := json.Marshal(decoded); err != nil || string(again) != string(data) {
			t.Errorf("%s: what was written is read as something else: %v\n%s\n%s", kind, err, data, again)
		}
		if strings.Contains(string(data), `"Spec"`) || strings.Contains(string(data), `"Status"`) {
			t.Errorf("%s: a field lacks its JSON name: %s", kind, data)
		}
	}
	for _, want := range []string{"App", "AppList", "Release", "ReleaseList", "Site", "SiteGrant", "SiteGrantList", "SiteList"} {
		if !slices.Contains(kinds, want) {
			t.Errorf("kind %s is not registered", want)
		}
	}
	if gk := v1alpha1.SchemeGroupVersion().WithKind("App").GroupKind(); gk != (schema.GroupKind{Group: "skerry.dev", Kind: "App"}) {
		t.Errorf("group and kind are %s", gk)
	}
}

// fill gives every string, number and flag below v that has no rule of its own a value, and every pointer,
// slice and map one entry, down to depth.
func fill(v reflect.Value, depth int) {
	if depth == 0 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if raw, ok := v.Addr().Interface().(*runtime.RawExtension); ok {
			raw.Raw = []byte(`{"key":"value"}`)
		}
		if v.Type().PkgPath() != reflect.TypeOf(v1alpha1.App{}).PkgPath() {
			return // of Kubernetes: tested there
		}
		for i := range v.NumField() {
			fill(v.Field(i), depth)
		}
	case reflect.Pointer:
		if elem := v.Type().Elem(); elem.Kind() == reflect.Struct && elem.PkgPath() != reflect.TypeOf(v1alpha1.App{}).PkgPath() {
			return // an empty one of Kubernetes, such as a time, is written as none
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth-1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth-1)
	case reflect.Map:
		if v.Type().Key().Kind() == reflect.String && v.Type().Elem().Kind() == reflect.String {
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), reflect.ValueOf("value").Convert(v.Type().Elem()))
		}
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	}
}
