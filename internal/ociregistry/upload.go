package ociregistry

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// uploads are the blobs on their way in. They live in memory and in tmp: after a restart of the hub a
// client begins anew. Those that rest for too long are ended when the next one begins, and by Collect.
type uploads struct {
	disk    *disk
	most    int
	ttl     time.Duration
	metrics *metrics
	now     func() time.Time

	mu   sync.Mutex
	byID map[string]*upload
}

// upload is one blob on its way in. Its fields below mu belong to the request that holds it.
type upload struct {
	id, repo string

	mu   sync.Mutex
	file *os.File
	name string
	sum  *fleet.Verifier
	size int64
	used time.Time
	over bool
}

// Write appends p; the sum and the size are always those of the file.
func (up *upload) Write(p []byte) (int, error) {
	n, err := up.file.Write(p)
	_, _ = up.sum.Write(p[:n]) // never fails
	up.size += int64(n)
	return n, err
}

func newUploads(d *disk, opts Options, m *metrics) *uploads {
	return &uploads{
		disk: d, most: opts.MaxUploads, ttl: opts.UploadTTL, metrics: m, now: opts.Now,
		byID: map[string]*upload{},
	}
}

// start opens an upload and returns it held; the caller calls release or finish.
func (u *uploads) start(repo string) (*upload, error) {
	u.expire()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.byID) >= u.most {
		return nil, refuse(http.StatusTooManyRequests, codeTooManyRequests, "%d uploads are open: try again later", u.most)
	}
	f, name, err := u.disk.temp()
	if err != nil {
		return nil, fmt.Errorf("start upload: %w", err)
	}
	up := &upload{id: rand.Text(), repo: repo, file: f, name: name, sum: fleet.NewVerifier(), used: u.now()}
	up.mu.Lock()
	u.byID[up.id] = up
	u.metrics.uploads.Set(float64(len(u.byID)))
	return up, nil
}

// hold returns the upload for one request alone.
func (u *uploads) hold(repo, id string) (*upload, error) {
	u.mu.Lock()
	up := u.byID[id]
	u.mu.Unlock()
	unknown := refuse(http.StatusNotFound, codeUploadUnknown, "no such upload: it ended or expired; begin again")
	if up == nil || up.repo != repo {
		return nil, unknown
	}
	if !up.mu.TryLock() {
		return nil, refuse(http.StatusConflict, codeUploadInvalid, "another request is writing to this upload")
	}
	if up.over || u.now().Sub(up.used) > u.ttl {
		u.end(up)
		up.mu.Unlock()
		return nil, unknown
	}
	return up, nil
}

// release lets the next request have the upload.
func (u *uploads) release(up *upload) {
	up.used = u.now()
	up.mu.Unlock()
}

// end removes an upload that the caller holds, with its file unless that was committed.
func (u *uploads) end(up *upload) {
	if !up.over {
		up.over = true
		u.disk.discard(up.file, up.name)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.byID, up.id)
	u.metrics.uploads.Set(float64(len(u.byID)))
}

// expire ends the uploads that rested for too long.
func (u *uploads) expire() { u.endIf(func(up *upload) bool { return u.now().Sub(up.used) > u.ttl }) }

func (u *uploads) closeAll() { u.endIf(func(*upload) bool { return true }) }

func (u *uploads) endIf(cond func(*upload) bool) {
	u.mu.Lock()
	all := make([]*upload, 0, len(u.byID))
	for _, up := range u.byID {
		all = append(all, up)
	}
	u.mu.Unlock()
	for _, up := range all {
		if !up.mu.TryLock() {
			continue // in use
		}
		if cond(up) {
			u.end(up)
		}
		up.mu.Unlock()
	}
}

// startUpload answers POST: a mount, a whole blob in one request, or an upload to be continued.
func (r *Registry) startUpload(w http.ResponseWriter, req *http.Request, rt route) error {
	q := req.URL.Query()
	if mount, from := q.Get("mount"), q.Get("from"); mount != "" && from != "" {
		d, err := parseDigest(mount)
		if err != nil {
			return err
		}
		ok, err := r.mount(req, rt.repo, from, d)
		if err != nil {
			return err
		}
		if ok {
			return created(w, "/v2/"+rt.repo+"/blobs/"+string(d), d)
		}
	}
	up, err := r.uploads.start(rt.repo)
	if err != nil {
		return err
	}
	if digest := q.Get("digest"); digest != "" {
		err := r.finishUpload(w, req, up, digest)
		r.uploads.end(up)
		up.mu.Unlock()
		return err
	}
	defer r.uploads.release(up)
	writeUpload(w, up, http.StatusAccepted)
	return nil
}

// mount links a blob of another repository, which the caller must be allowed to read.
func (r *Registry) mount(req *http.Request, repo, from string, d fleet.Digest) (bool, error) {
	if CheckRepository(from) != nil || !r.mayPull(req, from, d) {
		return false, nil
	}
	if !r.disk.linked(from, blobLinks, d) {
		return false, nil
	}
	// Verifying may take long: it is done before anything is held.
	f, _, err := r.disk.open(d)
	if err != nil {
		return false, nil // it is uploaded, and thereby healed
	}
	if err := f.Close(); err != nil {
		return false, err
	}
	r.sweep.RLock()
	defer r.sweep.RUnlock()
	if !r.disk.linked(from, blobLinks, d) {
		return false, nil // collected meanwhile
	}
	return true, r.disk.link(repo, blobLinks, d, "")
}

func (r *Registry) uploadStatus(w http.ResponseWriter, _ *http.Request, rt route) error {
	up, err := r.uploads.hold(rt.repo, rt.upload)
	if err != nil {
		return err
	}
	defer r.uploads.release(up)
	writeUpload(w, up, http.StatusNoContent)
	return nil
}

// patchUpload appends. What arrived before a break stays; the client asks how much that is and goes on.
func (r *Registry) patchUpload(w http.ResponseWriter, req *http.Request, rt route) error {
	up, err := r.uploads.hold(rt.repo, rt.upload)
	if err != nil {
		return err
	}
	defer r.uploads.release(up)
	if err := r.appendBody(w, req, up); err != nil {
		return err
	}
	writeUpload(w, up, http.StatusAccepted)
	return nil
}

// putUpload ends an upload, with or without a last piece.
func (r *Registry) putUpload(w http.ResponseWriter, req *http.Request, rt route) error {
	up, err := r.uploads.hold(rt.repo, rt.upload)
	if err != nil {
		return err
	}
	err = r.finishUpload(w, req, up, req.URL.Query().Get("digest"))
	if up.over {
		r.uploads.end(up)
	}
	r.uploads.release(up)
	return err
}

func (r *Registry) cancelUpload(w http.ResponseWriter, _ *http.Request, rt route) error {
	up, err := r.uploads.hold(rt.repo, rt.upload)
	if err != nil {
		return err
	}
	r.uploads.end(up)
	up.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// appendBody adds the request's body to up. Bytes count as received once they are in the file.
func (r *Registry) appendBody(w http.ResponseWriter, req *http.Request, up *upload) error {
	if err := checkContentRange(req.Header.Get("Content-Range"), req.ContentLength, up.size); err != nil {
		w.Header().Set("Range", "0-"+strconv.FormatInt(max(0, up.size-1), 10))
		return err
	}
	if req.ContentLength > r.opts.MaxBlobBytes-up.size {
		return refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid, "a blob may have at most %d bytes", r.opts.MaxBlobBytes)
	}
	body := http.MaxBytesReader(w, req.Body, r.opts.MaxBlobBytes-up.size)
	n, err := io.Copy(up, body)
	r.metrics.received.Add(float64(n))
	if err != nil {
		return fmt.Errorf("upload broke off after %d bytes: %w", up.size, err)
	}
	return nil
}

// checkContentRange accepts "start-end" that continues at size.
func checkContentRange(header string, length, size int64) error {
	if header == "" {
		return nil
	}
	from, to, ok := strings.Cut(strings.TrimPrefix(header, "bytes "), "-")
	start, err1 := strconv.ParseInt(from, 10, 64)
	end, err2 := strconv.ParseInt(to, 10, 64)
	if !ok || err1 != nil || err2 != nil || start != size || end < start || length >= 0 && length != end-start+1 {
		return refuse(http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid, "Content-Range %q: this upload continues at byte %d", clip(header), size)
	}
	return nil
}

// finishUpload takes the last piece and gives the blob its name, if it is what the client says.
func (r *Registry) finishUpload(w http.ResponseWriter, req *http.Request, up *upload, digest string) error {
	want, err := parseDigest(digest)
	if err != nil {
		return err
	}
	if err := r.appendBody(w, req, up); err != nil {
		return err
	}
	if got := up.sum.Digest(); got != want {
		r.uploads.end(up)
		return refuse(http.StatusBadRequest, codeDigestInvalid, "the content's digest is %s, not %s", got, want)
	}
	// Most of the writing is over before anything is held.
	if err := up.file.Sync(); err != nil {
		return fmt.Errorf("store blob: %w", err)
	}
	r.sweep.RLock()
	defer r.sweep.RUnlock()
	up.over = true
	if err := r.disk.commit(up.file, up.name, blobPath(want), 0o400); err != nil {
		return fmt.Errorf("store blob: %w", err)
	}
	r.disk.heal(want)
	if err := r.disk.link(up.repo, blobLinks, want, ""); err != nil {
		return fmt.Errorf("link blob: %w", err)
	}
	return created(w, "/v2/"+up.repo+"/blobs/"+string(want), want)
}

func created(w http.ResponseWriter, location string, d fleet.Digest) error {
	w.Header().Set("Location", location)
	w.Header().Set("Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
	return nil
}

// writeUpload tells how much arrived. The specification has no way to say "nothing yet" but "0-0".
func writeUpload(w http.ResponseWriter, up *upload, status int) {
	h := w.Header()
	h.Set("Location", "/v2/"+up.repo+"/blobs/uploads/"+up.id)
	h.Set("Docker-Upload-UUID", up.id)
	h.Set("Range", "0-"+strconv.FormatInt(max(0, up.size-1), 10))
	w.WriteHeader(status)
}
