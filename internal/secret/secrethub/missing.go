package secrethub

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skerry-dev/skerry/internal/hub"
)

// knownKeys are the names of a Secret's keys at one version of it.
type knownKeys struct {
	uid     types.UID
	version string
	names   []string
}

// Missing says which Secret or key of uses is not there although it is not optional, with the next step;
// empty when all are.
func (f *Feature) Missing(ctx context.Context, uses []hub.SecretUse) (string, error) {
	for _, use := range uses {
		keys, found, err := f.keysOf(ctx, secretKey(use))
		if err != nil {
			return "", err
		}
		if use.Optional {
			continue
		}
		if !found {
			return fmt.Sprintf("there is no Secret %s in namespace %s: create it, or make the reference optional", use.Name, use.App.Namespace), nil
		}
		for _, key := range use.Keys {
			if !slices.Contains(keys, key) {
				return fmt.Sprintf("Secret %s in namespace %s has no key %q: add it, or make the reference optional", use.Name, use.App.Namespace, key), nil
			}
		}
	}
	return "", nil
}

// keysOf returns the names of a Secret's keys. The Secret is read only when it changed since the last time.
func (f *Feature) keysOf(ctx context.Context, key types.NamespacedName) (names []string, found bool, err error) {
	f.mu.Lock()
	known := f.keys[key]
	f.keys[key] = known // asked for from now on, so that its change is told
	f.mu.Unlock()
	meta, found, err := f.metadata(ctx, key)
	if err != nil || !found {
		return nil, false, err
	}
	if known.version != "" && known.uid == meta.UID && known.version == meta.ResourceVersion {
		return known.names, true, nil
	}
	secret, found, err := f.read(ctx, key)
	if err != nil || !found {
		return nil, false, err
	}
	defer wipe(secret)
	known = knownKeys{uid: secret.UID, version: secret.ResourceVersion}
	for name := range secret.Data {
		known.names = append(known.names, name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[key] = known
	return known.names, true, nil
}

// metadata returns what the cache knows of a Secret, which never holds its values.
func (f *Feature) metadata(ctx context.Context, key types.NamespacedName) (*metav1.PartialObjectMetadata, bool, error) {
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := f.host.Client.Get(ctx, key, meta)
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look for secret %s: %w", key, err)
	}
	return meta, true, nil
}

// read gets a Secret with its values, past every cache. The caller wipes it.
func (f *Feature) read(ctx context.Context, key types.NamespacedName) (*corev1.Secret, bool, error) {
	secret := &corev1.Secret{}
	err := f.fresh.Get(ctx, key, secret)
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read secret %s: %w", key, err)
	}
	return secret, true, nil
}

// wipe overwrites the values of a Secret that was read.
func wipe(secret *corev1.Secret) {
	for _, value := range secret.Data {
		clear(value)
	}
}
