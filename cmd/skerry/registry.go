package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/ociregistry"
	"github.com/skerry-dev/skerry/internal/wire"
)

// registryFeature mounts the registry on the hub's port and decides who may do what there: people by their
// right to bundles of the namespace, sites only what they are told to run.
type registryFeature struct {
	registry *ociregistry.Registry
	bundles  *bundles
	// member returns the site whose certificate made a request; an error when none did.
	member func(*http.Request) (fleet.SiteName, fleet.MemberID, error)
	// siteBundles and liveBundles are those of apps and tasks together.
	siteBundles func(fleet.SiteName) []app.Bundle
	liveBundles func() []app.Bundle

	mu     sync.Mutex
	people *hub.People
}

// How often content that nothing needs is removed, and how young it must not be.
const (
	collectEvery = time.Hour
	collectGrace = 24 * time.Hour
)

// Name implements hub.Feature.
func (f *registryFeature) Name() string { return "registry" }

// Setup implements hub.Feature.
func (f *registryFeature) Setup(_ context.Context, h *hub.Host) error {
	f.mu.Lock()
	f.people = h.People
	f.mu.Unlock()
	h.Public.Handle(wire.PathRegistry, f)
	return h.Manager.Add(manager.RunnableFunc(func(ctx context.Context) error { return f.collect(ctx, h) }))
}

// ServeHTTP passes requests to the registry and tells of each push of a manifest.
func (f *registryFeature) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.registry.ServeHTTP(w, r)
	path := strings.TrimPrefix(r.URL.Path, wire.PathRegistry)
	if repository, _, ok := strings.Cut(path, "/manifests/"); ok && r.Method == http.MethodPut {
		f.bundles.tellPushed(repository)
	}
}

// Authorize implements ociregistry.Authorizer.
func (f *registryFeature) Authorize(r *http.Request, repo string, action ociregistry.Action, target ociregistry.Target) error {
	f.mu.Lock()
	people := f.people
	f.mu.Unlock()
	if people == nil {
		return fmt.Errorf("the hub is starting: %w", ociregistry.ErrUnauthenticated)
	}
	if site, _, err := f.member(r); err == nil {
		return f.authorizeSite(site, repo, action, target)
	}
	verb := map[ociregistry.Action]string{ociregistry.ActionPull: "get", ociregistry.ActionPush: "create", ociregistry.ActionDelete: "delete"}[action]
	namespace, name, _ := strings.Cut(repo, "/")
	right := hub.Right{Verb: verb, Resource: "bundles", Namespace: namespace, Name: name}
	if target.Kind == ociregistry.TargetRegistry {
		// Asked by clients to find out whether they are known; it gives nothing.
		right = hub.Right{Verb: "get", Path: "/api"}
	}
	_, err := people.Check(r, right)
	switch {
	case errors.Is(err, hub.ErrUnauthenticated):
		return fmt.Errorf("%w: %w", err, ociregistry.ErrUnauthenticated)
	case errors.Is(err, hub.ErrForbidden):
		return fmt.Errorf("%w: %w", err, ociregistry.ErrDenied)
	}
	return err
}

// authorizeSite lets a site read what it is told to run and everything that this names, and nothing else.
func (f *registryFeature) authorizeSite(site fleet.SiteName, repo string, action ociregistry.Action, target ociregistry.Target) error {
	if action == ociregistry.ActionPull && target.Digest != "" &&
		(target.Kind == ociregistry.TargetManifest || target.Kind == ociregistry.TargetBlob) {
		var roots []fleet.Digest
		for _, b := range f.siteBundles(site) {
			if b.Repository == repo {
				roots = append(roots, b.Digest)
			}
		}
		if f.registry.Reaches(roots, target.Digest) {
			return nil
		}
	}
	return fmt.Errorf("site %s is not told to run this: %w", site, ociregistry.ErrDenied)
}

// collect removes content that neither a tag, a release nor a site needs.
func (f *registryFeature) collect(ctx context.Context, h *hub.Host) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var releases v1alpha1.ReleaseList
		if err := h.Client.List(ctx, &releases); err != nil {
			h.Log.Error("collect bundles: list releases", "error", err)
			continue
		}
		var keep ociregistry.Keep
		for i := range releases.Items {
			keep.Live = append(keep.Live, fleet.Digest(releases.Items[i].Spec.Bundle.Digest))
		}
		for _, b := range f.liveBundles() {
			keep.Live = append(keep.Live, b.Digest)
		}
		stats, err := f.registry.Collect(ctx, keep, collectGrace)
		if err != nil && ctx.Err() == nil {
			h.Log.Error("collect bundles", "error", err)
			continue
		}
		if stats.Blobs > 0 {
			h.Log.Info("collected bundles", "blobs", stats.Blobs, "bytes", stats.Bytes)
		}
	}
}
