package apphub

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/appapi"
)

// indexConfigMap finds the apps that name a ConfigMap of their namespace.
const indexConfigMap = "spec.valuesFrom.configMapRef.name"

func configMapNames(o client.Object) []string {
	a, ok := o.(*v1alpha1.App)
	if !ok {
		return nil
	}
	var names []string
	for _, from := range a.Spec.ValuesFrom {
		names = append(names, from.ConfigMapRef.Name)
	}
	return names
}

// appsOfConfigMap lists the apps that name a ConfigMap.
func (r *reconciler) appsOfConfigMap(ctx context.Context, o client.Object) []reconcile.Request {
	return r.appsWhere(ctx, func(*v1alpha1.App) bool { return true },
		client.InNamespace(o.GetNamespace()), client.MatchingFields{indexConfigMap: o.GetName()})
}

// maxKeptConfigMaps bounds the ConfigMaps whose content is kept in memory. One has at most 1 MiB.
const maxKeptConfigMaps = 64

// configMaps reads ConfigMaps that apps name. Of all others only the metadata is watched: a cluster may hold
// many more than apps name. It is safe for concurrent use.
type configMaps struct {
	// metadata is kept current by a watch; live asks the API.
	metadata, live client.Reader

	mu   sync.Mutex
	kept map[types.NamespacedName]keptConfigMap
}

type keptConfigMap struct {
	version string
	data    map[string]string
}

// read returns the ConfigMaps that the app names and that are there.
func (c *configMaps) read(ctx context.Context, a *v1alpha1.App) (appapi.ConfigMaps, error) {
	out := appapi.ConfigMaps{}
	for _, name := range configMapNames(a) {
		key := types.NamespacedName{Namespace: a.Namespace, Name: name}
		data, err := c.get(ctx, key)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read ConfigMap %s: %w", key, err)
		}
		out[name] = data
	}
	return out, nil
}

func (c *configMaps) get(ctx context.Context, key types.NamespacedName) (map[string]string, error) {
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := c.metadata.Get(ctx, key, meta); err != nil {
		return nil, err
	}
	c.mu.Lock()
	have, ok := c.kept[key]
	c.mu.Unlock()
	if ok && have.version == meta.ResourceVersion {
		return have.data, nil
	}
	var m corev1.ConfigMap
	if err := c.live.Get(ctx, key, &m); err != nil {
		return nil, err
	}
	data := m.Data
	if data == nil {
		data = map[string]string{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for other := range c.kept {
		if len(c.kept) < maxKeptConfigMaps {
			break
		}
		delete(c.kept, other)
	}
	c.kept[key] = keptConfigMap{m.ResourceVersion, data}
	return data, nil
}
