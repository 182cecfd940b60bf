package bundle

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// errNoContainer answers what go-containerregistry may ask of container images alone.
var errNoContainer = errors.New("a bundle is not a container image")

// image is the bundle of one platform. It implements v1.Image, whose own types have no artifactType.
type image struct {
	manifest []byte
	config   []byte
	layer    layer
}

func newImage(config []byte, files packed, annotations map[string]string) (*image, error) {
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: app.MediaTypeBundle,
		Config:       ocispec.Descriptor{MediaType: app.MediaTypeConfig, Digest: digest.Digest(fleet.DigestOf(config)), Size: int64(len(config))},
		Layers:       []ocispec.Descriptor{{MediaType: app.MediaTypeFiles, Digest: digest.Digest(files.digest), Size: files.size}},
		Annotations:  annotations,
	})
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return &image{manifest: manifest, config: config, layer: layer{files}}, nil
}

func (i *image) descriptor(p Platform) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: app.MediaTypeBundle,
		Digest: digest.Digest(fleet.DigestOf(i.manifest)), Size: int64(len(i.manifest)),
		Platform: &ocispec.Platform{OS: p.OS, Architecture: p.Arch},
	}
}

// The methods of v1.Image.

func (i *image) Layers() ([]v1.Layer, error)         { return []v1.Layer{i.layer}, nil }
func (i *image) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (i *image) Size() (int64, error)                { return int64(len(i.manifest)), nil }
func (i *image) ConfigName() (v1.Hash, error)        { return hash(fleet.DigestOf(i.config)) }
func (i *image) ConfigFile() (*v1.ConfigFile, error) { return nil, errNoContainer }
func (i *image) RawConfigFile() ([]byte, error)      { return i.config, nil }
func (i *image) Digest() (v1.Hash, error)            { return hash(fleet.DigestOf(i.manifest)) }
func (i *image) Manifest() (*v1.Manifest, error) {
	return v1.ParseManifest(bytes.NewReader(i.manifest))
}
func (i *image) RawManifest() ([]byte, error)            { return i.manifest, nil }
func (i *image) LayerByDiffID(v1.Hash) (v1.Layer, error) { return nil, errNoContainer }

func (i *image) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if fleet.Digest(h.String()) == i.layer.digest {
		return i.layer, nil
	}
	return nil, fmt.Errorf("layer %s: %w", h, os.ErrNotExist)
}

// layer is the files of a bundle. It implements v1.Layer.
type layer struct{ packed }

func (l layer) Digest() (v1.Hash, error)            { return hash(l.digest) }
func (l layer) DiffID() (v1.Hash, error)            { return hash(l.diffID) }
func (l layer) Size() (int64, error)                { return l.size, nil }
func (l layer) MediaType() (types.MediaType, error) { return app.MediaTypeFiles, nil }
func (l layer) Compressed() (io.ReadCloser, error)  { return os.Open(l.file) }

// Uncompressed returns the archive; the caller closes it.
func (l layer) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(l.file)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{z, f}, nil
}

// index is a bundle for all its platforms. It implements v1.ImageIndex.
type index struct {
	manifest []byte
	images   map[v1.Hash]*image
}

func newIndex(platforms []Platform, images []*image, annotations map[string]string) (*index, error) {
	m := ocispec.Index{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageIndex,
		ArtifactType: app.MediaTypeBundle,
		Annotations:  annotations,
	}
	out := &index{images: map[v1.Hash]*image{}}
	for i, img := range images {
		m.Manifests = append(m.Manifests, img.descriptor(platforms[i]))
		h, err := img.Digest()
		if err != nil {
			return nil, err
		}
		out.images[h] = img
	}
	var err error
	out.manifest, err = json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	return out, nil
}

// The methods of v1.ImageIndex.

func (x *index) MediaType() (types.MediaType, error) { return types.OCIImageIndex, nil }
func (x *index) Digest() (v1.Hash, error)            { return hash(fleet.DigestOf(x.manifest)) }
func (x *index) Size() (int64, error)                { return int64(len(x.manifest)), nil }
func (x *index) RawManifest() ([]byte, error)        { return x.manifest, nil }

func (x *index) IndexManifest() (*v1.IndexManifest, error) {
	return v1.ParseIndexManifest(bytes.NewReader(x.manifest))
}

func (x *index) Image(h v1.Hash) (v1.Image, error) {
	if img, ok := x.images[h]; ok {
		return img, nil
	}
	return nil, fmt.Errorf("manifest %s: %w", h, os.ErrNotExist)
}

func (x *index) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	return nil, fmt.Errorf("index %s: %w", h, os.ErrNotExist)
}

func hash(d fleet.Digest) (v1.Hash, error) { return v1.NewHash(string(d)) }
