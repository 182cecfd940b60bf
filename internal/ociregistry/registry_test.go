package ociregistry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// authFunc is an Authorizer.
type authFunc func(r *http.Request, repo string, action Action, target Target) error

func (f authFunc) Authorize(r *http.Request, repo string, action Action, target Target) error {
	return f(r, repo, action, target)
}

func allow(*http.Request, string, Action, Target) error { return nil }

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

// server is a registry behind HTTP.
type server struct {
	*Registry
	t     *testing.T
	dir   string
	url   string
	host  string
	clock *clock
}

func serve(t *testing.T, opts Options) *server {
	t.Helper()
	s := &server{t: t, dir: filepath.Join(t.TempDir(), "registry"), clock: &clock{t: time.Now()}}
	if opts.Authorizer == nil {
		opts.Authorizer = authFunc(allow)
	}
	opts.Now = s.clock.now
	r, err := Open(s.dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Registry = r
	srv := httptest.NewServer(r)
	s.url, s.host = srv.URL, strings.TrimPrefix(srv.URL, "http://")
	t.Cleanup(func() {
		srv.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *server) ref(ref string) name.Reference {
	s.t.Helper()
	r, err := name.ParseReference(s.host + "/" + ref)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// do sends one request and returns status, headers and body.
func (s *server) do(method, path string, body io.Reader, header ...string) (int, http.Header, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

// want sends one request and checks its status and, when given, its error code.
func (s *server) want(status int, code, method, path string, body io.Reader, header ...string) (http.Header, string) {
	s.t.Helper()
	got, h, text := s.do(method, path, body, header...)
	if got != status {
		s.t.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, text)
	}
	if code != "" {
		var e struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Code != code || e.Errors[0].Message == "" {
			s.t.Fatalf("%s %s: body %s, want one error of code %s", method, path, text, code)
		}
	}
	return h, text
}

func testIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	idx, err := random.Index(70_000, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	return idx
}

func indexDigest(t *testing.T, idx v1.ImageIndex) fleet.Digest {
	t.Helper()
	h, err := idx.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Digest(h.String())
}

// pushBlob uploads content in one request.
func (s *server) pushBlob(repo string, content []byte) fleet.Digest {
	s.t.Helper()
	d := fleet.DigestOf(content)
	s.want(http.StatusCreated, "", http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+string(d), bytes.NewReader(content))
	return d
}

func layersOf(t *testing.T, idx v1.ImageIndex) []fleet.Digest {
	t.Helper()
	var out []fleet.Digest
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, desc := range m.Manifests {
		img, err := idx.Image(desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		im, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range append(im.Layers, im.Config) {
			out = append(out, fleet.Digest(l.Digest.String()))
		}
		out = append(out, fleet.Digest(desc.Digest.String()))
	}
	return out
}

func TestPushAndPullWithARealClient(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := serve(t, Options{Metrics: reg})
	idx := testIndex(t)
	if err := remote.WriteIndex(s.ref("default/hello:1.0.0"), idx); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"default/hello:1.0.0", "default/hello@" + string(indexDigest(t, idx))} {
		got, err := remote.Index(s.ref(ref))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(got); err != nil {
			t.Errorf("pulled index %s: %v", ref, err)
		}
	}

	desc, err := s.Resolve("default/hello", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if desc.Digest != indexDigest(t, idx) || desc.MediaType != string(types.OCIImageIndex) || desc.Size == 0 {
		t.Errorf("Resolve = %+v", desc)
	}
	body, again, err := s.ReadManifest("default/hello", desc.Digest)
	if err != nil || again != desc || int64(len(body)) != desc.Size {
		t.Errorf("ReadManifest = %d bytes, %+v, %v; want %+v", len(body), again, err, desc)
	}
	layers := layersOf(t, idx)
	if _, err := s.ReadBlob("default/hello", layers[0], 1<<20); err != nil {
		t.Errorf("ReadBlob: %v", err)
	}
	if _, err := s.ReadBlob("default/hello", layers[0], 10); !errors.Is(err, errTooLarge) {
		t.Errorf("ReadBlob beyond its limit: %v", err)
	}
	if _, err := s.ReadBlob("other/hello", layers[0], 1<<20); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadBlob of a repository without the blob: %v, want fs.ErrNotExist", err)
	}
	if _, err := s.Resolve("default/hello", "2.0.0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Resolve of no tag: %v, want fs.ErrNotExist", err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	if !slices.Contains(names, "skerry_registry_requests_total") || !slices.Contains(names, "skerry_registry_sent_bytes_total") {
		t.Errorf("metrics are %v", names)
	}
}

func TestContentSurvivesReopen(t *testing.T) {
	s := serve(t, Options{})
	idx := testIndex(t)
	if err := remote.WriteIndex(s.ref("default/hello:1.0.0"), idx); err != nil {
		t.Fatal(err)
	}
	// What a killed process leaves behind: files in tmp, and nothing half-written elsewhere.
	if err := os.WriteFile(filepath.Join(s.dir, tmpDir, "half"), []byte("half a blo"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if d, err := again.Resolve("default/hello", "1.0.0"); err != nil || d.Digest != indexDigest(t, idx) {
		t.Errorf("Resolve after reopening = %v, %v", d, err)
	}
	if left, err := os.ReadDir(filepath.Join(s.dir, tmpDir)); err != nil || len(left) != 0 {
		t.Errorf("tmp holds %v, %v after Open; want nothing", left, err)
	}
}

func TestTagsAreImmutable(t *testing.T) {
	s := serve(t, Options{})
	first := testIndex(t)
	if err := remote.WriteIndex(s.ref("default/hello:1.0.0"), first); err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(s.ref("default/hello:1.0.0"), first); err != nil {
		t.Errorf("the same content again: %v", err)
	}
	err := remote.WriteIndex(s.ref("default/hello:1.0.0"), testIndex(t))
	var te *transport.Error
	if !errors.As(err, &te) || te.StatusCode != http.StatusConflict || te.Errors[0].Code != transport.DeniedErrorCode ||
		te.Errors[0].Message != "version 1.0.0 of default/hello exists with another content; choose a new version" {
		t.Errorf("other content: %v, want 409 DENIED", err)
	}
	if d, err := s.Resolve("default/hello", "1.0.0"); err != nil || d.Digest != indexDigest(t, first) {
		t.Errorf("the tag now names %v, %v", d, err)
	}

	loose := serve(t, Options{MutableTags: true})
	last := testIndex(t)
	for _, idx := range []v1.ImageIndex{first, last} {
		if err := remote.WriteIndex(loose.ref("default/hello:latest"), idx); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := loose.Resolve("default/hello", "latest"); err != nil || d.Digest != indexDigest(t, last) {
		t.Errorf("with MutableTags the tag names %v, %v", d, err)
	}
}

func TestAuthorization(t *testing.T) {
	type asked struct {
		Repo   string
		Action Action
		Target Target
	}
	d := fleet.DigestOf([]byte("x"))
	blob := "/v2/default/hello/blobs/" + string(d)
	tests := []struct {
		reason       string
		method, path string
		answer       error
		status       int
		code         string
		want         asked
	}{
		{"a ping tells a client whether it is known", "GET", "/v2/", ErrUnauthenticated, 401, codeUnauthorized, asked{"", ActionPull, Target{Kind: TargetRegistry}}},
		{"a denied pull is 403", "GET", blob, ErrDenied, 403, codeDenied, asked{"default/hello", ActionPull, Target{Kind: TargetBlob, Digest: d}}},
		{"a HEAD is a pull", "HEAD", blob, ErrDenied, 403, "", asked{"default/hello", ActionPull, Target{Kind: TargetBlob, Digest: d}}},
		{"an upload is a push", "POST", "/v2/default/hello/blobs/uploads/", ErrDenied, 403, codeDenied, asked{"default/hello", ActionPush, Target{Kind: TargetBlob}}},
		{"asking how far an upload is is a push", "GET", "/v2/default/hello/blobs/uploads/abc", ErrDenied, 403, codeDenied, asked{"default/hello", ActionPush, Target{Kind: TargetBlob}}},
		{"cancelling an upload is a push", "DELETE", "/v2/default/hello/blobs/uploads/abc", ErrDenied, 403, codeDenied, asked{"default/hello", ActionPush, Target{Kind: TargetBlob}}},
		{"a tag is named", "PUT", "/v2/default/hello/manifests/1.0", ErrDenied, 403, codeDenied, asked{"default/hello", ActionPush, Target{Kind: TargetManifest, Tag: "1.0"}}},
		{"a removal is a removal", "DELETE", "/v2/default/hello/manifests/" + string(d), ErrDenied, 403, codeDenied, asked{"default/hello", ActionDelete, Target{Kind: TargetManifest, Digest: d}}},
		{"tags are listed by a pull", "GET", "/v2/default/hello/tags/list", ErrDenied, 403, codeDenied, asked{"default/hello", ActionPull, Target{Kind: TargetTags}}},
		{"referrers too", "GET", "/v2/default/hello/referrers/" + string(d), ErrDenied, 403, codeDenied, asked{"default/hello", ActionPull, Target{Kind: TargetReferrers, Digest: d}}},
		{"an error of the authorizer is not shown", "GET", blob, errors.New("secret"), 500, codeUnknown, asked{"default/hello", ActionPull, Target{Kind: TargetBlob, Digest: d}}},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			var got asked
			s := serve(t, Options{Authorizer: authFunc(func(_ *http.Request, repo string, a Action, target Target) error {
				got = asked{repo, a, target}
				return tt.answer
			})})
			h, body := s.want(tt.status, tt.code, tt.method, tt.path, nil)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			if (h.Get("WWW-Authenticate") != "") != (tt.status == 401) {
				t.Errorf("WWW-Authenticate is %q", h.Get("WWW-Authenticate"))
			}
			if strings.Contains(body, "secret") {
				t.Errorf("body tells %s", body)
			}
		})
	}
	t.Run("without an authorizer nobody may do anything", func(t *testing.T) {
		r, err := Open(t.TempDir(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("GET", "/v2/", nil))
		if w.Code != http.StatusForbidden {
			t.Errorf("status %d", w.Code)
		}
	})
}

func TestRangesAndConditions(t *testing.T) {
	s := serve(t, Options{})
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	d := s.pushBlob("default/hello", content)
	path := "/v2/default/hello/blobs/" + string(d)
	etag := `"` + string(d) + `"`
	h, body := s.want(http.StatusPartialContent, "", "GET", path, nil, "Range", "bytes=99995-")
	if body != "56789" || h.Get("Content-Range") != "bytes 99995-99999/100000" {
		t.Errorf("range gave %q, %q", body, h.Get("Content-Range"))
	}
	if _, body = s.want(http.StatusPartialContent, "", "GET", path, nil, "Range", "bytes=0-4", "If-Range", etag); body != "01234" {
		t.Errorf("range with If-Range gave %q", body)
	}
	if _, body = s.want(http.StatusOK, "", "GET", path, nil, "Range", "bytes=0-4", "If-Range", `"other"`); len(body) != len(content) {
		t.Errorf("If-Range of other content gave %d bytes, want all", len(body))
	}
	s.want(http.StatusRequestedRangeNotSatisfiable, "", "GET", path, nil, "Range", "bytes=100000-")
	s.want(http.StatusNotModified, "", "GET", path, nil, "If-None-Match", etag)
	h, body = s.want(http.StatusOK, "", "HEAD", path, nil)
	if body != "" || h.Get("Content-Length") != "100000" || h.Get("Docker-Content-Digest") != string(d) {
		t.Errorf("HEAD gave %q, %v", body, h)
	}
	s.want(http.StatusNotFound, codeBlobUnknown, "GET", "/v2/default/other/blobs/"+string(d), nil)
}

func TestCorruptContentIsSetAsideAndHealed(t *testing.T) {
	for _, size := range []int{100, 200_000} { // below and above the size up to which each read verifies
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := serve(t, Options{})
			content := bytes.Repeat([]byte("x"), size)
			d := s.pushBlob("default/hello", content)
			path := "/v2/default/hello/blobs/" + string(d)
			s.want(http.StatusOK, "", "GET", path, nil)

			file := filepath.Join(s.dir, blobPath(d))
			s.clock.add(time.Second)
			spoil(t, file)
			_, body := s.want(http.StatusNotFound, codeBlobUnknown, "GET", path, nil)
			if !strings.Contains(body, "corrupt") {
				t.Errorf("the answer does not say why: %s", body)
			}
			if _, err := os.Stat(filepath.Join(s.dir, quarantineDir, d.Hex())); err != nil {
				t.Errorf("corrupt content was not set aside: %v", err)
			}
			s.want(http.StatusNotFound, "", "HEAD", path, nil) // so that a client pushes it again
			s.pushBlob("default/hello", content)
			if _, body := s.want(http.StatusOK, "", "GET", path, nil); body != string(content) {
				t.Error("pushed again, the content is not what it was")
			}
			if s.disk.quarantined(d) {
				t.Error("healed content is still set aside")
			}
			if _, err := s.ReadBlob("default/hello", d, 1<<20); err != nil {
				t.Error(err)
			}
			spoil(t, file)
			if _, err := s.ReadBlob("default/hello", d, 1<<20); !errors.Is(err, fleet.ErrDigest) {
				t.Errorf("ReadBlob of corrupt content: %v, want fleet.ErrDigest", err)
			}
		})
	}
}

// spoil changes one byte of a file, as a bad disk does.
func spoil(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestManifestRules(t *testing.T) {
	s := serve(t, Options{MaxManifestBytes: 2000})
	config := s.pushBlob("default/hello", []byte("{}"))
	manifest := func(digest fleet.Digest, size int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/x","digest":%q,"size":%d},"layers":[]}`, types.OCIManifestSchema1, digest, size)
	}
	good := manifest(config, 2)
	elsewhere := s.pushBlob("other/hello", []byte("secret of another namespace"))
	tests := []struct {
		reason, ref, mediaType, body string
		status                       int
		code                         string
	}{
		{"a good manifest is taken", "1.0", string(types.OCIManifestSchema1), good, 201, ""},
		{"its own digest names it", string(fleet.DigestOf([]byte(good))), string(types.OCIManifestSchema1), good, 201, ""},
		{"another digest does not", string(config), string(types.OCIManifestSchema1), good, 400, codeDigestInvalid},
		{"the type must be known", "1.1", "text/plain", good, 400, codeManifestInvalid},
		{"the type must be that of the content", "1.1", string(types.OCIImageIndex), good, 400, codeManifestInvalid},
		{"it must be JSON", "1.1", string(types.OCIManifestSchema1), "{", 400, codeManifestInvalid},
		{"an old schema is refused", "1.1", string(types.OCIManifestSchema1), `{"schemaVersion":1}`, 400, codeManifestInvalid},
		{"what it names must be a digest", "1.1", string(types.OCIManifestSchema1), manifest("sha256:../../x", 2), 400, codeManifestInvalid},
		{"what it names must be here", "1.1", string(types.OCIManifestSchema1), manifest(fleet.DigestOf([]byte("no")), 2), 404, codeManifestBlobUnknown},
		{"content of another repository is not gained by naming it", "1.1", string(types.OCIManifestSchema1), manifest(elsewhere, 27), 404, codeManifestBlobUnknown},
		{"sizes must be true", "1.1", string(types.OCIManifestSchema1), manifest(config, 3), 400, codeManifestInvalid},
		{"it must not be too large", "1.1", string(types.OCIManifestSchema1), good + strings.Repeat(" ", 2000), 413, codeSizeInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			s.t = t
			s.want(tt.status, tt.code, "PUT", "/v2/default/hello/manifests/"+tt.ref, strings.NewReader(tt.body), "Content-Type", tt.mediaType)
		})
	}
	s.t = t
	s.want(http.StatusNotFound, codeManifestUnknown, "GET", "/v2/default/hello/manifests/1.1", nil)
}

func TestListsTagsInPages(t *testing.T) {
	s := serve(t, Options{})
	idx := testIndex(t)
	want := []string{"1.0.0", "1.1.0", "2.0.0", "3.0.0", "latest"}
	for _, tag := range want {
		if err := remote.WriteIndex(s.ref("default/hello:"+tag), idx); err != nil {
			t.Fatal(err)
		}
	}
	repo := s.ref("default/hello").Context()
	for _, size := range []int{1, 2, 5, 1000} {
		got, err := remote.List(repo, remote.WithPageSize(size))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
	s.want(http.StatusBadRequest, codeUnsupported, "GET", "/v2/default/hello/tags/list?n=-1", nil)
	s.want(http.StatusNotFound, codeNameUnknown, "GET", "/v2/default/nothing/tags/list", nil)
	if _, body := s.want(http.StatusOK, "", "GET", "/v2/default/hello/tags/list?n=0", nil); !strings.Contains(body, `"tags":[]`) {
		t.Errorf("n=0 gave %s", body)
	}
}

func TestReferrers(t *testing.T) {
	s := serve(t, Options{})
	idx := testIndex(t)
	if err := remote.WriteIndex(s.ref("default/hello:1.0.0"), idx); err != nil {
		t.Fatal(err)
	}
	desc, err := partial.Descriptor(idx)
	if err != nil {
		t.Fatal(err)
	}
	sbom := attach(t, *desc, "application/vnd.example.sbom")
	sig := attach(t, *desc, "application/vnd.example.signature")
	for _, img := range []v1.Image{sbom, sig} {
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(s.ref("default/hello@"+d.String()), img); err != nil {
			t.Fatal(err)
		}
	}
	digest := s.ref("default/hello@" + desc.Digest.String()).(name.Digest)
	count := func(opts ...remote.Option) int {
		t.Helper()
		found, err := remote.Referrers(digest, opts...)
		if err != nil {
			t.Fatal(err)
		}
		m, err := found.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		return len(m.Manifests)
	}
	if n := count(); n != 2 {
		t.Errorf("%d referrers, want 2", n)
	}
	if n := count(remote.WithFilter("artifactType", "application/vnd.example.sbom")); n != 1 {
		t.Errorf("%d SBOMs, want 1", n)
	}
	sigDigest, err := sig.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Delete(s.ref("default/hello@" + sigDigest.String())); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 1 {
		t.Errorf("%d referrers after one was deleted, want 1", n)
	}
}

// attach makes an artifact whose subject is desc.
func attach(t *testing.T, desc v1.Descriptor, artifactType types.MediaType) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(emptyImage(t), types.OCIManifestSchema1), artifactType)
	return mutate.Subject(img, desc).(v1.Image)
}

func emptyImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(10, 0)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.AppendLayers(img, static.NewLayer([]byte("attached"), "text/plain"))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestDelete(t *testing.T) {
	s := serve(t, Options{})
	idx := testIndex(t)
	for _, tag := range []string{"1.0.0", "1.0.1"} {
		if err := remote.WriteIndex(s.ref("default/hello:"+tag), idx); err != nil {
			t.Fatal(err)
		}
	}
	digest := "default/hello@" + string(indexDigest(t, idx))
	if err := remote.Delete(s.ref("default/hello:1.0.1")); err != nil {
		t.Fatal(err)
	}
	s.want(http.StatusNotFound, codeManifestUnknown, "GET", "/v2/default/hello/manifests/1.0.1", nil)
	if _, err := remote.Index(s.ref(digest)); err != nil {
		t.Errorf("the manifest went with one of its tags: %v", err)
	}
	if err := remote.Delete(s.ref(digest)); err != nil {
		t.Fatal(err)
	}
	s.want(http.StatusNotFound, codeManifestUnknown, "GET", "/v2/default/hello/manifests/1.0.0", nil)
	s.want(http.StatusNotFound, codeManifestUnknown, "DELETE", "/v2/default/hello/manifests/1.0.0", nil)
	blob := "/v2/default/hello/blobs/" + string(layersOf(t, idx)[0])
	s.want(http.StatusAccepted, "", "DELETE", blob, nil)
	s.want(http.StatusNotFound, codeBlobUnknown, "GET", blob, nil)
	s.want(http.StatusNotFound, codeBlobUnknown, "DELETE", blob, nil)
	s.want(http.StatusMethodNotAllowed, codeUnsupported, "POST", "/v2/default/hello/tags/list", nil)
}

func TestReaches(t *testing.T) {
	s := serve(t, Options{})
	mine, other := testIndex(t), testIndex(t)
	for tag, idx := range map[string]v1.ImageIndex{"mine": mine, "other": other} {
		if err := remote.WriteIndex(s.ref("default/hello:"+tag), idx); err != nil {
			t.Fatal(err)
		}
	}
	root := indexDigest(t, mine)
	for range 2 { // the second time from memory
		for _, d := range append(layersOf(t, mine), root) {
			if !s.Reaches([]fleet.Digest{fleet.DigestOf(nil), root}, d) {
				t.Errorf("%s is not reached", d)
			}
		}
		for _, d := range append(layersOf(t, other), indexDigest(t, other)) {
			if s.Reaches([]fleet.Digest{root, "no digest"}, d) {
				t.Errorf("%s of another root is reached", d)
			}
		}
	}
	if s.Reaches(nil, root) {
		t.Error("no roots reach something")
	}
	layer := layersOf(t, mine)[0]
	if s.Reaches([]fleet.Digest{layer}, root) || !s.Reaches([]fleet.Digest{layer}, layer) {
		t.Error("a layer as a root must reach itself alone")
	}
}

func TestConcurrentPushesAndPulls(t *testing.T) {
	s := serve(t, Options{})
	shared := testIndex(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			ref := s.ref(fmt.Sprintf("default/app%d:1.0.0", i%3))
			if err := remote.WriteIndex(ref, shared, remote.WithContext(context.Background())); err != nil {
				t.Error(err)
				return
			}
			got, err := remote.Index(ref)
			if err != nil {
				t.Error(err)
				return
			}
			if err := validate.Index(got); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
