package hubclient_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/skerry-dev/skerry/internal/cli/hubclient"
)

// token is the identity of the person who asks.
const token = "secret-token"

// world is an API that publishes a hub, and the hub, each with an authority of its own.
type world struct {
	api, hub *httptest.Server
	// info is what the API answers for the hub's ConfigMap; nil: there is none.
	info map[string]string
	// status is what the API answers when it is not 0.
	status int
}

func caOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func newWorld(t *testing.T, hub http.Handler) *world {
	t.Helper()
	w := &world{}
	w.hub = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("the hub was asked by %q", r.Header.Get("Authorization"))
		}
		hub.ServeHTTP(rw, r)
	}))
	t.Cleanup(w.hub.Close)
	w.api = httptest.NewTLSServer(http.HandlerFunc(w.serveAPI))
	t.Cleanup(w.api.Close)
	w.info = map[string]string{"url": w.hub.URL, "ca": string(caOf(w.hub))}
	return w
}

func (w *world) serveAPI(rw http.ResponseWriter, r *http.Request) {
	status := map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure"}
	rw.Header().Set("Content-Type", "application/json")
	switch {
	case w.status == http.StatusForbidden:
		status["reason"], status["code"] = "Forbidden", 403
		rw.WriteHeader(http.StatusForbidden)
	case w.status != 0:
		status["reason"], status["code"] = "InternalError", w.status
		rw.WriteHeader(w.status)
	case w.info == nil || r.URL.Path != "/api/v1/namespaces/skerry-system/configmaps/skerry-hub":
		status["reason"], status["code"] = "NotFound", 404
		rw.WriteHeader(http.StatusNotFound)
	default:
		status = map[string]any{"kind": "ConfigMap", "apiVersion": "v1", "metadata": map[string]any{"name": "skerry-hub"}, "data": w.info}
	}
	_ = json.NewEncoder(rw).Encode(status)
}

func (w *world) config() *rest.Config {
	return &rest.Config{Host: w.api.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: caOf(w.api)}}
}

func (w *world) client(t *testing.T) *hubclient.Client {
	t.Helper()
	c, err := hubclient.New(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGetAndPost(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(rw).Encode(map[string]string{
			"method": r.Method, "path": r.URL.Path, "site": r.URL.Query().Get("site"), "body": string(body), "type": r.Header.Get("Content-Type"),
		})
	}))
	c := w.client(t)
	if c.URL != w.hub.URL {
		t.Errorf("the hub is at %s, found %s", w.hub.URL, c.URL)
	}
	var got map[string]string
	if err := c.Get(t.Context(), "/view/v1/x", url.Values{"site": {"a&b"}}, &got); err != nil {
		t.Fatal(err)
	}
	if got["method"] != "GET" || got["path"] != "/view/v1/x" || got["site"] != "a&b" {
		t.Errorf("the hub was asked %v", got)
	}
	if err := c.Post(t.Context(), "/token", map[string]int{"ttl": 5}, &got); err != nil {
		t.Fatal(err)
	}
	if got["method"] != "POST" || got["body"] != `{"ttl":5}` || got["type"] != "application/json" {
		t.Errorf("the hub was asked %v", got)
	}
	if err := c.Post(t.Context(), "/token", func() {}, &got); err == nil {
		t.Error("a body that is no JSON was sent")
	}
}

func TestHubAnswersWithAnError(t *testing.T) {
	tests := []struct {
		status             int
		body, want, reason string
	}{
		{403, `{"message":"user \"ann\" may not get apps","reason":"Forbidden"}`, `user "ann" may not get apps`, "the hub's own words"},
		{502, "<html>bad gateway</html>", "502 Bad Gateway <html>", "a proxy's words, with the status"},
		{500, "", "500 Internal Server Error", "no words at all"},
		{200, "<html>hello</html>", "same release", "a success that is no JSON"},
	}
	for _, tt := range tests {
		w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(tt.status)
			_, _ = io.WriteString(rw, tt.body)
		}))
		err := w.client(t).Get(t.Context(), "/x", nil, &struct{}{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d %s: %v: %s", tt.status, tt.body, err, tt.reason)
		}
		if errors.Is(err, hubclient.ErrHub) != (tt.status != 200) || errors.Is(err, hubclient.ErrNoHub) {
			t.Errorf("%d: an error of another kind: %v", tt.status, err)
		}
	}
}

func TestStream(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "Skerry-Error")
		_, _ = io.WriteString(rw, "line 1\nline 2\n")
		switch r.URL.Path {
		case "/broken":
			rw.Header().Set("Skerry-Error", "site shop-1 fell silent")
		case "/cut":
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	c := w.client(t)
	for path, want := range map[string]string{"/well": "", "/broken": "the hub answered: site shop-1 fell silent", "/cut": "the answer broke off"} {
		var out bytes.Buffer
		err := c.Stream(t.Context(), path, nil, &out)
		if out.String() != "line 1\nline 2\n" {
			t.Errorf("%s: got %q", path, out.String())
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func TestCancelled(t *testing.T) {
	entered := make(chan struct{})
	w := newWorld(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	c := w.client(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if err := c.Get(ctx, "/x", nil, &struct{}{}); !errors.Is(err, context.Canceled) || errors.Is(err, hubclient.ErrNoHub) {
		t.Errorf("a person who left was told %v", err)
	}
}

// TestNoHub takes away one part after the other of what leads to a hub.
func TestNoHub(t *testing.T) {
	never := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the hub was asked") })
	tests := []struct {
		reason, want string
		change       func(*world, *rest.Config)
	}{
		{"no hub was ever installed", "skerry-system/skerry-hub", func(w *world, _ *rest.Config) { w.info = nil }},
		{"the person may read nothing there", "skerry-system/skerry-hub", func(w *world, _ *rest.Config) { w.status = 403 }},
		{"the API is down", "does not answer", func(w *world, _ *rest.Config) { w.api.Close() }},
		{"the API shows a certificate of another authority", "does not answer", func(_ *world, c *rest.Config) { c.CAData = otherAuthority(t) }},
		{"the address is not encrypted: the token must not be sent there", "https://", func(w *world, _ *rest.Config) {
			w.info["url"] = strings.Replace(w.hub.URL, "https:", "http:", 1)
		}},
		{"the address is missing", "https://", func(w *world, _ *rest.Config) { delete(w.info, "url") }},
		{"the authority is missing: any would do", "authority", func(w *world, _ *rest.Config) { delete(w.info, "ca") }},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			w := newWorld(t, never)
			config := w.config()
			tt.change(w, config)
			_, err := hubclient.New(t.Context(), config)
			if !errors.Is(err, hubclient.ErrNoHub) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("answered with %v, want ErrNoHub with %s", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), token) {
				t.Error("the error holds the token")
			}
		})
	}
	w := newWorld(t, never)
	w.status = 500
	if _, err := hubclient.New(t.Context(), w.config()); err == nil || errors.Is(err, hubclient.ErrNoHub) {
		t.Errorf("an API that fails was answered with %v", err)
	}
}

func TestHubIsDown(t *testing.T) {
	w := newWorld(t, http.NotFoundHandler())
	c := w.client(t)
	w.hub.Close()
	err := c.Get(t.Context(), "/x", nil, &struct{}{})
	if !errors.Is(err, hubclient.ErrNoHub) || !strings.Contains(err.Error(), w.hub.URL) {
		t.Errorf("a hub that is down was answered with %v", err)
	}
}

// TestHubIsKnownByItsOwnAuthority answers on the hub's address with another certificate, to a person whose
// kubeconfig trusts anybody.
func TestHubIsKnownByItsOwnAuthority(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "{}") }))
	config := w.config()
	config.TLSClientConfig = rest.TLSClientConfig{Insecure: true}
	c, err := hubclient.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), "/x", nil, &struct{}{}); err != nil {
		t.Errorf("the hub with its own certificate: %v", err)
	}
	w.info["ca"] = string(otherAuthority(t))
	if c, err = hubclient.New(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), "/x", nil, &struct{}{}); !errors.Is(err, hubclient.ErrNoHub) {
		t.Errorf("a hub with a certificate of somebody else was answered with %v", err)
	}
}

// otherAuthority makes a certificate authority that signed nothing.
func otherAuthority(t *testing.T) []byte {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
