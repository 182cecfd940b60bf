package httpgateway

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
)

func listenUnix(path string) (net.Listener, error) { return net.Listen("unix", path) }

func TestPlainHTTPOnLoopbackOnly(t *testing.T) {
	for address, row := range map[string]struct {
		reason string
		want   error
	}{
		"127.0.0.1:0": {"loopback", nil},
		"localhost:0": {"loopback by name", nil},
		"0.0.0.0:0":   {"all addresses", ErrInsecure},
		":0":          {"all addresses, unsaid", ErrInsecure},
	} {
		l, err := listen(t.Context(), address, false, false)
		if err == nil {
			l.Close()
		}
		if !errors.Is(err, row.want) {
			t.Errorf("%s (%s): got %v", address, row.reason, err)
		}
		if err != nil && !strings.Contains(err.Error(), "give a certificate and key") {
			t.Errorf("error %q does not say what to do", err)
		}
	}
}

func TestTakenPort(t *testing.T) {
	first := start(t, Options{})
	address := strings.TrimPrefix(first.URL(), "http://")
	g, err := New(Options{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a taken port was answered with %v", err)
	}
	second := start(t, Options{Address: address, NextPort: true})
	if second.URL() == first.URL() || second.URL() == "" {
		t.Errorf("second gateway is at %q", second.URL())
	}
}

func TestTLS(t *testing.T) {
	lender := httptest.NewTLSServer(http.NotFoundHandler())
	defer lender.Close()
	g := start(t, Options{Address: "0.0.0.0:0", TLS: &tls.Config{Certificates: lender.TLS.Certificates}})
	g.Set(hello, ready("/", backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Proto", r.Header.Get("X-Forwarded-Proto"))
	})))
	if !strings.HasPrefix(g.URL(), "https://") {
		t.Fatalf("URL is %s", g.URL())
	}
	_, port, err := net.SplitHostPort(strings.TrimPrefix(g.URL(), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := lender.Client().Get("https://127.0.0.1:" + port + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("Proto") != "https" {
		t.Errorf("got %d, protocol told %q", res.StatusCode, res.Header.Get("Proto"))
	}
}

func TestMissingCertificateIsNamed(t *testing.T) {
	g, err := New(Options{CertFile: "no-such.crt", KeyFile: "no-such.key"})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such.crt") {
		t.Errorf("got %v", err)
	}
}
