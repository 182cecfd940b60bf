package enroll_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll/enrollhub"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/wire"
)

// TestClocksThatDisagree joins with machines whose clock is decades away from the hub's: to each, the hub's
// certificates lie wholly in the past or the future.
func TestClocksThatDisagree(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, off := range map[string]time.Duration{
		"the machine woke in 1970": 56 * year, "the machine woke in 2040": -14 * year,
	} {
		t.Run(name, func(t *testing.T) {
			h := startHubAt(t, off)
			o := siteOptions(t)
			_, err := enrollsite.Join(t.Context(), o, h.token(t, "shop-1"))
			must(t, err)
			id, err := enrollsite.Open(o) // after a reboot nothing but the disk knows the time
			must(t, err)
			if _, known := id.HubTime(); known {
				t.Error("it claims to know the time before it heard the hub")
			}
			wantKnown(t, id)
			h.clock.advance(20 * 24 * time.Hour) // the hub's certificate was renewed meanwhile
			must(t, id.Renew(t.Context()))
			wantKnown(t, id)
			now, known := id.HubTime()
			if d := h.clock.now().Sub(now); !known || d < -time.Second || d > 5*time.Second {
				t.Errorf("it takes the hub's time to be %v, known %v; it is %v off", now, known, d)
			}
		})
	}
}

func TestExpiredHubIsRefused(t *testing.T) {
	h := startHub(t)
	id := h.join(t, "shop-1")
	stolen := h.authority.NewServing("127.0.0.1")
	old := serve(t, stolen.TLSConfig(), http.NotFoundHandler())
	conn, err := tls.Dial("tcp", old, id.TLSConfig()) // makes the certificate, and it is good now
	must(t, err)
	conn.Close()
	frozen := frozenConfig(t, stolen)

	h.clock.advance(40 * 24 * time.Hour)
	must(t, id.Renew(t.Context()))
	_, err = tls.Dial("tcp", serve(t, frozen, http.NotFoundHandler()), id.TLSConfig())
	if !errors.Is(err, enrollsite.ErrHubExpired) {
		t.Errorf("a certificate that ended before the hub was heard last: %v", err)
	}
}

// frozenConfig shows for ever the certificate that s has now.
func frozenConfig(t *testing.T, s *enrollhub.Serving) *tls.Config {
	t.Helper()
	cert, err := s.TLSConfig().GetCertificate(nil)
	must(t, err)
	return &tls.Config{Certificates: []tls.Certificate{*cert}}
}

// TestOnlyTheHubIsTheHub shows a site other certificates of the right authority, and of wrong ones.
func TestOnlyTheHubIsTheHub(t *testing.T) {
	h, other := startHub(t), startHub(t)
	id, member := h.join(t, "shop-1"), h.join(t, "shop-2")
	asMember, err := member.TLSConfig().GetClientCertificate(nil)
	must(t, err)
	withAuthority := *asMember
	block, _ := pem.Decode(h.authority.PEM())
	withAuthority.Certificate = append(withAuthority.Certificate, block.Bytes)

	self := selfSigned(t)
	pretender := self
	pretender.Certificate = append(pretender.Certificate, block.Bytes)
	tests := []struct {
		reason string
		config *tls.Config
	}{
		{"another member's certificate", &tls.Config{Certificates: []tls.Certificate{withAuthority}}},
		{"another hub", frozenConfig(t, other.authority.NewServing("127.0.0.1"))},
		{"a certificate of nobody", &tls.Config{Certificates: []tls.Certificate{self}}},
		{"a certificate of nobody beside the authority's", &tls.Config{Certificates: []tls.Certificate{pretender}}},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			_, err := tls.Dial("tcp", serve(t, tt.config, http.NotFoundHandler()), id.TLSConfig())
			if !errors.Is(err, enrollsite.ErrNotTheHub) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	hub, err := url.Parse(wire.HubURI)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), URIs: []*url.URL{hub}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestExtraAuthority reaches the hub under a public name, behind a server with a certificate of another
// authority that the owner of the machine vouches for.
func TestExtraAuthority(t *testing.T) {
	h := startHub(t)
	public := selfSigned(t)
	hub, err := url.Parse(h.url())
	must(t, err)
	front := httptest.NewUnstartedServer(forward(t, h, hub))
	front.TLS = &tls.Config{Certificates: []tls.Certificate{public}}
	front.StartTLS()
	t.Cleanup(front.Close)
	token := h.token(t, "shop-1")
	token.URLs = []string{front.URL}

	o := siteOptions(t)
	if _, err := enrollsite.Join(t.Context(), o, token); !errors.Is(err, enrollsite.ErrNotTheHub) {
		t.Errorf("without the authority: %v", err)
	}
	o.ExtraCA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public.Certificate[0]})
	if _, err := enrollsite.Join(t.Context(), o, token); err != nil {
		t.Errorf("with the authority: %v", err)
	}
	o.ExtraCA = []byte("no certificate")
	if _, err := enrollsite.Join(t.Context(), o, token); !errors.Is(err, wire.ErrMessage) {
		t.Errorf("with a file that holds none: %v", err)
	}
}

// forward passes requests on to the hub.
func forward(t *testing.T, h *testHub, to *url.URL) http.Handler {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(client.CloseIdleConnections)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, err := client.Post(to.String()+r.URL.Path, "application/json", r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		io.Copy(w, res.Body)
	})
}

// proxy is an HTTP proxy that knows CONNECT alone. When open is set it terminates TLS with it, as a proxy
// that inspects traffic does.
type proxy struct {
	open    *tls.Config
	tunnels atomic.Int32
}

func (p *proxy) serve(t *testing.T) func(*url.URL) (*url.URL, error) {
	t.Helper()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	must(t, err)
	u.User = url.UserPassword("shop", "pass word")
	return func(*url.URL) (*url.URL, error) { return u, nil }
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	credentials := &http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	user, password, _ := credentials.BasicAuth()
	if r.Method != http.MethodConnect || user != "shop" || password != "pass word" {
		http.Error(w, "who are you", http.StatusProxyAuthRequired)
		return
	}
	p.tunnels.Add(1)
	near, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
	if p.open != nil {
		inspected := tls.Server(near, p.open)
		if _, err := http.ReadRequest(bufio.NewReader(inspected)); err == nil {
			io.WriteString(inspected, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		}
		return
	}
	far, err := net.Dial("tcp", r.Host)
	if err != nil {
		return
	}
	defer far.Close()
	go func() { io.Copy(far, near); far.Close() }()
	io.Copy(near, far)
}

func TestProxy(t *testing.T) {
	h := startHub(t)
	p := &proxy{}
	o := siteOptions(t)
	o.Proxy = p.serve(t)
	id, err := enrollsite.Join(t.Context(), o, h.token(t, "shop-1"))
	must(t, err)
	must(t, id.Renew(t.Context()))
	client := h.connect(t, id, o.Proxy, nil)
	if _, err := client.Get(t.Context(), wire.DesiredSubject("shop-1", "apps")); !errors.Is(err, wire.ErrNotFound) {
		t.Errorf("through the proxy the bus says %v", err)
	}
	if n := p.tunnels.Load(); n < 3 {
		t.Errorf("%d tunnels, want one for joining, renewing and the bus each", n)
	}
}

func TestProxyThatOpensTLSIsNamed(t *testing.T) {
	h := startHub(t)
	o := siteOptions(t)
	o.Proxy = (&proxy{open: &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}}).serve(t)
	_, err := enrollsite.Join(t.Context(), o, h.token(t, "shop-1"))
	if !errors.Is(err, enrollsite.ErrNotTheHub) || !strings.Contains(err.Error(), "proxy on the way opens TLS") {
		t.Errorf("got %v", err)
	}
}

func TestAuthorityIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := enrollhub.OpenAuthority(dir, time.Now)
	must(t, err)
	second, err := enrollhub.OpenAuthority(dir, time.Now)
	must(t, err)
	if !bytes.Equal(first.PEM(), second.PEM()) {
		t.Error("a second start made another authority")
	}
	path := filepath.Join(dir, "ca.pem")
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its key has mode %v", info.Mode())
	}
	must(t, os.WriteFile(path, first.PEM(), 0o600))
	if _, err := enrollhub.OpenAuthority(dir, time.Now); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without its key it opens with %v", err)
	}
}
