package ociclient

import (
	"errors"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// copied is an index on its way from one registry to another. It hides from the client where its layers
// come from: within one registry it would mount them, and several mounts at once race within the client.
// It also marks errors of reading, so that they are not told as errors of writing.
type copied struct {
	anyIndex
	source operation
}

// anyIndex embeds without hiding the method that has the interface's name.
type anyIndex = v1.ImageIndex

// Image implements v1.ImageIndex.
func (c copied) Image(h v1.Hash) (v1.Image, error) {
	img, err := c.anyIndex.Image(h)
	if err != nil {
		return nil, c.source.explain(err)
	}
	return copiedImage{img, c.source}, nil
}

// ImageIndex implements v1.ImageIndex for an index within the index.
func (c copied) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	index, err := c.anyIndex.ImageIndex(h)
	if err != nil {
		return nil, c.source.explain(err)
	}
	return copied{index, c.source}, nil
}

type copiedImage struct {
	v1.Image
	source operation
}

// Layers implements v1.Image.
func (c copiedImage) Layers() ([]v1.Layer, error) {
	layers, err := c.Image.Layers()
	if err != nil {
		return nil, c.source.explain(err)
	}
	out := make([]v1.Layer, 0, len(layers))
	for _, l := range layers {
		out = append(out, c.wrap(l))
	}
	return out, nil
}

// ConfigLayer is what the client uploads as the config.
func (c copiedImage) ConfigLayer() (v1.Layer, error) {
	l, err := partial.ConfigLayer(c.Image)
	if err != nil {
		return nil, c.source.explain(err)
	}
	return c.wrap(l), nil
}

func (c copiedImage) wrap(l v1.Layer) v1.Layer {
	if m, ok := l.(*remote.MountableLayer); ok {
		l = m.Layer
	}
	return copiedLayer{l, c.source}
}

type copiedLayer struct {
	v1.Layer
	source operation
}

// Compressed implements v1.Layer.
func (c copiedLayer) Compressed() (io.ReadCloser, error) {
	rc, err := c.Layer.Compressed()
	if err != nil {
		return nil, c.source.explain(err)
	}
	return copiedReader{rc, c.source}, nil
}

type copiedReader struct {
	io.ReadCloser
	source operation
}

// Read implements io.Reader.
func (c copiedReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = c.source.explain(err)
	}
	return n, err
}
