package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/upkeep"
	"github.com/skerry-dev/skerry/internal/upkeep/upkeephub"
)

// agents lets the hub half of agents' upgrades find agents in the hub's own registry.
type agents struct{ bundles *bundles }

// OnPush implements upkeephub.Agents.
func (a *agents) OnPush(fn func(repository string)) { a.bundles.OnPush(fn) }

// Resolve implements upkeephub.Agents: an agent is an index of one manifest a platform, of which each has one layer, the
// program.
func (a *agents) Resolve(_ context.Context, reference string) (upkeephub.Agent, error) {
	fail := func(err error) (upkeephub.Agent, error) {
		return upkeephub.Agent{}, fmt.Errorf("agent %s: %w", reference, err)
	}
	registry := a.bundles.registry
	d, err := registry.Resolve(upkeep.Repository, reference)
	if errors.Is(err, fs.ErrNotExist) {
		return fail(fmt.Errorf("%w: push it with `skerry site upgrade --from`", upkeephub.ErrNotFound))
	}
	if err != nil {
		return fail(err)
	}
	var index v1.Index
	if err := a.read(d.Digest, &index); err != nil {
		return fail(err)
	}
	out := upkeephub.Agent{Digest: d.Digest}
	for _, m := range index.Manifests {
		var manifest v1.Manifest
		if err := a.read(fleet.Digest(m.Digest), &manifest); err != nil {
			return fail(err)
		}
		if m.Platform == nil || len(manifest.Layers) != 1 || manifest.Layers[0].MediaType != upkeep.MediaTypeBinary {
			return fail(fmt.Errorf("manifest %s: want a platform and one layer of type %s: %w", m.Digest, upkeep.MediaTypeBinary, upkeephub.ErrInvalid))
		}
		layer := manifest.Layers[0]
		out.Binaries = append(out.Binaries, upkeep.Binary{Arch: m.Platform.Architecture, Digest: fleet.Digest(layer.Digest), Size: layer.Size})
	}
	if n := len(out.Binaries); n == 0 || n > upkeep.MaxBinaries {
		return fail(fmt.Errorf("%d programs, want 1 to %d: %w", n, upkeep.MaxBinaries, upkeephub.ErrInvalid))
	}
	return out, nil
}

func (a *agents) read(digest fleet.Digest, to any) error {
	data, _, err := a.bundles.registry.ReadManifest(upkeep.Repository, digest)
	if err != nil {
		return fmt.Errorf("read %s: %w", digest, err)
	}
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("read %s: %w: %w", digest, err, upkeephub.ErrInvalid)
	}
	return nil
}
