package apphub

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/kubetest"
)

// counted counts the reads of the API.
type counted struct {
	client.Reader
	reads int
}

func (c *counted) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	c.reads++
	return c.Reader.Get(ctx, key, o, opts...)
}

// TestConfigMapsAreReadOnce reads ConfigMaps of the real API: the content only when its version changed.
func TestConfigMapsAreReadOnce(t *testing.T) {
	c := hubtest.Client(t, kubetest.Start(t).Config)
	live := &counted{Reader: c}
	maps := &configMaps{metadata: c, live: live, kept: map[types.NamespacedName]keptConfigMap{}}
	a := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hello"}}
	for _, name := range []string{"one", "nobody", "empty", "one"} {
		a.Spec.ValuesFrom = append(a.Spec.ValuesFrom, v1alpha1.ValuesSource{ConfigMapRef: v1alpha1.ConfigMapValues{Name: name}})
	}
	read := func(want appapi.ConfigMaps, reads int, why string) {
		t.Helper()
		live.reads = 0
		got, err := maps.read(t.Context(), a)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", why, err, diff)
		}
		if live.reads != reads {
			t.Errorf("%s: the content was read %d times, want %d", why, live.reads, reads)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	create := func(name string, data map[string]string) *corev1.ConfigMap {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: data}
		must(c.Create(t.Context(), m))
		return m
	}
	read(appapi.ConfigMaps{}, 0, "none is there")
	one := create("one", map[string]string{"a": "1"})
	create("empty", nil)
	want := appapi.ConfigMaps{"one": {"a": "1"}, "empty": {}}
	read(want, 2, "two are new")
	read(want, 0, "nothing changed")
	one.Data["a"] = "2"
	must(c.Update(t.Context(), one))
	want["one"] = map[string]string{"a": "2"}
	read(want, 1, "one changed")
	must(c.Delete(t.Context(), one))
	delete(want, "one")
	read(want, 0, "one is gone")
	for n := range maxKeptConfigMaps + 5 {
		name := fmt.Sprintf("many-%d", n)
		create(name, nil)
		if _, err := maps.get(t.Context(), types.NamespacedName{Namespace: "default", Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if len(maps.kept) > maxKeptConfigMaps {
		t.Errorf("%d are kept", len(maps.kept))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := maps.read(ended, a); err == nil || apierrors.IsNotFound(err) {
		t.Errorf("an API that does not answer is taken for one without ConfigMaps: %v", err)
	}
}
