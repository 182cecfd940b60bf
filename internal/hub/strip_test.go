package hub

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestCachedMetadataHoldsNoValues is of what kubectl apply leaves on a Secret: its values, in an annotation.
func TestCachedMetadataHoldsNoValues(t *testing.T) {
	applied := map[string]string{corev1.LastAppliedConfigAnnotation: `{"stringData":{"password":"hunter2"}}`}
	fields := []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	got, err := strip(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "db", ResourceVersion: "7", Annotations: applied, ManagedFields: fields}})
	if err != nil {
		t.Fatal(err)
	}
	want := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "db", ResourceVersion: "7"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	whole, err := strip(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Annotations: applied, ManagedFields: fields}})
	if err != nil {
		t.Fatal(err)
	}
	if cm := whole.(*corev1.ConfigMap); len(cm.Annotations) != 1 || cm.ManagedFields != nil {
		t.Errorf("a whole object became %+v", cm)
	}
}
