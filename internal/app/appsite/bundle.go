package appsite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// errFetch marks errors about content that is not here yet: what was declared may well be right.
var errFetch = errors.New("content cannot be fetched")

// fetchTries bounds how often content that turns out corrupt on disk is fetched anew before giving up.
const fetchTries = 3

// release is everything that is needed to run a placement without asking anyone. It is stored.
type release struct {
	Placement app.Placement    `json:"placement"`
	Config    app.BundleConfig `json:"config"`
	// Manifest of this platform; it names the unpacked tree.
	Manifest fleet.Digest    `json:"manifest"`
	Layer    site.ContentRef `json:"layer"`
	// Blobs are all that must stay on disk for this release.
	Blobs []fleet.Digest `json:"blobs"`
}

func (r release) digest() fleet.Digest { return r.Placement.Digest }

func (r release) ref() app.ReleaseRef {
	return app.ReleaseRef{Release: r.Placement.Release, Version: r.Placement.Version, Digest: r.Placement.Digest}
}

func (r release) exclusive() bool { return r.Config.ExclusiveData() }

// fetcher turns a placement into a release.
type fetcher struct {
	content site.Content
	// keep is told every blob before it is fetched, so that it is not collected at once.
	keep func(...fleet.Digest) error
}

// release fetches what names the files of a placement, and the files, and checks all of it.
func (f fetcher) release(ctx context.Context, p app.Placement) (release, error) {
	rel := release{Placement: p}
	repository := p.Bundle.Repository
	index, err := f.index(ctx, p)
	if err != nil {
		return rel, err
	}
	ref, err := pickPlatform(index)
	if err != nil {
		return rel, err
	}
	var manifest ocispec.Manifest
	if err := f.document(ctx, repository, ref, &manifest); err != nil {
		return rel, fmt.Errorf("manifest: %w", err)
	}
	config, layer, err := checkManifest(manifest)
	if err != nil {
		return rel, err
	}
	rel.Manifest, rel.Layer = ref.Digest, layer
	rel.Blobs = []fleet.Digest{p.Bundle.Digest, ref.Digest, config.Digest, layer.Digest}
	if err := f.keep(rel.Blobs...); err != nil {
		return rel, err
	}
	data, err := f.blob(ctx, repository, config)
	if err != nil {
		return rel, fmt.Errorf("config: %w", err)
	}
	if rel.Config, err = app.ParseBundleConfig(data); err != nil {
		return rel, err
	}
	rel.Config.Defaults = nil // the hub has made the placement's configuration of them
	return rel, f.ensure(ctx, repository, layer)
}

func (f fetcher) index(ctx context.Context, p app.Placement) (ocispec.Index, error) {
	var index ocispec.Index
	ref := site.ContentRef{Digest: p.Bundle.Digest, Size: p.Bundle.Size, Manifest: true}
	if err := f.keep(ref.Digest); err != nil {
		return index, err
	}
	if err := f.document(ctx, p.Bundle.Repository, ref, &index); err != nil {
		return index, fmt.Errorf("index: %w", err)
	}
	if index.MediaType != ocispec.MediaTypeImageIndex {
		return index, fmt.Errorf("index: media type %q, want %q: %w", index.MediaType, ocispec.MediaTypeImageIndex, app.ErrBundle)
	}
	if len(index.Manifests) > app.MaxPlatforms {
		return index, fmt.Errorf("index: %d platforms, at most %d are allowed: %w", len(index.Manifests), app.MaxPlatforms, app.ErrBundle)
	}
	return index, nil
}

// pickPlatform finds the manifest for this machine, or the one of a wasm module, which every machine takes.
// One that is made for the machine comes first.
func pickPlatform(index ocispec.Index) (site.ContentRef, error) {
	var there []string
	for _, want := range [][2]string{{runtime.GOOS, runtime.GOARCH}, {app.PlatformWasmOS, app.PlatformWasmArch}} {
		there = nil
		for _, d := range index.Manifests {
			if d.Platform == nil {
				continue
			}
			if d.Platform.OS == want[0] && d.Platform.Architecture == want[1] {
				ref, err := contentRef(d, app.MaxManifestBytes)
				ref.Manifest = true
				return ref, err
			}
			there = append(there, d.Platform.OS+"/"+d.Platform.Architecture)
		}
	}
	slices.Sort(there)
	return site.ContentRef{}, fmt.Errorf("bundle has nothing for %s/%s; it has %s: %w",
		runtime.GOOS, runtime.GOARCH, strings.Join(there, ", "), app.ErrBundle)
}

func checkManifest(m ocispec.Manifest) (config, layer site.ContentRef, err error) {
	if m.Config.MediaType != app.MediaTypeConfig {
		return config, layer, fmt.Errorf("manifest: config has media type %q, want %q: %w", m.Config.MediaType, app.MediaTypeConfig, app.ErrBundle)
	}
	if len(m.Layers) != 1 || m.Layers[0].MediaType != app.MediaTypeFiles {
		return config, layer, fmt.Errorf("manifest: want one layer of media type %q: %w", app.MediaTypeFiles, app.ErrBundle)
	}
	if config, err = contentRef(m.Config, app.MaxConfigBytes); err != nil {
		return config, layer, fmt.Errorf("manifest: config: %w", err)
	}
	if layer, err = contentRef(m.Layers[0], app.MaxUnpackedBytes); err != nil {
		return config, layer, fmt.Errorf("manifest: layer: %w", err)
	}
	return config, layer, nil
}

func contentRef(d ocispec.Descriptor, limit int64) (site.ContentRef, error) {
	ref := site.ContentRef{Digest: fleet.Digest(d.Digest), Size: d.Size}
	if err := ref.Digest.Validate(); err != nil {
		return ref, fmt.Errorf("%w: %w", err, app.ErrBundle)
	}
	if d.Size <= 0 || d.Size > limit {
		return ref, fmt.Errorf("%s: %d bytes, want 1 to %d: %w", d.Digest, d.Size, limit, app.ErrBundle)
	}
	return ref, nil
}

func (f fetcher) document(ctx context.Context, repository string, ref site.ContentRef, v any) error {
	if err := f.keep(ref.Digest); err != nil {
		return err
	}
	data, err := f.blob(ctx, repository, ref)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w: %w", ref.Digest, err, app.ErrBundle)
	}
	return nil
}

func (f fetcher) ensure(ctx context.Context, repository string, ref site.ContentRef) error {
	if err := f.content.Ensure(ctx, repository, ref); err != nil {
		return fmt.Errorf("%s of %s: %w: %w", ref.Digest.Short(), repository, err, errFetch)
	}
	return nil
}

// blob returns a small blob, fetching it again when what is on disk is corrupt.
func (f fetcher) blob(ctx context.Context, repository string, ref site.ContentRef) ([]byte, error) {
	return again(ctx, f, repository, ref, func() ([]byte, error) { return f.content.Read(ref.Digest) })
}

// open returns the verified file of a blob, fetching it again when what is on disk is corrupt.
func (f fetcher) open(ctx context.Context, repository string, ref site.ContentRef) (io.ReadCloser, error) {
	return again(ctx, f, repository, ref, func() (io.ReadCloser, error) {
		path, err := f.content.Path(ref.Digest)
		if err != nil {
			return nil, err
		}
		return os.Open(path)
	})
}

// again fetches and reads until what is on disk is sound.
func again[T any](ctx context.Context, f fetcher, repository string, ref site.ContentRef, read func() (T, error)) (T, error) {
	var got T
	var err error
	for range fetchTries {
		if err = f.ensure(ctx, repository, ref); err != nil {
			return got, err
		}
		got, err = read()
		if err == nil || !errors.Is(err, fleet.ErrDigest) && !errors.Is(err, fs.ErrNotExist) {
			return got, err
		}
	}
	return got, fmt.Errorf("%s: corrupt %d times in a row: %w: %w", ref.Digest.Short(), fetchTries, err, errFetch)
}
