package ociclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/ociclient"
	"github.com/skerry-dev/skerry/internal/ociregistry"
)

// account lets in who shows the token or the password, and keeps others from namespace "closed".
type account struct{}

func (account) Authorize(r *http.Request, repo string, _ ociregistry.Action, _ ociregistry.Target) error {
	_, password, _ := r.BasicAuth()
	if r.Header.Get("Authorization") != "Bearer good" && password != "good" {
		return ociregistry.ErrUnauthenticated
	}
	if strings.HasPrefix(repo, "closed/") {
		return fmt.Errorf("user x may not create bundles in namespace closed: %w", ociregistry.ErrDenied)
	}
	return nil
}

// hub is a registry behind TLS.
func hub(t *testing.T) (host string, base http.RoundTripper) {
	t.Helper()
	r, err := ociregistry.Open(t.TempDir(), ociregistry.Options{Authorizer: account{}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(r)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what some tests are about
	srv.StartTLS()
	t.Cleanup(func() {
		srv.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return strings.TrimPrefix(srv.URL, "https://"), srv.Client().Transport
}

// token adds a bearer token to each request, as the transport of a kubeconfig does.
type token struct {
	base  http.RoundTripper
	value string
}

func (t token) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+t.value)
	return t.base.RoundTrip(req)
}

// logins is a keychain with one password for every registry.
type logins string

func (l logins) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "x", Password: string(l)}, nil
}

func randomIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	idx, err := random.Index(50_000, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	return idx
}

func digestOf(t *testing.T, idx v1.ImageIndex) fleet.Digest {
	t.Helper()
	h, err := idx.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Digest(h.String())
}

func TestPushAndResolve(t *testing.T) {
	host, base := hub(t)
	idx := randomIndex(t)
	var done, total, calls int64
	opts := ociclient.Options{Transport: token{base, "good"}, Progress: func(d, n int64) { done, total, calls = d, n, calls+1 }}
	pushed, err := ociclient.Push(t.Context(), host+"/default/hello:1.0.0", idx, opts)
	if err != nil {
		t.Fatal(err)
	}
	if pushed.Digest != digestOf(t, idx) || pushed.Ref != host+"/default/hello@"+string(pushed.Digest) {
		t.Errorf("Push = %+v", pushed)
	}
	if calls == 0 || done != total || total < 4*50_000 {
		t.Errorf("progress ended at %d of %d after %d calls", done, total, calls)
	}
	for _, ref := range []string{host + "/default/hello:1.0.0", pushed.Ref} {
		got, err := ociclient.Resolve(t.Context(), ref, opts)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(pushed, got); diff != "" {
			t.Errorf("Resolve %s (-pushed +got):\n%s", ref, diff)
		}
	}
}

func TestErrorsSayWhyAndWhatToDo(t *testing.T) {
	host, base := hub(t)
	good := ociclient.Options{Transport: token{base, "good"}}
	if _, err := ociclient.Push(t.Context(), host+"/default/hello:1.0.0", randomIndex(t), good); err != nil {
		t.Fatal(err)
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	gone := strings.TrimPrefix(closed.URL, "http://")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	push := func(ctx context.Context, ref string, opts ociclient.Options) error {
		_, err := ociclient.Push(ctx, ref, randomIndex(t), opts)
		return err
	}
	resolve := func(ctx context.Context, ref string, opts ociclient.Options) error {
		_, err := ociclient.Resolve(ctx, ref, opts)
		return err
	}
	tests := []struct {
		reason string
		call   func(context.Context, string, ociclient.Options) error
		ctx    context.Context
		ref    string
		opts   ociclient.Options
		kind   error
		text   string
		hint   string
	}{
		{"no identity at the hub", push, t.Context(), host + "/default/hello:2.0.0", ociclient.Options{Transport: base}, ociclient.ErrUnauthenticated, "does not know you", "kubectl auth whoami"},
		{"a wrong login at another registry", push, t.Context(), host + "/default/hello:2.0.0", ociclient.Options{Transport: base, Keychain: logins("bad")}, ociclient.ErrUnauthenticated, "does not know you", "docker login " + host},
		{"no right at the hub", push, t.Context(), host + "/closed/hello:2.0.0", good, ociclient.ErrDenied, "user x may not create bundles in namespace closed", "create bundles"},
		{"no right elsewhere", push, t.Context(), host + "/closed/hello:2.0.0", ociclient.Options{Transport: base, Keychain: logins("good")}, ociclient.ErrDenied, "may not create bundles", "ask its owner"},
		{"a version that exists", push, t.Context(), host + "/default/hello:1.0.0", good, ociclient.ErrVersionExists, "choose a new version", "--version"},
		{"a version that does not", resolve, t.Context(), host + "/default/hello:9.9.9", good, ociclient.ErrNotFound, "9.9.9", "push it first"},
		{"nobody listens", push, t.Context(), gone + "/default/hello:1.0.0", good, ociclient.ErrUnreachable, gone, "is up"},
		{"a certificate that is not trusted", push, t.Context(), host + "/default/hello:2.0.0", ociclient.Options{Transport: &http.Transport{TLSClientConfig: &tls.Config{}}}, ociclient.ErrUnreachable, "x509", "CA"},
		{"a reference without a version", push, t.Context(), host + "/default/hello", good, ociclient.ErrReference, "hello", "host/namespace/name:version"},
		{"a cancelled call", push, cancelled, host + "/default/hello:2.0.0", good, context.Canceled, "canceled", ""},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			err := tt.call(tt.ctx, tt.ref, tt.opts)
			var e *ociclient.Error
			if !errors.As(err, &e) || !errors.Is(err, tt.kind) {
				t.Fatalf("error %v, want %v", err, tt.kind)
			}
			if !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), tt.ref) {
				t.Errorf("%q does not name %q and %q", err, tt.ref, tt.text)
			}
			if !strings.Contains(e.Hint(), tt.hint) || tt.hint == "" && e.Hint() != "" {
				t.Errorf("hint %q, want it to say %q", e.Hint(), tt.hint)
			}
		})
	}
}

// An identity is never sent in the clear, not even when TLS fails and the address is on this machine.
func TestNoIdentityInTheClear(t *testing.T) {
	var seen atomic.Int64
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	defer plain.Close()
	ref := strings.TrimPrefix(plain.URL, "http://") + "/default/hello:1.0.0"
	_, err := ociclient.Push(t.Context(), ref, randomIndex(t), ociclient.Options{Transport: token{http.DefaultTransport, "good"}})
	if !errors.Is(err, ociclient.ErrUnreachable) {
		t.Errorf("error %v, want ErrUnreachable", err)
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("%d requests were sent in the clear", n)
	}
}

func TestPlainHTTPWhenAllowed(t *testing.T) {
	r, err := ociregistry.Open(t.TempDir(), ociregistry.Options{Authorizer: account{}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(r)
	t.Cleanup(func() { srv.Close(); _ = r.Close() })
	ref := strings.TrimPrefix(srv.URL, "http://") + "/default/hello:1.0.0"
	if _, err := ociclient.Push(t.Context(), ref, randomIndex(t), ociclient.Options{Keychain: logins("good"), PlainHTTP: true}); err != nil {
		t.Fatal(err)
	}
}

func TestCopy(t *testing.T) {
	from, base := hub(t)
	to, toBase := hub(t)
	src := ociclient.Options{Transport: token{base, "good"}}
	dst := ociclient.Options{Transport: token{toBase, "good"}}
	idx := randomIndex(t)
	pushed, err := ociclient.Push(t.Context(), from+"/default/hello:1.0.0", idx, src)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("between two registries", func(t *testing.T) {
		got, err := ociclient.Copy(t.Context(), from+"/default/hello:1.0.0", src, to+"/mirror/hello:1.0.0", dst)
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest != pushed.Digest {
			t.Errorf("copied %s, want %s", got.Digest, pushed.Digest)
		}
		if err := whole(to+"/mirror/hello:1.0.0", dst.Transport); err != nil {
			t.Error(err)
		}
	})
	t.Run("within one registry", func(t *testing.T) {
		if _, err := ociclient.Copy(t.Context(), pushed.Ref, src, from+"/mirror/hello:1.0.0", src); err != nil {
			t.Fatal(err)
		}
		if err := whole(from+"/mirror/hello:1.0.0", src.Transport); err != nil {
			t.Error(err)
		}
	})
	t.Run("content that is changed on the way is refused, and told as an error of reading", func(t *testing.T) {
		lying := src
		lying.Transport = liar{src.Transport}
		_, err := ociclient.Copy(t.Context(), pushed.Ref, lying, to+"/mirror/lie:1.0.0", dst)
		var e *ociclient.Error
		if !errors.As(err, &e) || e.Op != "read" || e.Ref != pushed.Ref {
			t.Fatalf("error %v, want one of reading", err)
		}
		if _, err := ociclient.Resolve(t.Context(), to+"/mirror/lie:1.0.0", dst); !errors.Is(err, ociclient.ErrNotFound) {
			t.Errorf("changed content is resolved: %v", err)
		}
	})
	t.Run("an image is no bundle", func(t *testing.T) {
		manifest, err := idx.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		ref := from + "/default/hello@" + manifest.Manifests[0].Digest.String()
		if _, err := ociclient.Copy(t.Context(), ref, src, to+"/mirror/x:1", dst); !errors.Is(err, ociclient.ErrNotBundle) {
			t.Errorf("error %v, want ErrNotBundle", err)
		}
	})
}

// whole pulls everything and verifies it.
func whole(ref string, transport http.RoundTripper) error {
	target, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	got, err := remote.Index(target, remote.WithTransport(transport))
	if err != nil {
		return err
	}
	return validate.Index(got)
}

// liar changes a byte of each blob.
type liar struct{ http.RoundTripper }

func (l liar) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err == nil && req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
		resp.Body = &changed{ReadCloser: resp.Body}
	}
	return resp, err
}

type changed struct {
	io.ReadCloser
	done bool
}

func (c *changed) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 && !c.done {
		p[0] ^= 1
		c.done = true
	}
	return n, err
}
