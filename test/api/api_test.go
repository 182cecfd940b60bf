package apitest

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/kubetest"
)

// server is the API server that all tests of this package share, with the types installed.
type server struct {
	config *rest.Config
	client client.Client
}

func TestAPI(t *testing.T) {
	api := kubetest.Start(t)
	if err := hub.InstallTypes(t.Context(), api.Config); err != nil {
		t.Fatal(err)
	}
	scheme, err := hub.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(api.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{config: api.Config, client: c}
	t.Run("values", s.testValues)
	t.Run("refused", s.testRefused)
	t.Run("accepted", s.testAccepted)
	t.Run("defaults", s.testDefaults)
	t.Run("release is immutable", s.testImmutable)
	t.Run("status is apart", s.testStatus)
	t.Run("columns", s.testColumns)
	t.Run("names", s.testNames)
	t.Run("explained", s.testExplained)
	t.Run("health", s.testHealth)
}

// object reads one object in YAML.
func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	u.SetAPIVersion("skerry.dev/v1alpha1")
	if u.GetNamespace() == "" && (u.GetKind() == "App" || u.GetKind() == "Release") {
		u.SetNamespace(metav1.NamespaceDefault)
	}
	return u
}

// create makes an object that ends with the test.
func (s *server) create(t *testing.T, u *unstructured.Unstructured) {
	t.Helper()
	if err := s.client.Create(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.client.Delete(context.Background(), u) })
}
