package appsite_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	httpgateway "github.com/skerry-dev/skerry/internal/gateway/http"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
)

var helloKey = fleet.AppKey{Namespace: "default", Name: "hello"}

// box is a site without an agent: a disk, a registry, a gateway, and the module in its newest life.
type box struct {
	t       *testing.T
	dir     string
	store   *store.Store
	content *dirContent
	router  *notingRouter
	calls   *callTable
	local   *http.ServeMux
	metrics *prometheus.Registry
	module  *appsite.Module
	events  eventList
}

// eventList remembers what happened, as "class Reason".
type eventList struct {
	mu    sync.Mutex
	lines []string
}

func (l *eventList) Add(e fleet.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(e.Class)+" "+e.Reason)
}

// take returns what happened since it was last asked.
func (l *eventList) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

func newBox(t *testing.T) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "skerry-apps-") // testing's own directories are closed to apps' users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &box{t: t, dir: dir, content: &dirContent{dir: filepath.Join(dir, "content"), remote: map[fleet.Digest][]byte{}, keep: map[string][]fleet.Digest{}}}
	b.content.online(true)
	return b
}

// boot begins a life of the module on the box's disk.
func (b *box) boot(opts appsite.Options, runtimes func(*store.Bucket) []appsite.Runtime) {
	b.t.Helper()
	st, err := store.Open(filepath.Join(b.dir, "store.db"))
	if err != nil {
		b.t.Fatal(err)
	}
	bucket := func(name string) *store.Bucket {
		bk, err := st.Bucket(name)
		if err != nil {
			b.t.Fatal(err)
		}
		return bk
	}
	g, err := httpgateway.New(httpgateway.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.store, b.router = st, &notingRouter{Gateway: g}
	b.calls, b.local, b.metrics = &callTable{}, http.NewServeMux(), prometheus.NewRegistry()
	own := filepath.Join(b.dir, "apps")
	if err := os.MkdirAll(own, 0o700); err != nil {
		b.t.Fatal(err)
	}
	b.module = appsite.NewWith(&site.Host{
		Name: "shop-1", Dir: own, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil)), Metrics: b.metrics,
		Bucket: bucket("apps"), Content: b.content, Router: b.router,
		Changed: func() {}, Events: &b.events, Local: b.local, Calls: b.calls,
	}, opts, runtimes(bucket("runtime"))...)
	if err := b.module.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// halt ends the life.
func (b *box) halt() {
	b.t.Helper()
	if err := b.module.Stop(context.Background()); err != nil {
		b.t.Error(err)
	}
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
}

// apply directs the module to the placements.
func (b *box) apply(placements ...app.Placement) {
	b.t.Helper()
	body, err := app.Section{
		Facts: fleet.Facts{Name: "shop-1", Zone: "north", Labels: map[string]string{"kind": "shop", "example.com/floor-2": "yes"}},
		Apps:  placements,
	}.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.module.Apply(b.t.Context(), body, fleet.Facts{}); err != nil {
		b.t.Fatal(err)
	}
}

// report returns the only app's report.
func (b *box) report() app.AppReport {
	b.t.Helper()
	r := b.module.Report().(app.Report)
	if len(r.Apps) != 1 {
		b.t.Fatalf("want one app, report is %+v", r)
	}
	return r.Apps[0]
}

// bundle is what a test pushes.
type bundle struct {
	config   app.BundleConfig
	files    map[string]string
	platform ocispec.Platform
}

// push puts a bundle of the given version into the registry and returns a placement of it, with the route
// "/hello".
func (b *box) push(version string, edit func(*bundle)) app.Placement {
	b.t.Helper()
	bd := bundle{
		config: app.BundleConfig{Name: "hello", Version: version, Runtime: app.RuntimeProcess,
			Process: &app.ProcessConfig{Command: []string{"bin/app"}, Env: map[string]string{"VERSION": version}}},
		files:    map[string]string{"bin/app": "program " + version, "share/page.html": "page " + version},
		platform: ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH},
	}
	if edit != nil {
		edit(&bd)
	}
	config := b.content.add(b.t, bd.config)
	layer := b.content.addBytes(packed(b.t, bd.files))
	descriptor := func(mediaType string, ref site.ContentRef) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(ref.Digest), Size: ref.Size}
	}
	manifest := descriptor(ocispec.MediaTypeImageManifest, b.content.add(b.t, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: descriptor(app.MediaTypeConfig, config),
		Layers: []ocispec.Descriptor{descriptor(app.MediaTypeFiles, layer)},
	}))
	manifest.Platform = &bd.platform
	index := b.content.add(b.t, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{manifest}})
	p := app.Placement{
		App: helloKey, Release: "hello-" + version, Version: version,
		Bundle: app.Bundle{Repository: "default/hello", Digest: index.Digest, Size: index.Size},
		Route:  &app.Route{Path: "/hello"},
	}
	return sealed(b.t, p)
}

func sealed(t *testing.T, p app.Placement) app.Placement {
	t.Helper()
	if err := p.Seal(); err != nil {
		t.Fatal(err)
	}
	return p
}

// packed is a tar archive, compressed with gzip; what lies in bin is executable.
func packed(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		mode := int64(0o600)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o700
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(files[name])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// dirContent is a site.Content of a directory and a registry that can be out of reach.
type dirContent struct {
	dir string

	mu     sync.Mutex
	remote map[fleet.Digest][]byte
	keep   map[string][]fleet.Digest
	// link closes when the registry is in reach.
	link    chan struct{}
	fetched int
}

func (c *dirContent) online(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = make(chan struct{})
	if on {
		close(c.link)
	}
}

func (c *dirContent) add(t *testing.T, v any) site.ContentRef {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return c.addBytes(data)
}

func (c *dirContent) addBytes(data []byte) site.ContentRef {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := fleet.DigestOf(data)
	c.remote[d] = data
	return site.ContentRef{Digest: d, Size: int64(len(data))}
}

func (c *dirContent) file(d fleet.Digest) string { return filepath.Join(c.dir, d.Hex()) }

// Ensure implements site.Content.
func (c *dirContent) Ensure(ctx context.Context, _ string, refs ...site.ContentRef) error {
	for _, ref := range refs {
		if _, err := os.Stat(c.file(ref.Digest)); err == nil {
			continue
		}
		c.mu.Lock()
		link, data := c.link, c.remote[ref.Digest]
		c.mu.Unlock()
		select {
		case <-link:
		case <-ctx.Done():
			return ctx.Err()
		}
		if data == nil || int64(len(data)) != ref.Size {
			return fmt.Errorf("registry has no %s", ref.Digest)
		}
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(c.file(ref.Digest), data, 0o600); err != nil {
			return err
		}
		c.mu.Lock()
		c.fetched++
		c.mu.Unlock()
	}
	return nil
}

// Read implements site.Content.
func (c *dirContent) Read(d fleet.Digest) ([]byte, error) {
	data, err := os.ReadFile(c.file(d))
	if err != nil {
		return nil, err
	}
	if err := d.Check(data); err != nil {
		return nil, errors.Join(err, os.Remove(c.file(d)))
	}
	return data, nil
}

// Path implements site.Content.
func (c *dirContent) Path(d fleet.Digest) (string, error) {
	_, err := c.Read(d)
	return c.file(d), err
}

// Keep implements site.Content; what nobody names is collected at once, which is as soon as can be.
func (c *dirContent) Keep(owner string, digests []fleet.Digest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep[owner] = slices.Clone(digests)
	needed := map[string]bool{}
	for _, list := range c.keep {
		for _, d := range list {
			needed[d.Hex()] = true
		}
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !needed[e.Name()] {
			if err := os.Remove(filepath.Join(c.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *dirContent) fetches() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fetched
}

// notingRouter is the real gateway, and a note of every route it was told.
type notingRouter struct {
	*httpgateway.Gateway
	mu    sync.Mutex
	notes []site.Route
}

func (r *notingRouter) Set(key fleet.AppKey, route site.Route) {
	r.Gateway.Set(key, route)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, route)
}

func (r *notingRouter) Remove(key fleet.AppKey) {
	r.Gateway.Remove(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, site.Route{Release: "removed"})
}

// last is the newest route.
func (r *notingRouter) last() site.Route {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.notes) == 0 {
		return site.Route{}
	}
	return r.notes[len(r.notes)-1]
}

// story is every route since the last call, in short.
func (r *notingRouter) story() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, n := range r.notes {
		out = append(out, strings.TrimSpace(n.Release+" "+[]string{"starting", "ready", "held", "down"}[n.State]))
	}
	r.notes = nil
	return out
}

// callTable is a site.Calls that tests call.
type callTable struct {
	streams map[string]func(context.Context, json.RawMessage, site.Stream) error
}

func (c *callTable) Handle(string, func(context.Context, json.RawMessage) (any, error)) {}

func (c *callTable) HandleStream(method string, fn func(context.Context, json.RawMessage, site.Stream) error) {
	if c.streams == nil {
		c.streams = map[string]func(context.Context, json.RawMessage, site.Stream) error{}
	}
	c.streams[method] = fn
}
