package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/apphub"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/ociregistry"
)

// bundles lets the hub half of apps find bundles in the hub's own registry.
type bundles struct {
	registry *ociregistry.Registry

	mu     sync.Mutex
	pushed []func(repository string)
}

// OnPush implements apphub.Bundles.
func (b *bundles) OnPush(fn func(repository string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pushed = append(b.pushed, fn)
}

func (b *bundles) tellPushed(repository string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fn := range b.pushed {
		fn(repository)
	}
}

// Resolve implements apphub.Bundles.
func (b *bundles) Resolve(_ context.Context, repository, reference string) (appapi.Resolved, error) {
	d, err := b.registry.Resolve(repository, reference)
	if errors.Is(err, fs.ErrNotExist) {
		return appapi.Resolved{}, fmt.Errorf("%s:%s: %w", repository, reference, apphub.ErrBundleNotFound)
	}
	if err != nil {
		return appapi.Resolved{}, fmt.Errorf("resolve %s:%s: %w", repository, reference, err)
	}
	config, err := b.config(repository, d.Digest)
	if err != nil {
		return appapi.Resolved{}, err
	}
	version := reference
	if strings.HasPrefix(reference, "sha256:") {
		version = config.Version
	}
	return appapi.Resolved{
		Bundle:  app.Bundle{Repository: repository, Digest: d.Digest, Size: d.Size},
		Version: version, Config: config,
	}, nil
}

// config reads how a bundle is run. Every platform's manifest of a bundle carries the same configuration;
// the first one's is read.
func (b *bundles) config(repository string, digest fleet.Digest) (app.BundleConfig, error) {
	invalid := func(err error) (app.BundleConfig, error) {
		return app.BundleConfig{}, fmt.Errorf("%s@%s: %w: %w", repository, digest, err, apphub.ErrBundleInvalid)
	}
	data, _, err := b.registry.ReadManifest(repository, digest)
	if err != nil {
		return app.BundleConfig{}, fmt.Errorf("read bundle %s@%s: %w", repository, digest, err)
	}
	var index v1.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return invalid(err)
	}
	if index.ArtifactType != app.MediaTypeBundle || len(index.Manifests) == 0 {
		return invalid(fmt.Errorf("artifact type is %q, want %s: push it with `skerry push`", index.ArtifactType, app.MediaTypeBundle))
	}
	data, _, err = b.registry.ReadManifest(repository, fleet.Digest(index.Manifests[0].Digest))
	if err != nil {
		return app.BundleConfig{}, fmt.Errorf("read bundle %s@%s: %w", repository, digest, err)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return invalid(err)
	}
	if manifest.Config.MediaType != app.MediaTypeConfig {
		return invalid(fmt.Errorf("media type of config is %q, want %s", manifest.Config.MediaType, app.MediaTypeConfig))
	}
	data, err = b.registry.ReadBlob(repository, fleet.Digest(manifest.Config.Digest), app.MaxConfigBytes)
	if err != nil {
		return app.BundleConfig{}, fmt.Errorf("read bundle %s@%s: %w", repository, digest, err)
	}
	config, err := app.ParseBundleConfig(data)
	if err != nil {
		return invalid(err)
	}
	return config, nil
}
