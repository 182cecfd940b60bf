package hub

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// SecretUse says that an app needs a Secret of its own namespace. It holds names alone.
type SecretUse struct {
	App  fleet.AppKey
	Name string
	// Keys in order and each once; none means all.
	Keys []string
	// Optional says that the app runs without what is missing.
	Optional bool
}

// cached is what objects are reduced to before the hub keeps them in memory. Managed fields are half an
// object's size and nothing reads them. What is watched by its metadata alone loses its annotations too:
// kubectl keeps what was last applied in one, of a Secret its values in the clear.
func cached(obj any) (any, error) {
	if m, ok := obj.(*metav1.PartialObjectMetadata); ok {
		m.Annotations = nil
	}
	return cache.TransformStripManagedFields()(obj)
}
