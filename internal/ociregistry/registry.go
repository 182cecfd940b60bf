// Package ociregistry is the hub's own registry: an OCI distribution (v1.1) server over one directory.
//
// It is a driver: the hub's composition root opens it, mounts it under /v2/ and hands in who may do what;
// nothing at a site imports it. It imports the kernel, the types of the image specification and Prometheus.
//
// It is written here because the registry of go-containerregistry keeps manifests, tags and uploads in
// memory, serves content without verifying it, writes blobs without syncing them, and has neither
// authorization, immutable tags, expiring uploads nor collection, which are what a hub needs.
//
// Below its directory it keeps
//
//	blobs/sha256/<hex>                         content of every repository, once, mode 0400
//	repos/<namespace>/<name>/_blobs/<hex>      "this repository has this blob"
//	repos/<namespace>/<name>/_manifests/<hex>  the same for a manifest; holds its media type
//	repos/<namespace>/<name>/_tags/<tag>       holds a digest
//	repos/<namespace>/<name>/_referrers/<hex of subject>/<hex>
//	quarantine/<hex>                           content that did not match its name
//	tmp/                                       uploads; emptied by Open
//
// Content reaches its name only complete, verified and synced, so a kill at any instruction leaves
// nothing but files in tmp. Content is verified again when it is read: what does not match is set aside,
// counted, and answered as unknown, so that the next push brings it back.
//
// Errors of the in-process methods wrap fs.ErrNotExist for what is not there, fleet.ErrDigest for what
// is corrupt, and ErrReference for a malformed name.
package ociregistry

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Options of a Registry. The zero value refuses every request, and has the default bounds.
type Options struct {
	// Authorizer decides about each request; nil refuses all.
	Authorizer Authorizer
	// Challenge is the WWW-Authenticate header of a 401; empty means Basic.
	Challenge string
	// MutableTags lets a tag be moved to other content.
	MutableTags bool
	// MaxBlobBytes bounds one blob, MaxManifestBytes one manifest; zero means 4 GiB and 4 MiB.
	MaxBlobBytes     int64
	MaxManifestBytes int64
	// MaxUploads bounds the uploads that are open at once; zero means 64.
	MaxUploads int
	// UploadTTL is how long an upload may rest between two requests; zero means an hour.
	UploadTTL time.Duration
	// Log takes what the administrator should know; nil discards it.
	Log *slog.Logger
	// Metrics is where the registry's metrics are registered; nil leaves them unregistered.
	Metrics prometheus.Registerer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (o *Options) setDefaults() {
	if o.Challenge == "" {
		o.Challenge = `Basic realm="skerry"`
	}
	if o.MaxBlobBytes == 0 {
		o.MaxBlobBytes = 4 << 30
	}
	if o.MaxManifestBytes == 0 {
		o.MaxManifestBytes = 4 << 20
	}
	if o.MaxUploads == 0 {
		o.MaxUploads = 64
	}
	if o.UploadTTL == 0 {
		o.UploadTTL = time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Registry is an open registry. All methods are safe for concurrent use. One process at a time may have
// a directory open; the hub's lock on its data directory sees to that.
type Registry struct {
	opts     Options
	disk     *disk
	uploads  *uploads
	closures *lru[fleet.Digest, closure]
	metrics  *metrics
	handlers map[kind]map[string]handler

	// sweep is held for reading while something is linked, touched or tagged, and for writing while
	// Collect removes one thing: what is being named is never removed under it.
	sweep sync.RWMutex
	// tags serializes looking at a tag and writing it. It is taken after sweep.
	tags sync.Mutex
	// collecting lets one Collect run at a time.
	collecting sync.Mutex
}

// Open opens the registry in dir, making it (mode 0700) when there is none, and removes what a killed
// process left unfinished.
func Open(dir string, opts Options) (*Registry, error) {
	opts.setDefaults()
	m, err := newMetrics(opts.Metrics)
	if err != nil {
		return nil, fmt.Errorf("open registry %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	d, err := newDisk(root, opts, m)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open registry %s: %w", dir, err), root.Close())
	}
	r := &Registry{
		opts:     opts,
		disk:     d,
		uploads:  newUploads(d, opts, m),
		closures: newLRU[fleet.Digest, closure](maxClosures),
		metrics:  m,
	}
	r.handlers = r.table()
	return r, nil
}

// Close ends all uploads and lets go of the directory. Requests that are still served fail; the caller
// shuts its HTTP server down first.
func (r *Registry) Close() error {
	r.uploads.closeAll()
	return r.disk.root.Close()
}

// Descriptor says what a reference names.
type Descriptor struct {
	Digest    fleet.Digest
	MediaType string
	Size      int64
}

// Resolve returns what ref, a tag or a digest, names in repo. What it names, with all it reaches, is safe
// from Collect for the grace period that begins now.
func (r *Registry) Resolve(repo, ref string) (Descriptor, error) {
	if err := CheckRepository(repo); err != nil {
		return Descriptor{}, err
	}
	r.sweep.RLock()
	defer r.sweep.RUnlock()
	desc, _, err := r.manifest(repo, ref)
	if err != nil {
		return Descriptor{}, fmt.Errorf("resolve %s: %w", display(repo, ref), err)
	}
	r.touch(repo, desc.Digest)
	return desc, nil
}

// ReadManifest returns a manifest of repo, verified.
func (r *Registry) ReadManifest(repo string, d fleet.Digest) ([]byte, Descriptor, error) {
	if err := errors.Join(CheckRepository(repo), d.Validate()); err != nil {
		return nil, Descriptor{}, err
	}
	desc, body, err := r.manifest(repo, string(d))
	if err != nil {
		return nil, Descriptor{}, fmt.Errorf("read manifest %s: %w", display(repo, string(d)), err)
	}
	return body, desc, nil
}

// ReadBlob returns a blob of repo of at most limit bytes, verified.
func (r *Registry) ReadBlob(repo string, d fleet.Digest, limit int64) ([]byte, error) {
	if err := errors.Join(CheckRepository(repo), d.Validate()); err != nil {
		return nil, err
	}
	if !r.disk.linked(repo, blobLinks, d) {
		return nil, fmt.Errorf("read blob %s: %w", display(repo, string(d)), fs.ErrNotExist)
	}
	body, err := r.disk.read(d, limit)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", display(repo, string(d)), err)
	}
	return body, nil
}

// ServeHTTP answers the requests of the distribution specification.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	rec := &recorder{ResponseWriter: w}
	rt, err := parseRequest(req)
	if err == nil {
		err = r.authorize(req, rt)
	}
	if err == nil {
		err = r.route(rec, req, rt)
	}
	if err != nil {
		r.writeError(rec, req, err)
	}
	r.metrics.observe(req.Method, rt.kind, rec)
}

func (r *Registry) route(w http.ResponseWriter, req *http.Request, rt route) error {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	h, ok := r.handlers[rt.kind][req.Method]
	if !ok {
		return refuse(http.StatusMethodNotAllowed, codeUnsupported, "method %s is not supported here", req.Method)
	}
	return h(w, req, rt)
}

// handler answers one kind of request; an error is answered for it.
type handler func(http.ResponseWriter, *http.Request, route) error

func (r *Registry) table() map[kind]map[string]handler {
	return map[kind]map[string]handler{
		kindPing:      {http.MethodGet: r.ping, http.MethodHead: r.ping},
		kindBlob:      {http.MethodGet: r.getBlob, http.MethodHead: r.getBlob, http.MethodDelete: r.deleteBlob},
		kindUploads:   {http.MethodPost: r.startUpload},
		kindUpload:    {http.MethodGet: r.uploadStatus, http.MethodPatch: r.patchUpload, http.MethodPut: r.putUpload, http.MethodDelete: r.cancelUpload},
		kindManifest:  {http.MethodGet: r.getManifest, http.MethodHead: r.getManifest, http.MethodPut: r.putManifest, http.MethodDelete: r.deleteManifest},
		kindTags:      {http.MethodGet: r.listTags},
		kindReferrers: {http.MethodGet: r.listReferrers},
	}
}

func (r *Registry) ping(w http.ResponseWriter, _ *http.Request, _ route) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("{}")) // a caller that is gone needs no answer
	return nil
}

func (r *Registry) authorize(req *http.Request, rt route) error {
	if r.opts.Authorizer == nil {
		return fmt.Errorf("this registry has nobody who may use it: %w", ErrDenied)
	}
	return r.opts.Authorizer.Authorize(req, rt.repo, actionOf(req.Method, rt.kind), rt.target())
}

// mayPull asks about a second repository that a request names.
func (r *Registry) mayPull(req *http.Request, repo string, d fleet.Digest) bool {
	return r.opts.Authorizer.Authorize(req, repo, ActionPull, Target{Kind: TargetBlob, Digest: d}) == nil
}
