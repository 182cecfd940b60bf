package hub

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/internal/kubetest"
)

// TestMigrateStored moves a type from one storage version to the next, as a new release of the hub does.
func TestMigrateStored(t *testing.T) {
	api := kubetest.Start(t)
	scheme := runtime.NewScheme()
	noErr(t, apiextensionsv1.AddToScheme(scheme))
	noErr(t, metav1.AddMetaToScheme(scheme))
	c, err := client.New(api.Config, client.Options{Scheme: scheme})
	noErr(t, err)

	t.Run("each of our types is stored in one version", func(t *testing.T) {
		noErr(t, InstallTypes(t.Context(), api.Config))
		ours, err := typeDefinitions()
		noErr(t, err)
		for _, u := range ours {
			var crd apiextensionsv1.CustomResourceDefinition
			noErr(t, c.Get(t.Context(), client.ObjectKey{Name: u.GetName()}, &crd))
			if len(crd.Status.StoredVersions) != 1 {
				t.Errorf("%s is stored as %v", crd.Name, crd.Status.StoredVersions)
			}
		}
	})

	crd := gadgets("v1")
	noErr(t, c.Create(t.Context(), crd))
	before := map[string]string{}
	for i := range 5 {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"size": int64(i)}}}
		u.SetAPIVersion("test.skerry.dev/v1")
		u.SetKind("Gadget")
		u.SetName(fmt.Sprint("g", i))
		u.SetNamespace("default")
		awaitNoErr(t, func() error { return c.Create(t.Context(), u.DeepCopy()) })
		noErr(t, c.Get(t.Context(), client.ObjectKeyFromObject(u), u))
		before[u.GetName()] = u.GetResourceVersion()
	}
	noErr(t, c.Get(t.Context(), client.ObjectKeyFromObject(crd), crd))
	crd.Spec.Versions = gadgets("v2", "v1").Spec.Versions
	noErr(t, c.Update(t.Context(), crd))
	awaitNoErr(t, func() error { // the server serves the new version in a moment
		list := &unstructured.UnstructuredList{}
		list.SetAPIVersion("test.skerry.dev/v2")
		list.SetKind("GadgetList")
		return c.List(t.Context(), list)
	})

	noErr(t, migrateStored(t.Context(), c, crd.Name, 2))
	noErr(t, c.Get(t.Context(), client.ObjectKeyFromObject(crd), crd))
	if diff := cmp.Diff([]string{"v2"}, crd.Status.StoredVersions); diff != "" {
		t.Errorf("stored versions (-want +got):\n%s", diff)
	}
	crd.Spec.Versions = gadgets("v2").Spec.Versions
	if err := c.Update(t.Context(), crd); err != nil {
		t.Errorf("the old version cannot be taken away: %v", err)
	}
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion("test.skerry.dev/v2")
	list.SetKind("GadgetList")
	noErr(t, c.List(t.Context(), list))
	after := map[string]string{}
	for _, u := range list.Items {
		after[u.GetName()] = u.GetResourceVersion()
		if before[u.GetName()] == u.GetResourceVersion() {
			t.Errorf("%s was not written anew", u.GetName())
		}
	}
	if len(after) != len(before) {
		t.Errorf("there were %d objects and are %d", len(before), len(after))
	}
	noErr(t, migrateStored(t.Context(), c, crd.Name, 2))
	noErr(t, c.List(t.Context(), list))
	for _, u := range list.Items {
		if after[u.GetName()] != u.GetResourceVersion() {
			t.Errorf("%s was written although nothing was to do", u.GetName())
		}
	}
}

// gadgets is a type of these versions, of which the first is stored.
func gadgets(versions ...string) *apiextensionsv1.CustomResourceDefinition {
	keep := true
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "gadgets.test.skerry.dev"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "test.skerry.dev", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "gadgets", Singular: "gadget", Kind: "Gadget", ListKind: "GadgetList"},
		},
	}
	for i, v := range versions {
		crd.Spec.Versions = append(crd.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{
			Name: v, Served: true, Storage: i == 0,
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &keep}},
		})
	}
	return crd
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// awaitNoErr waits until a type that was just made or changed is served.
func awaitNoErr(t *testing.T, try func() error) {
	t.Helper()
	var err error
	if wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		err = try()
		return err == nil, nil
	}) != nil {
		t.Fatal(err)
	}
}
