package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/ociregistry"
)

// answers is a server that answers every request with fn, and a Fetcher that asks it.
func answers(t *testing.T, fn http.HandlerFunc) Fetcher {
	t.Helper()
	srv := httptest.NewServer(fn)
	t.Cleanup(srv.Close)
	return NewHTTPFetcher(srv.Client(), func() []string { return []string{srv.URL + "/"} })
}

func TestHTTPFetcherAsks(t *testing.T) {
	blob := ContentRef{Digest: fleet.DigestOf([]byte("0123456789")), Size: 10}
	manifest := blob
	manifest.Manifest = true
	tests := []struct {
		reason string
		ref    ContentRef
		offset int64
		path   string
		header map[string]string
		want   string
	}{
		{"a blob", blob, 0, "/v2/default/hello/blobs/" + string(blob.Digest), map[string]string{"Range": "", "Accept-Encoding": "identity"}, "0123456789"},
		{"the rest of a blob", blob, 4, "/v2/default/hello/blobs/" + string(blob.Digest), map[string]string{"Range": "bytes=4-", "If-Range": `"` + string(blob.Digest) + `"`}, "456789"},
		{"a manifest", manifest, 0, "/v2/default/hello/manifests/" + string(blob.Digest), map[string]string{"Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"}, "0123456789"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			f := answers(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != tt.path {
					t.Errorf("%s %s, want GET %s", r.Method, r.URL.Path, tt.path)
				}
				for name, want := range tt.header {
					if got := r.Header.Get(name); got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
				w.Header().Set("Etag", `"`+string(blob.Digest)+`"`)
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
			})
			body, err := f.Fetch(t.Context(), "default/hello", tt.ref, tt.offset)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(body)
			if err := errors.Join(err, body.Close()); err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestHTTPFetcherRefuses(t *testing.T) {
	ref := ContentRef{Digest: fleet.DigestOf([]byte("0123456789")), Size: 10}
	status := func(code int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	tests := []struct {
		reason string
		answer http.HandlerFunc
		offset int64
		status int   // of a FetchError
		is     error // or what it wraps
		says   string
	}{
		{"a refusal is told with status and message", status(403, `{"errors":[{"code":"DENIED","message":"not in your manifest"}]}`), 0, 403, nil, "403 Forbidden: not in your manifest"},
		{"one without JSON too", status(502, "proxy is tired\n"), 0, 502, nil, "502 Bad Gateway: proxy is tired"},
		{"what a refusal says is bounded", status(500, strings.Repeat("x", 1<<20)), 0, 500, nil, "500"},
		{"a redirect is not followed, it would show the site's identity elsewhere", status(302, "", "Location", "http://192.0.2.1/"), 0, 302, nil, "302"},
		{"nothing from there on means other content", status(416, ""), 4, 416, fleet.ErrDigest, "416"},
		{"another size", status(200, "0123456789ab"), 0, 0, fleet.ErrDigest, "12 bytes are offered, want 10"},
		{"another range", status(206, "23456789", "Content-Range", "bytes 2-9/10"), 4, 0, fleet.ErrDigest, "Content-Range"},
		{"a range of content of another size", status(206, "456789ab", "Content-Range", "bytes 4-11/12"), 4, 0, fleet.ErrDigest, "Content-Range"},
		{"a part when all was asked for", status(206, "0123456789", "Content-Range", "bytes 0-9/10"), 0, 206, nil, "206"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			_, err := answers(t, tt.answer).Fetch(t.Context(), "default/hello", ref, tt.offset)
			if err == nil || !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 5000 {
				t.Fatalf("error %.200v, want one that says %q", err, tt.says)
			}
			var fe *FetchError
			if errors.As(err, &fe) != (tt.status != 0) || fe != nil && fe.Status != tt.status {
				t.Errorf("error %v, want status %d", err, tt.status)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v, want it to wrap %v", err, tt.is)
			}
		})
	}
	never := answers(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	for _, repo := range []string{"", "a//b", "../x", "a/../../b", "a/b?x", "a/b#x", "a b", "a/%2e%2e"} {
		if _, err := never.Fetch(t.Context(), repo, ref, 0); !errors.Is(err, fleet.ErrInvalidName) {
			t.Errorf("repository %q: %v", repo, err)
		}
	}
	unknown := NewHTTPFetcher(http.DefaultClient, func() []string { return nil })
	if _, err := unknown.Fetch(t.Context(), "a/b", ref, 0); err == nil {
		t.Error("without an address something was fetched")
	}
}

// TestHTTPFetcherTriesEveryAddress gives it addresses of which some answer, and some refuse.
func TestHTTPFetcherTriesEveryAddress(t *testing.T) {
	blob := ContentRef{Digest: fleet.DigestOf([]byte("0123456789")), Size: 10}
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0123456789") }))
	t.Cleanup(good.Close)
	var asked atomic.Int32
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); http.Error(w, "no", http.StatusForbidden) }))
	t.Cleanup(refusing.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	tests := []struct {
		reason string
		urls   []string
		ok     bool
		asked  int32
	}{
		{"the first answers", []string{good.URL, refusing.URL}, true, 0},
		{"the first cannot be reached", []string{gone.URL, good.URL}, true, 0},
		{"an answer is an answer, by whichever way", []string{refusing.URL, good.URL}, false, 1},
		{"none can be reached", []string{gone.URL, gone.URL}, false, 0},
	}
	for _, tt := range tests {
		asked.Store(0)
		f := NewHTTPFetcher(good.Client(), func() []string { return tt.urls })
		body, err := f.Fetch(t.Context(), "a/b", blob, 0)
		if (err == nil) != tt.ok || asked.Load() != tt.asked {
			t.Errorf("%s: %v, the refusing one was asked %d times", tt.reason, err, asked.Load())
		}
		if err == nil {
			body.Close()
		}
	}
}

func TestHTTPFetcherEndsWhatStalls(t *testing.T) {
	release := make(chan struct{})
	var answered atomic.Bool
	f := answers(t, func(w http.ResponseWriter, r *http.Request) {
		if answered.CompareAndSwap(false, true) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "01234")
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}).(*httpFetcher)
	defer close(release)
	f.stall = 50 * time.Millisecond
	ref := ContentRef{Digest: fleet.DigestOf(nil), Size: 10}
	body, err := f.Fetch(t.Context(), "a/b", ref, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err == nil || !strings.Contains(err.Error(), "nothing arrived") || string(got) != "01234" {
		t.Errorf("a body that stalls: %q, %v", got, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Fetch(t.Context(), "a/b", ref, 0); err == nil || !strings.Contains(err.Error(), "nothing arrived") {
		t.Errorf("an answer that does not begin: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Fetch(ctx, "a/b", ref, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: %v", err)
	}
}

// A server that lies or breaks in any way never gets its content taken; one that heals is.
func TestEnsureOverBadServers(t *testing.T) {
	data := randomBytes(200_000)
	ref := ContentRef{Digest: fleet.DigestOf(data), Size: int64(len(data))}
	good := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"`+string(ref.Digest)+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	hangUp := func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }
	tests := []struct {
		reason string
		answer func(n int, w http.ResponseWriter, r *http.Request)
		fails  bool
	}{
		{"the connection breaks after 30000 bytes each time", func(_ int, w http.ResponseWriter, r *http.Request) {
			good(&cut{ResponseWriter: w, left: 30_000}, r)
		}, false},
		{"ranges are ignored", func(n int, w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			if n == 0 {
				good(&cut{ResponseWriter: w, left: 50_000}, r)
			}
			good(w, r)
		}, false},
		{"three wrong answers, then the right one", func(n int, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				_, _ = w.Write(make([]byte, len(data)))
				return
			}
			good(w, r)
		}, false},
		{"wrong bytes before a break are found and thrown away", func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 0 {
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				_, _ = w.Write(make([]byte, 1000))
				hangUp(w)
			}
			good(w, r)
		}, false},
		{"it is away, then refuses, then answers", func(n int, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 0:
				hangUp(w)
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			default:
				good(w, r)
			}
		}, false},
		{"always wrong bytes", func(_ int, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, len(data))) }, true},
		{"always too much, without saying how much", func(_ int, w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).Flush()
			for range 100 {
				_, _ = w.Write(data)
			}
		}, true},
		{"always too little, without saying how much", func(_ int, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data[1:]) }, true},
		{"always another size", func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)-1))
			_, _ = w.Write(data[1:])
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			var mu sync.Mutex
			n := 0
			c := content(t, answers(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				at := n
				n++
				mu.Unlock()
				tt.answer(at, w, r)
			}))
			err := c.Ensure(t.Context(), "default/hello", ref)
			if tt.fails {
				if !errors.Is(err, fleet.ErrDigest) {
					t.Errorf("error %v, want fleet.ErrDigest", err)
				}
				if left := files(t, c.blobDir()); len(left) != 0 {
					t.Errorf("blobs are %v", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Read(ref.Digest); err != nil || !bytes.Equal(got, data) {
				t.Errorf("Read: %v", err)
			}
		})
	}
}

// cut hangs up after so many bytes.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// From a push by a real client, through the hub's registry, to the disk of a site.
func TestContentFromTheRegistry(t *testing.T) {
	dir := t.TempDir()
	reg, err := ociregistry.Open(filepath.Join(dir, "registry"), ociregistry.Options{Authorizer: anyone{}})
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && requests.Add(1)%2 == 0 && r.Header.Get("User-Agent") == "Go-http-client/1.1" {
			reg.ServeHTTP(&cut{ResponseWriter: w, left: 20_000}, r)
			return
		}
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { srv.Close(); _ = reg.Close() })
	idx, err := random.Index(50_000, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.ParseReference(strings.TrimPrefix(srv.URL, "http://") + "/default/hello:1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, idx); err != nil {
		t.Fatal(err)
	}

	c := content(t, NewHTTPFetcher(srv.Client(), func() []string { return []string{srv.URL} }))
	root, err := reg.Resolve("default/hello", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	refs := []ContentRef{{Digest: root.Digest, Size: root.Size, Manifest: true}}
	index, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range index.Manifests {
		refs = append(refs, ContentRef{Digest: fleet.Digest(m.Digest.String()), Size: m.Size, Manifest: true})
		img, err := idx.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range append(manifest.Layers, manifest.Config) {
			refs = append(refs, ContentRef{Digest: fleet.Digest(l.Digest.String()), Size: l.Size})
		}
	}
	if err := c.Ensure(t.Context(), "default/hello", refs...); err != nil {
		t.Fatal(err)
	}
	for _, ref := range refs {
		if _, err := c.Path(ref.Digest); err != nil {
			t.Error(err)
		}
	}
	srv.Close() // with the hub away all of it is still there
	if err := c.Ensure(t.Context(), "default/hello", refs...); err != nil {
		t.Errorf("with the hub away: %v", err)
	}
}

type anyone struct{}

func (anyone) Authorize(*http.Request, string, ociregistry.Action, ociregistry.Target) error {
	return nil
}

// TestRefusedConnectionIsNotUsedAgain: a connection shows the certificate with which it began, so that after
// a renewal a refused one would be refused for as long as attempts keep it alive.
func TestRefusedConnectionIsNotUsedAgain(t *testing.T) {
	for _, code := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		old := ""
		f := answers(t, func(w http.ResponseWriter, r *http.Request) {
			if old == "" || r.RemoteAddr == old {
				old = r.RemoteAddr
				http.Error(w, "the certificate of this connection has ended", code)
				return
			}
			_, _ = io.WriteString(w, "0123456789")
		})
		ref := ContentRef{Digest: fleet.DigestOf([]byte("0123456789")), Size: 10}
		if _, err := f.Fetch(t.Context(), "default/hello", ref, 0); err == nil {
			t.Fatalf("%d is no error", code)
		}
		body, err := f.Fetch(t.Context(), "default/hello", ref, 0)
		if err != nil {
			t.Fatalf("after %d: %v", code, err)
		}
		body.Close()
	}
}
