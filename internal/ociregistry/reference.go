package ociregistry

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// ErrReference is wrapped by every error about a malformed repository, tag or path.
var ErrReference = errors.New("malformed reference")

const (
	maxNameBytes = 128
	maxTagBytes  = 128
)

// CheckRepository reports whether repo is "<namespace>/<name>": the namespace a DNS label, the name one
// component of a repository name of the distribution specification.
func CheckRepository(repo string) error {
	ns, name, ok := strings.Cut(repo, "/")
	if !ok || (fleet.AppKey{Namespace: ns, Name: "x"}).Validate() != nil || !isComponent(name) {
		return fmt.Errorf("repository %q: want <namespace>/<name> in lower-case letters, digits and inner '-', '_' or '.': %w", clip(repo), ErrReference)
	}
	return nil
}

// isComponent follows the specification's [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*. Such a name never begins
// with '_' or '.', so it never meets a file of the registry's own.
func isComponent(s string) bool {
	if s == "" || len(s) > maxNameBytes {
		return false
	}
	separator := ""
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			separator = ""
			continue
		}
		separator += string(c)
		known := separator == "." || separator == "_" || separator == "__" || strings.Trim(separator, "-") == ""
		if i == 0 || i == len(s)-1 || !known {
			return false
		}
	}
	return true
}

// CheckTag reports whether tag is [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func CheckTag(tag string) error {
	ok := tag != "" && len(tag) <= maxTagBytes && tag[0] != '.' && tag[0] != '-'
	for i := range len(tag) {
		c := tag[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alnum || c == '_' || c == '.' || c == '-')
	}
	if !ok {
		return fmt.Errorf("tag %q: want letters, digits, '_', and inner '.' and '-', at most %d: %w", clip(tag), maxTagBytes, ErrReference)
	}
	return nil
}

// kind is what a path of the registry is about.
type kind string

const (
	kindNone      kind = "none"
	kindPing      kind = "ping"
	kindBlob      kind = "blob"
	kindUploads   kind = "uploads"
	kindUpload    kind = "upload"
	kindManifest  kind = "manifest"
	kindTags      kind = "tags"
	kindReferrers kind = "referrers"
)

// route is a parsed path. Every field has been checked.
type route struct {
	kind   kind
	repo   string
	digest fleet.Digest // of a blob, a manifest by digest, or a subject
	tag    string       // of a manifest by tag
	upload string       // id of an upload, 32 hexadecimal digits
}

func (rt route) target() Target {
	kinds := map[kind]TargetKind{
		kindPing: TargetRegistry, kindTags: TargetTags, kindReferrers: TargetReferrers, kindManifest: TargetManifest,
		kindBlob: TargetBlob, kindUploads: TargetBlob, kindUpload: TargetBlob,
	}
	return Target{Kind: kinds[rt.kind], Tag: rt.tag, Digest: rt.digest}
}

// parseRequest refuses a path with escaped characters: no name of the specification needs one.
func parseRequest(req *http.Request) (route, error) {
	if req.URL.RawPath != "" {
		return route{kind: kindNone}, refuse(http.StatusNotFound, codeNameInvalid, "no such path")
	}
	return parsePath(req.URL.Path)
}

func parsePath(path string) (route, error) {
	none := route{kind: kindNone}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if path == "/v2" || ok && rest == "" {
		return route{kind: kindPing}, nil
	}
	parts := strings.Split(rest, "/")
	if !ok || len(parts) < 4 || len(parts) > 5 {
		return none, refuse(http.StatusNotFound, codeNameInvalid, "no such path: want /v2/<namespace>/<name>/...")
	}
	rt := route{repo: parts[0] + "/" + parts[1]}
	if err := CheckRepository(rt.repo); err != nil {
		return none, refuse(http.StatusBadRequest, codeNameInvalid, "%v", err)
	}
	if len(parts) == 5 {
		return parseUpload(rt, parts[2:])
	}
	return parseContent(rt, parts[2], parts[3])
}

func parseUpload(rt route, parts []string) (route, error) {
	if parts[0] != "blobs" || parts[1] != "uploads" {
		return route{kind: kindNone}, refuse(http.StatusNotFound, codeNameInvalid, "no such path")
	}
	rt.kind, rt.upload = kindUpload, parts[2]
	if rt.upload == "" {
		rt.kind = kindUploads
	}
	return rt, nil
}

func parseContent(rt route, noun, ref string) (route, error) {
	var err error
	switch {
	case noun == "tags" && ref == "list":
		rt.kind = kindTags
	case noun == "blobs" && ref == "uploads":
		rt.kind = kindUploads
	case noun == "blobs":
		rt.kind = kindBlob
		rt.digest, err = parseDigest(ref)
	case noun == "referrers":
		rt.kind = kindReferrers
		rt.digest, err = parseDigest(ref)
	case noun == "manifests" && strings.Contains(ref, ":"):
		rt.kind = kindManifest
		rt.digest, err = parseDigest(ref)
	case noun == "manifests":
		rt.kind, rt.tag = kindManifest, ref
		if e := CheckTag(ref); e != nil {
			err = refuse(http.StatusBadRequest, codeManifestInvalid, "%v", e)
		}
	default:
		err = refuse(http.StatusNotFound, codeNameInvalid, "no such path")
	}
	if err != nil {
		return route{kind: kindNone}, err
	}
	return rt, nil
}

func parseDigest(s string) (fleet.Digest, error) {
	d := fleet.Digest(clip(s))
	if err := d.Validate(); err != nil {
		return "", refuse(http.StatusBadRequest, codeDigestInvalid, "%v", err)
	}
	return d, nil
}

// display writes a reference as people do.
func display(repo, ref string) string {
	if strings.Contains(ref, ":") {
		return clip(repo) + "@" + clip(ref)
	}
	return clip(repo) + ":" + clip(ref)
}

// clip bounds what is repeated of a caller's words.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
