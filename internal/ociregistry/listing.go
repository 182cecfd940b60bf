package ociregistry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skerry-dev/skerry/internal/fleet"
)

const (
	// maxPage bounds one page of tags.
	maxPage = 1000
	// maxReferrers bounds what may refer to one subject, so that the list fits one answer.
	maxReferrers = 1000
)

// listTags answers with tags in order, n at most, after last.
func (r *Registry) listTags(w http.ResponseWriter, req *http.Request, rt route) error {
	if _, err := r.disk.root.Stat(repoDir + "/" + rt.repo); err != nil {
		return notFound(err, codeNameUnknown, "repository "+rt.repo)
	}
	entries, err := r.disk.list(linkPath(rt.repo, tagLinks, ""))
	if err != nil {
		return fmt.Errorf("list tags: %w", err)
	}
	n, last := maxPage, req.URL.Query().Get("last")
	if s := req.URL.Query().Get("n"); s != "" {
		asked, err := strconv.Atoi(s)
		if err != nil || asked < 0 {
			return refuse(http.StatusBadRequest, codeUnsupported, "n is %q, want a number", clip(s))
		}
		n = min(n, asked)
	}
	from := sort.Search(len(entries), func(i int) bool { return entries[i].Name() > last })
	page := entries[from:]
	if len(page) > n {
		page = page[:n]
		if n > 0 {
			next := url.Values{"n": {strconv.Itoa(n)}, "last": {page[n-1].Name()}}
			w.Header().Set("Link", fmt.Sprintf("</v2/%s/tags/list?%s>; rel=\"next\"", rt.repo, next.Encode()))
		}
	}
	tags := make([]string, 0, len(page))
	for _, e := range page {
		tags = append(tags, e.Name())
	}
	return writeJSON(w, "application/json", map[string]any{"name": rt.repo, "tags": tags})
}

// listReferrers answers with an index of the manifests whose subject is the digest.
func (r *Registry) listReferrers(w http.ResponseWriter, req *http.Request, rt route) error {
	entries, err := r.disk.list(linkPath(rt.repo, referrerLinks, rt.digest.Hex()))
	if err != nil {
		return fmt.Errorf("list referrers: %w", err)
	}
	wanted := req.URL.Query().Get("artifactType")
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	for _, e := range entries {
		desc, body, err := r.manifest(rt.repo, "sha256:"+e.Name())
		if err != nil {
			continue // corrupt or half deleted: it cannot be fetched either
		}
		c, err := parseContentOf(body)
		if err != nil || wanted != "" && c.artifactType != wanted {
			continue
		}
		index.Manifests = append(index.Manifests, ocispec.Descriptor{
			MediaType: desc.MediaType, Digest: digest.Digest(desc.Digest), Size: desc.Size,
			ArtifactType: c.artifactType, Annotations: c.annotations,
		})
	}
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return writeJSON(w, ocispec.MediaTypeImageIndex, index)
}

// checkReferrers keeps the list of one subject within its bound.
func (r *Registry) checkReferrers(repo string, subject, d fleet.Digest) error {
	if subject == "" {
		return nil
	}
	entries, err := r.disk.list(linkPath(repo, referrerLinks, subject.Hex()))
	if err != nil {
		return fmt.Errorf("list referrers: %w", err)
	}
	i := sort.Search(len(entries), func(i int) bool { return entries[i].Name() >= d.Hex() })
	if known := i < len(entries) && entries[i].Name() == d.Hex(); !known && len(entries) >= maxReferrers {
		return refuse(http.StatusConflict, codeDenied, "%d manifests refer to %s already: delete some", len(entries), subject)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", mediaType)
	_, _ = w.Write(body) // a caller that is gone needs no answer
	return nil
}
