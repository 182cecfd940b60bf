package ociregistry

import (
	"container/list"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skerry-dev/skerry/internal/fleet"
)

const (
	// maxClosures bounds the closures that are remembered.
	maxClosures = 512
	// maxReached bounds what one root may reach; a manifest that would reach more is refused.
	maxReached = 10_000
)

// errNoManifest is wrapped by errors about content that is sound but no manifest.
var errNoManifest = errors.New("not a manifest")

// errTooMany says that a root reaches more than maxReached.
var errTooMany = errors.New("too much content below one manifest")

// closure is everything that a root reaches, itself included.
type closure map[fleet.Digest]struct{}

// Reaches reports whether target is one of roots or stands below one: an index names manifests, a
// manifest its config and layers. Subjects are not followed: who may read a signature may not for that
// reason read what it signs. Content is immutable, so complete closures are remembered.
func (r *Registry) Reaches(roots []fleet.Digest, target fleet.Digest) bool {
	for _, root := range roots {
		if root == target {
			return true
		}
		if root.Validate() != nil {
			continue
		}
		c, err := r.closure(root)
		if err != nil {
			r.opts.Log.Warn("content below a root cannot be listed", "root", root, "error", err)
		}
		if _, ok := c[target]; ok {
			return true
		}
	}
	return false
}

// closure returns what root reaches as far as it is on disk. An error says that something on the way is
// there but cannot be read, or is known to be corrupt.
func (r *Registry) closure(root fleet.Digest) (closure, error) {
	if c, ok := r.closures.get(root); ok {
		return c, nil
	}
	c := closure{root: {}}
	complete := true
	var broken error
	for todo := []fleet.Digest{root}; len(todo) > 0; {
		next := todo[0]
		todo = todo[1:]
		content, err := r.content(next)
		switch {
		case errors.Is(err, errNoManifest), errors.Is(err, errTooLarge):
			// A root that is no manifest reaches itself alone.
		case errors.Is(err, fs.ErrNotExist) && !r.disk.quarantined(next):
			complete = false
		case err != nil:
			broken = errors.Join(broken, fmt.Errorf("manifest %s: %w", next, err))
		}
		for _, d := range content.children {
			if _, seen := c[d]; !seen {
				todo = append(todo, d)
			}
			c[d] = struct{}{}
		}
		for _, d := range content.leaves {
			c[d] = struct{}{}
		}
		if len(c) > maxReached {
			return c, errTooMany
		}
	}
	if complete && broken == nil {
		r.closures.put(root, c)
	}
	return c, broken
}

func (r *Registry) content(d fleet.Digest) (content, error) {
	body, err := r.disk.read(d, r.opts.MaxManifestBytes)
	if err != nil {
		return content{}, err
	}
	c, err := parseContentOf(body)
	if err != nil {
		return content{}, fmt.Errorf("%w: %w", errNoManifest, err)
	}
	return c, nil
}

// content is what a manifest names.
type content struct {
	mediaType    string
	artifactType string
	annotations  map[string]string
	children     []fleet.Digest // manifests
	leaves       []fleet.Digest // config and layers
	sizes        map[fleet.Digest]int64
	subject      fleet.Digest
}

// parseContentOf reads an image manifest or index; the two share their fields' names.
func parseContentOf(body []byte) (content, error) {
	var m struct {
		SchemaVersion int                  `json:"schemaVersion"`
		MediaType     string               `json:"mediaType"`
		ArtifactType  string               `json:"artifactType"`
		Annotations   map[string]string    `json:"annotations"`
		Manifests     []ocispec.Descriptor `json:"manifests"`
		Config        *ocispec.Descriptor  `json:"config"`
		Layers        []ocispec.Descriptor `json:"layers"`
		Subject       *ocispec.Descriptor  `json:"subject"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return content{}, err
	}
	if m.SchemaVersion != 2 {
		return content{}, fmt.Errorf("schemaVersion is %d, want 2", m.SchemaVersion)
	}
	c := content{
		mediaType: m.MediaType, artifactType: m.ArtifactType, annotations: m.Annotations,
		sizes: map[fleet.Digest]int64{},
	}
	if c.artifactType == "" && m.Config != nil {
		c.artifactType = m.Config.MediaType
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	var err error
	if c.children, err = c.digests("manifests", m.Manifests); err != nil {
		return content{}, err
	}
	if c.leaves, err = c.digests("layers and config", m.Layers); err != nil {
		return content{}, err
	}
	if m.Subject != nil {
		c.subject = fleet.Digest(m.Subject.Digest)
		err = c.subject.Validate()
	}
	return c, err
}

func (c content) digests(field string, list []ocispec.Descriptor) ([]fleet.Digest, error) {
	out := make([]fleet.Digest, 0, len(list))
	for i, desc := range list {
		d := fleet.Digest(desc.Digest)
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		c.sizes[d] = desc.Size
		out = append(out, d)
	}
	return out, nil
}

// touch begins the grace period of all that root reaches in repo anew. The caller holds sweep.
func (r *Registry) touch(repo string, root fleet.Digest) {
	c, err := r.closure(root)
	if err != nil {
		r.opts.Log.Warn("content below a manifest cannot be listed", "root", root, "error", err)
	}
	for d := range c {
		r.disk.touch(repo, d)
	}
}

// lru is a map that forgets what was not used for longest. It is safe for concurrent use.
type lru[K comparable, V any] struct {
	mu    sync.Mutex
	most  int
	order *list.List // of lruEntry, the newest in front
	byKey map[K]*list.Element
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](most int) *lru[K, V] {
	return &lru[K, V]{most: most, order: list.New(), byKey: map[K]*list.Element{}}
}

func (l *lru[K, V]) get(k K) (V, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byKey[k]
	if !ok {
		var zero V
		return zero, false
	}
	l.order.MoveToFront(e)
	return e.Value.(lruEntry[K, V]).value, true
}

func (l *lru[K, V]) put(k K, v V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byKey[k]; ok {
		e.Value = lruEntry[K, V]{k, v}
		l.order.MoveToFront(e)
		return
	}
	l.byKey[k] = l.order.PushFront(lruEntry[K, V]{k, v})
	if l.order.Len() > l.most {
		oldest := l.order.Back()
		delete(l.byKey, oldest.Value.(lruEntry[K, V]).key)
		l.order.Remove(oldest)
	}
}
