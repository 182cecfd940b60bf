package ociregistry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParsePath(t *testing.T) {
	const repo = "default/hello"
	tests := []struct {
		reason, path string
		want         route
	}{
		{"the root tells whether this is a registry", "/v2/", route{kind: kindPing}},
		{"without its slash too", "/v2", route{kind: kindPing}},
		{"a blob", "/v2/default/hello/blobs/" + someDigest, route{kind: kindBlob, repo: repo, digest: someDigest}},
		{"uploads", "/v2/default/hello/blobs/uploads/", route{kind: kindUploads, repo: repo}},
		{"uploads without a slash", "/v2/default/hello/blobs/uploads", route{kind: kindUploads, repo: repo}},
		{"one upload", "/v2/default/hello/blobs/uploads/AB12", route{kind: kindUpload, repo: repo, upload: "AB12"}},
		{"a manifest by tag", "/v2/default/hello/manifests/v1.0_x-Y", route{kind: kindManifest, repo: repo, tag: "v1.0_x-Y"}},
		{"a manifest by digest", "/v2/default/hello/manifests/" + someDigest, route{kind: kindManifest, repo: repo, digest: someDigest}},
		{"tags", "/v2/default/hello/tags/list", route{kind: kindTags, repo: repo}},
		{"referrers", "/v2/default/hello/referrers/" + someDigest, route{kind: kindReferrers, repo: repo, digest: someDigest}},
		{"names with inner marks", "/v2/a-b/c__d.e--f_g/tags/list", route{kind: kindTags, repo: "a-b/c__d.e--f_g"}},
		{"a namespace with a dot is none of Kubernetes", "/v2/a.b/c/tags/list", route{}},
		{"no upper case", "/v2/Default/hello/tags/list", route{}},
		{"one component is too few", "/v2/hello/tags/list", route{}},
		{"three are too many", "/v2/a/b/c/tags/list", route{}},
		{"no climbing in the namespace", "/v2/../hello/tags/list", route{}},
		{"no climbing in the name", "/v2/default/../tags/list", route{}},
		{"no climbing in a tag", "/v2/default/hello/manifests/..", route{}},
		{"no climbing in a digest", "/v2/default/hello/blobs/sha256:../../../../etc/passwd", route{}},
		{"no own directories as names", "/v2/default/_blobs/tags/list", route{}},
		{"no two separators in a row", "/v2/default/a..b/tags/list", route{}},
		{"no three underscores", "/v2/default/a___b/tags/list", route{}},
		{"no name without end", "/v2/default/" + strings.Repeat("a", 129) + "/tags/list", route{}},
		{"no tag without end", "/v2/default/hello/manifests/" + strings.Repeat("a", 129), route{}},
		{"no other algorithm", "/v2/default/hello/blobs/sha512:" + strings.Repeat("a", 128), route{}},
		{"no other noun", "/v2/default/hello/secrets/x", route{}},
		{"no other version", "/v1/default/hello/tags/list", route{}},
		{"no nul", "/v2/default/hel\x00lo/tags/list", route{}},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			got, err := parsePath(tt.path)
			if tt.want.kind == "" {
				var ref *refusal
				if !errors.As(err, &ref) || ref.status/100 != 4 {
					t.Fatalf("parsePath = %+v, %v; want a refusal", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(route{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestNamesOfInProcessCallsAreChecked(t *testing.T) {
	s := serve(t, Options{})
	for _, repo := range []string{"", "x", "../x", "a/../b", "a/b/c"} {
		if _, err := s.Resolve(repo, "1"); !errors.Is(err, ErrReference) {
			t.Errorf("Resolve in %q: %v, want ErrReference", repo, err)
		}
		if _, err := s.ReadBlob(repo, someDigest, 1); !errors.Is(err, ErrReference) {
			t.Errorf("ReadBlob in %q: %v, want ErrReference", repo, err)
		}
	}
	for _, ref := range []string{"", "..", "a/b", "sha256:x"} {
		if _, err := s.Resolve("a/b", ref); !errors.Is(err, ErrReference) {
			t.Errorf("Resolve of %q: %v, want ErrReference", ref, err)
		}
	}
	if _, _, err := s.ReadManifest("a/b", "x"); !errors.Is(err, fleet.ErrDigest) {
		t.Errorf("ReadManifest of a bad digest: %v", err)
	}
}

// FuzzRequest sends any method and path: the registry answers without failing, and writes nothing outside
// its directory.
func FuzzRequest(f *testing.F) {
	for _, p := range []string{
		"/v2/", "/v2/a/b/blobs/" + someDigest, "/v2/a/b/blobs/uploads/?digest=" + someDigest, "/v2/a/b/manifests/x",
		"/v2/a/b/tags/list?n=1&last=x", "/v2/../../blobs/uploads/", "/v2/a%2fb/c/tags/list", "/v2/a/b/blobs/uploads/?mount=" + someDigest + "&from=../x",
	} {
		f.Add("GET", p, []byte("{}"))
		f.Add("POST", p, []byte(""))
		f.Add("PUT", p, []byte(`{"schemaVersion":2}`))
	}
	parent := f.TempDir()
	r, err := Open(filepath.Join(parent, "registry"), Options{Authorizer: authFunc(allow), MaxUploads: 4})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = r.Close() })
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		req, err := http.NewRequest(method, "http://x", strings.NewReader(string(body)))
		if err != nil {
			return
		}
		u, err := req.URL.Parse(target)
		if err != nil {
			return
		}
		req.URL = u
		req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code >= 500 {
			t.Errorf("%s %s: status %d: %s", method, target, w.Code, w.Body)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("%s %s wrote outside: %v, %v", method, target, entries, err)
		}
	})
}

// FuzzManifest gives any bytes as a manifest.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"` + someDigest + `","size":0},"layers":null}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:x"}],"subject":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseContentOf(body)
		if err != nil {
			return
		}
		for _, d := range append(c.children, c.leaves...) {
			if d.Validate() != nil {
				t.Errorf("a malformed digest passed: %q", d)
			}
		}
	})
}
