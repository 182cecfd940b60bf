package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// migratePage is how many objects are listed at a time.
const migratePage = 500

// migrateStored writes every object of a type anew that may be stored in another version than the type's
// storage version, and then takes the other versions from the type's status: only so may a later release stop
// to serve them. It does nothing when all is stored in one version. A kill on the way costs nothing but doing it
// again.
func migrateStored(ctx context.Context, c client.Client, name string, page int64) error {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := c.Get(ctx, client.ObjectKey{Name: name}, &crd); err != nil {
		return fmt.Errorf("read type %s: %w", name, err)
	}
	i := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Storage })
	if i < 0 {
		return fmt.Errorf("type %s: no version is the storage version", name)
	}
	want := crd.Spec.Versions[i].Name
	if slices.Equal(crd.Status.StoredVersions, []string{want}) {
		return nil
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: crd.Spec.Group, Version: want, Kind: crd.Spec.Names.ListKind})
	for {
		if err := c.List(ctx, list, client.Limit(page), client.Continue(list.Continue)); err != nil {
			return fmt.Errorf("list objects of type %s: %w", name, err)
		}
		for i := range list.Items {
			if err := rewrite(ctx, c, &list.Items[i]); err != nil {
				return fmt.Errorf("store %s %s/%s as %s: %w", name, list.Items[i].Namespace, list.Items[i].Name, want, err)
			}
		}
		if list.Continue == "" {
			break
		}
	}
	crd.Status.StoredVersions = []string{want}
	if err := c.Status().Update(ctx, &crd); err != nil {
		return fmt.Errorf("type %s: note that all is stored as %s: %w", name, want, err)
	}
	return nil
}

// rewrite makes the API server write an object as it is. It does so only where that changes what is stored: the
// version. An object that somebody else wrote or removed meanwhile needs it no more.
func rewrite(ctx context.Context, c client.Client, o *metav1.PartialObjectMetadata) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.UID, "resourceVersion": o.ResourceVersion}})
	if err != nil {
		return err
	}
	err = c.Patch(ctx, o, client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
