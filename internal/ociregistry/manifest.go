package ociregistry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// isManifestType lists what may be stored as a manifest: the registry must be able to tell what it names.
func isManifestType(t string) bool {
	switch t {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json":
		return true
	}
	return false
}

// manifest returns what ref, a tag or a digest, names in repo, verified.
func (r *Registry) manifest(repo, ref string) (Descriptor, []byte, error) {
	d := fleet.Digest(ref)
	if !strings.Contains(ref, ":") {
		var err error
		if d, err = r.tag(repo, ref); err != nil {
			return Descriptor{}, nil, err
		}
	}
	if err := d.Validate(); err != nil {
		return Descriptor{}, nil, fmt.Errorf("%w: %w", err, ErrReference)
	}
	mediaType, err := r.disk.root.ReadFile(linkPath(repo, manifestLinks, d.Hex()))
	if err != nil {
		return Descriptor{}, nil, err
	}
	body, err := r.disk.read(d, r.opts.MaxManifestBytes)
	if err != nil {
		return Descriptor{}, nil, err
	}
	return Descriptor{Digest: d, MediaType: string(mediaType), Size: int64(len(body))}, body, nil
}

// tag returns what a tag names.
func (r *Registry) tag(repo, tag string) (fleet.Digest, error) {
	if err := CheckTag(tag); err != nil {
		return "", err
	}
	data, err := r.disk.root.ReadFile(linkPath(repo, tagLinks, tag))
	if err != nil {
		return "", err
	}
	d := fleet.Digest(data)
	return d, d.Validate()
}

func (rt route) ref() string {
	if rt.tag != "" {
		return rt.tag
	}
	return string(rt.digest)
}

func (r *Registry) getManifest(w http.ResponseWriter, req *http.Request, rt route) error {
	r.sweep.RLock()
	desc, body, err := r.manifest(rt.repo, rt.ref())
	if err == nil && req.Method == http.MethodHead {
		r.touch(rt.repo, desc.Digest)
	}
	r.sweep.RUnlock()
	if err != nil {
		return notFound(err, codeManifestUnknown, display(rt.repo, rt.ref()))
	}
	h := w.Header()
	h.Set("Docker-Content-Digest", string(desc.Digest))
	h.Set("Content-Type", desc.MediaType)
	h.Set("Etag", `"`+string(desc.Digest)+`"`)
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(body))
	return nil
}

// putManifest stores a manifest whose content is already in the repository, and names it by a tag.
func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, rt route) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, r.opts.MaxManifestBytes))
	r.metrics.received.Add(float64(len(body)))
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	d := fleet.DigestOf(body)
	if rt.digest != "" && rt.digest != d {
		return refuse(http.StatusBadRequest, codeDigestInvalid, "the manifest's digest is %s, not %s", d, rt.digest)
	}
	mediaType, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || !isManifestType(mediaType) {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "Content-Type %q is no type of manifest that this registry knows", clip(req.Header.Get("Content-Type")))
	}
	c, err := parseContentOf(body)
	if err != nil {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "manifest: %v", err)
	}
	if c.mediaType != "" && c.mediaType != mediaType {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "mediaType is %q, but Content-Type %q", clip(c.mediaType), mediaType)
	}

	r.sweep.RLock()
	defer r.sweep.RUnlock()
	if err := r.storeManifest(rt, d, mediaType, body, c); err != nil {
		return err
	}
	if c.subject != "" {
		w.Header().Set("OCI-Subject", string(c.subject))
	}
	return created(w, "/v2/"+rt.repo+"/manifests/"+string(d), d)
}

// storeManifest does the steps of a push in an order in which a kill between any two leaves a repository
// that is whole: content, then the links to it, then the tag.
func (r *Registry) storeManifest(rt route, d fleet.Digest, mediaType string, body []byte, c content) error {
	if err := r.checkNamed(rt.repo, c); err != nil {
		return err
	}
	r.tags.Lock()
	defer r.tags.Unlock()
	if err := r.checkTag(rt, d); err != nil {
		return err
	}
	if err := r.checkReferrers(rt.repo, c.subject, d); err != nil {
		return err
	}
	if _, err := r.disk.put(body); err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	r.disk.heal(d)
	if _, err := r.closure(d); errors.Is(err, errTooMany) {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "the manifest reaches more than %d blobs", maxReached)
	} else if err != nil {
		return notFound(err, codeManifestBlobUnknown, "what the manifest names")
	}
	if err := r.disk.link(rt.repo, manifestLinks, d, mediaType); err != nil {
		return fmt.Errorf("link manifest: %w", err)
	}
	r.touch(rt.repo, d)
	if c.subject != "" {
		if err := r.disk.write(referrerPath(rt.repo, c.subject, d), nil, 0o600); err != nil {
			return fmt.Errorf("link referrer: %w", err)
		}
	}
	if rt.tag == "" {
		return nil
	}
	if err := r.disk.write(linkPath(rt.repo, tagLinks, rt.tag), []byte(d), 0o600); err != nil {
		return fmt.Errorf("write tag: %w", err)
	}
	return nil
}

// checkNamed requires that all a manifest names is in the same repository, with the size it says. So
// nobody gains content of another repository by naming its digest.
func (r *Registry) checkNamed(repo string, c content) error {
	check := func(k linkKind, what string, d fleet.Digest) error {
		info, err := r.disk.root.Stat(blobPath(d))
		if err != nil || !r.disk.linked(repo, k, d) {
			return refuse(http.StatusNotFound, codeManifestBlobUnknown, "the manifest names %s %s, which is not in %s: push it first", what, d, repo)
		}
		if info.Size() != c.sizes[d] {
			return refuse(http.StatusBadRequest, codeManifestInvalid, "the manifest says %s %s has %d bytes, it has %d", what, d, c.sizes[d], info.Size())
		}
		return nil
	}
	for _, d := range c.leaves {
		if err := check(blobLinks, "blob", d); err != nil {
			return err
		}
	}
	for _, d := range c.children {
		if err := check(manifestLinks, "manifest", d); err != nil {
			return err
		}
	}
	return nil
}

// checkTag refuses to move a tag: who deployed version X must find the same X again.
func (r *Registry) checkTag(rt route, d fleet.Digest) error {
	if rt.tag == "" || r.opts.MutableTags {
		return nil
	}
	old, err := r.tag(rt.repo, rt.tag)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fleet.ErrDigest) {
		return nil // none, or damaged on disk: this push mends it
	}
	if err != nil {
		return fmt.Errorf("read tag %s: %w", display(rt.repo, rt.tag), err)
	}
	if old != d {
		return refuse(http.StatusConflict, codeDenied, "version %s of %s exists with another content; choose a new version", rt.tag, rt.repo)
	}
	return nil
}

// deleteManifest removes a tag, or a manifest with every tag that names it, from the repository. The
// content goes with the next Collect.
func (r *Registry) deleteManifest(w http.ResponseWriter, _ *http.Request, rt route) error {
	r.sweep.RLock()
	defer r.sweep.RUnlock()
	r.tags.Lock()
	defer r.tags.Unlock()
	var err error
	if rt.tag != "" {
		err = r.disk.unlink(linkPath(rt.repo, tagLinks, rt.tag))
	} else {
		err = r.removeManifest(rt.repo, rt.digest)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, codeManifestUnknown, "%s is not here", display(rt.repo, rt.ref()))
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", display(rt.repo, rt.ref()), err)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (r *Registry) removeManifest(repo string, d fleet.Digest) error {
	if !r.disk.linked(repo, manifestLinks, d) {
		return fs.ErrNotExist
	}
	tags, err := r.disk.list(linkPath(repo, tagLinks, ""))
	if err != nil {
		return err
	}
	for _, t := range tags {
		if named, err := r.tag(repo, t.Name()); err != nil || named != d {
			continue
		}
		if err := r.disk.unlink(linkPath(repo, tagLinks, t.Name())); err != nil {
			return err
		}
	}
	return r.unlinkManifest(repo, d)
}

// unlinkManifest takes a manifest, and its place among the referrers of its subject, from a repository.
func (r *Registry) unlinkManifest(repo string, d fleet.Digest) error {
	if c, err := r.content(d); err == nil && c.subject != "" {
		if err := r.disk.root.Remove(referrerPath(repo, c.subject, d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return r.disk.unlink(linkPath(repo, manifestLinks, d.Hex()))
}

func referrerPath(repo string, subject, d fleet.Digest) string {
	return path.Join(linkPath(repo, referrerLinks, subject.Hex()), d.Hex())
}
