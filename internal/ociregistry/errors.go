package ociregistry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// What an Authorizer's error may wrap; any other is answered with 500 and logged.
var (
	// ErrUnauthenticated says that it is not known who asks: 401.
	ErrUnauthenticated = errors.New("authentication required")
	// ErrDenied says that who asks may not do this: 403, with the error's text.
	ErrDenied = errors.New("denied")
)

// Authorizer decides who may do what. Its methods are called from many goroutines.
type Authorizer interface {
	// Authorize returns nil when who sent r may do action to target in repo. The repository is empty for
	// TargetRegistry, which is how clients find out whether they are known. A mount asks twice: to push
	// to one repository and to pull from the other.
	Authorize(r *http.Request, repo string, action Action, target Target) error
}

// Action is what a request wants to do.
type Action string

// The actions.
const (
	ActionPull   Action = "pull"
	ActionPush   Action = "push"
	ActionDelete Action = "delete"
)

// TargetKind is what a request wants to do it to.
type TargetKind string

// The kinds of target.
const (
	TargetRegistry  TargetKind = "registry"
	TargetManifest  TargetKind = "manifest"
	TargetBlob      TargetKind = "blob"
	TargetTags      TargetKind = "tags"
	TargetReferrers TargetKind = "referrers"
)

// Target is the thing within a repository. A manifest has either Tag or Digest; a blob and referrers have
// Digest, which is empty while a blob is being uploaded.
type Target struct {
	Kind   TargetKind
	Tag    string
	Digest fleet.Digest
}

func actionOf(method string, k kind) Action {
	switch {
	case method == http.MethodGet && k != kindUpload, method == http.MethodHead:
		return ActionPull
	case method == http.MethodDelete && k != kindUpload:
		return ActionDelete
	}
	return ActionPush
}

// Error codes of the distribution specification.
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeUploadInvalid       = "BLOB_UPLOAD_INVALID"
	codeUploadUnknown       = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeUnauthorized        = "UNAUTHORIZED"
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"
	codeTooManyRequests     = "TOOMANYREQUESTS"
	codeUnknown             = "UNKNOWN"
)

// refusal is an error with the answer that it deserves.
type refusal struct {
	status  int
	code    string
	message string
}

func (e *refusal) Error() string { return e.message }

func refuse(status int, code, format string, args ...any) error {
	return &refusal{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// notFound turns the disk's errors about one thing into an answer: corrupt content is as good as none.
func notFound(err error, code, what string) error {
	switch {
	case errors.Is(err, fleet.ErrDigest):
		return refuse(http.StatusNotFound, code, "%s was corrupt on disk and has been set aside: push it again", what)
	case errors.Is(err, fs.ErrNotExist):
		return refuse(http.StatusNotFound, code, "%s is not here", what)
	}
	return err
}

// writeError answers with the specification's JSON. What is not meant for callers is logged instead.
func (r *Registry) writeError(w *recorder, req *http.Request, err error) {
	var ref *refusal
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &ref):
	case errors.As(err, &tooLarge):
		ref = &refusal{http.StatusRequestEntityTooLarge, codeSizeInvalid, fmt.Sprintf("body exceeds %d bytes", tooLarge.Limit)}
	case errors.Is(err, ErrUnauthenticated):
		w.Header().Set("WWW-Authenticate", r.opts.Challenge)
		ref = &refusal{http.StatusUnauthorized, codeUnauthorized, err.Error()}
	case errors.Is(err, ErrDenied):
		ref = &refusal{http.StatusForbidden, codeDenied, err.Error()}
	default:
		r.opts.Log.Error("registry request failed", "method", req.Method, "path", clip(req.URL.Path), "error", err)
		ref = &refusal{http.StatusInternalServerError, codeUnknown, "the registry failed; its log says why"}
	}
	if w.status != 0 {
		return // the answer has begun; the short body tells the client
	}
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(map[string][]entry{"errors": {{ref.code, ref.message}}})
	if err != nil {
		body = []byte(`{"errors":[]}`)
	}
	h := w.Header()
	for _, name := range []string{"Etag", "Content-Length", "Docker-Content-Digest"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(ref.status)
	if req.Method != http.MethodHead {
		_, _ = w.Write(body) // a caller that is gone needs no answer
	}
}
