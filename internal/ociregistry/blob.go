package ociregistry

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"
)

// getBlob answers GET and HEAD, with ranges. A HEAD is how a client finds out whether it need not push a
// blob, so it begins the blob's grace period anew.
func (r *Registry) getBlob(w http.ResponseWriter, req *http.Request, rt route) error {
	r.sweep.RLock()
	if !r.disk.linked(rt.repo, blobLinks, rt.digest) {
		r.sweep.RUnlock()
		return refuse(http.StatusNotFound, codeBlobUnknown, "blob %s is not in %s", rt.digest, rt.repo)
	}
	if req.Method == http.MethodHead {
		r.disk.touch(rt.repo, rt.digest)
	}
	r.sweep.RUnlock()
	f, _, err := r.disk.open(rt.digest)
	if err != nil {
		return notFound(err, codeBlobUnknown, fmt.Sprintf("blob %s of %s", rt.digest, rt.repo))
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", string(rt.digest))
	h.Set("Etag", `"`+string(rt.digest)+`"`)
	h.Set("Cache-Control", "private, immutable, max-age=31536000")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, req, "", time.Time{}, f)
	return nil
}

// deleteBlob takes the blob from this repository; Collect removes its content when no other has it.
func (r *Registry) deleteBlob(w http.ResponseWriter, _ *http.Request, rt route) error {
	err := r.disk.unlink(linkPath(rt.repo, blobLinks, rt.digest.Hex()))
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusNotFound, codeBlobUnknown, "blob %s is not in %s", rt.digest, rt.repo)
	}
	if err != nil {
		return fmt.Errorf("delete blob: %w", err)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
