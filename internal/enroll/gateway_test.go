package enroll_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/enroll/enrollhub"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	httpgateway "github.com/skerry-dev/skerry/internal/gateway/http"
)

// servingOptions are those of a site whose gateway has a certificate of the hub.
func servingOptions(t testing.TB, names ...string) enrollsite.Options {
	o := siteOptions(t)
	o.Serving, o.ServingNames = true, names
	return o
}

func pool(t testing.TB, authority []byte) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(authority) {
		t.Fatal("no authority")
	}
	return p
}

// handshake connects like a browser that trusts roots and was given name, and returns what it was shown.
func handshake(addr, name string, roots *x509.CertPool) (*x509.Certificate, error) {
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: name})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func TestGatewayCertificate(t *testing.T) {
	h := startHub(t)
	o := servingOptions(t, "shop.example.com", "192.0.2.10", "2001:db8::1")
	id, err := enrollsite.Join(t.Context(), o, h.token(t, "shop-1"))
	must(t, err)
	addr := serve(t, id.ServingTLS(), http.NotFoundHandler())
	trusted := pool(t, h.gateways.PEM())
	var leaf *x509.Certificate
	for _, name := range []string{"shop.example.com", "192.0.2.10", "2001:db8::1", enroll.SiteHost("shop-1")} {
		if leaf, err = handshake(addr, name, trusted); err != nil {
			t.Fatalf("as %s: %v", name, err)
		}
	}
	for _, name := range []string{"evil.example.com", "192.0.2.11", enroll.SiteHost("shop-2"), "127.0.0.1"} {
		var wrong x509.HostnameError
		if _, err := handshake(addr, name, trusted); !errors.As(err, &wrong) {
			t.Errorf("as %s, which it did not ask for: %v", name, err)
		}
	}
	var unknown x509.UnknownAuthorityError
	if _, err := handshake(addr, "shop.example.com", pool(t, h.authority.PEM())); !errors.As(err, &unknown) {
		t.Errorf("to who trusts the hub's own authority: %v", err)
	}
	if !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) || leaf.IsCA || len(leaf.URIs) != 0 {
		t.Errorf("it is for %v, an authority: %v, names %v", leaf.ExtKeyUsage, leaf.IsCA, leaf.URIs)
	}
	if !leaf.NotAfter.Equal(id.Leaf().NotAfter) || !leaf.NotBefore.Equal(id.Leaf().NotBefore) {
		t.Errorf("it lives from %v to %v, the member's from %v to %v", leaf.NotBefore, leaf.NotAfter, id.Leaf().NotBefore, id.Leaf().NotAfter)
	}
	if log := h.log.String(); !strings.Contains(log, `"serving":["shop-1.sites.skerry.internal","shop.example.com","192.0.2.10","2001:db8::1"]`) {
		t.Errorf("the hub's audit does not name what it signed: %s", log)
	}
	info, err := os.Stat(filepath.Join(o.Dir, enrollsite.IdentityFile))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its key has mode %v", info.Mode())
	}
}

// TestGatewayCertificateIsNothingElse uses a gateway's certificate as the hub and as a member.
func TestGatewayCertificateIsNothingElse(t *testing.T) {
	h := startHub(t)
	id, err := enrollsite.Join(t.Context(), servingOptions(t, "192.0.2.10"), h.token(t, "shop-1"))
	must(t, err)
	serving, err := id.ServingTLS().GetCertificate(nil)
	must(t, err)
	for reason, authority := range map[string][]byte{"alone": nil, "beside the hub's authority": h.authority.PEM(), "beside its own": h.gateways.PEM()} {
		shown := *serving
		shown.Certificate = slices.Clone(serving.Certificate)
		if block, _ := pem.Decode(authority); block != nil {
			shown.Certificate = append(shown.Certificate, block.Bytes)
		}
		config := &tls.Config{Certificates: []tls.Certificate{shown}}
		if _, err := tls.Dial("tcp", serve(t, config, http.NotFoundHandler()), id.TLSConfig()); !errors.Is(err, enrollsite.ErrNotTheHub) {
			t.Errorf("as the hub, %s: %v", reason, err)
		}
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{*serving}, RootCAs: pool(t, h.authority.PEM())}}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(h.url() + pathWhoAmI)
	must(t, err)
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("as a member: %s", res.Status)
	}
}

// TestGatewayOverTLS runs the site's gateway itself, on an address that others reach where the machine has one.
func TestGatewayOverTLS(t *testing.T) {
	host := "192.0.2.10"
	listen := "0.0.0.0"
	if own := ownAddress(t); own != "" {
		host, listen = own, own
	}
	h := startHub(t)
	o := servingOptions(t, host)
	id, err := enrollsite.Join(t.Context(), o, h.token(t, "shop-1"))
	must(t, err)
	g, err := httpgateway.New(httpgateway.Options{Address: net.JoinHostPort(listen, "0"), TLS: id.ServingTLS(), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	must(t, g.Start(t.Context()))
	defer func() { must(t, g.Stop(context.Background())) }()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(g.URL(), "https://"))
	must(t, err)
	reach := "127.0.0.1"
	if listen == host {
		reach = host
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool(t, h.gateways.PEM()), ServerName: host},
		DisableKeepAlives: true, ForceAttemptHTTP2: true,
	}
	client := &http.Client{Transport: transport}
	shown := func() *x509.Certificate {
		t.Helper()
		res, err := client.Get("https://" + net.JoinHostPort(reach, port) + "/")
		must(t, err)
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound { // no app
			t.Errorf("the gateway answers %s", res.Status)
		}
		return res.TLS.PeerCertificates[0]
	}
	first := shown()
	h.clock.advance(time.Minute)
	must(t, id.Renew(t.Context()))
	if second := shown(); second.SerialNumber.Cmp(first.SerialNumber) == 0 || !second.NotAfter.After(first.NotAfter) {
		t.Errorf("after a renewal the same listener shows one until %v, before it until %v", second.NotAfter, first.NotAfter)
	}
}

// ownAddress returns an address of this machine that is not loopback, or nothing.
func ownAddress(t testing.TB) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	must(t, err)
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}

func TestGatewayCertificateOffline(t *testing.T) {
	h := startHub(t)
	o := servingOptions(t, "shop.example.com")
	joined, err := enrollsite.Join(t.Context(), o, h.token(t, "shop-1"))
	must(t, err)
	before, err := joined.ServingTLS().GetCertificate(nil)
	must(t, err)
	o.ServingNames = []string{"moved.example.com"} // not to be had while the hub is away
	id, err := enrollsite.Open(o)
	must(t, err)
	leaf, err := handshake(serve(t, id.ServingTLS(), http.NotFoundHandler()), "shop.example.com", pool(t, id.GatewayCA()))
	must(t, err)
	if leaf.SerialNumber.Cmp(before.Leaf.SerialNumber) != 0 {
		t.Error("without the hub it shows another certificate than the one it had")
	}
}

// TestGatewayCertificateOfAnEarlierMember opens identities that lack the certificate which is now wanted: one
// that joined before there were any, and one whose names have changed.
func TestGatewayCertificateOfAnEarlierMember(t *testing.T) {
	for reason, earlier := range map[string]enrollsite.Options{
		"it joined without one": siteOptions(t), "its names have changed": servingOptions(t, "old.example.com"),
	} {
		t.Run(reason, func(t *testing.T) {
			h := startHub(t)
			_, err := enrollsite.Join(t.Context(), earlier, h.token(t, "shop-1"))
			must(t, err)
			o := earlier
			o.Serving, o.ServingNames = true, []string{"shop.example.com"}
			id, err := enrollsite.Open(o)
			must(t, err)
			addr := serve(t, id.ServingTLS(), http.NotFoundHandler())
			if _, err := handshake(addr, "shop.example.com", pool(t, h.gateways.PEM())); err == nil {
				t.Fatal("it has the certificate before it asked")
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); id.Run(ctx, nil) }()
			defer func() { cancel(); <-ended }()
			eventually(t, "the gateway has its certificate", func() bool {
				_, err := handshake(addr, "shop.example.com", pool(t, h.gateways.PEM()))
				return err == nil
			})
			again, err := enrollsite.Open(o)
			must(t, err)
			if _, err := again.ServingTLS().GetCertificate(nil); err != nil {
				t.Errorf("after a restart: %v", err)
			}
		})
	}
}

// TestGatewayCertificateIsRefused asks for what a hub does not give: the member is admitted all the same.
func TestGatewayCertificateIsRefused(t *testing.T) {
	h := startHub(t)
	var log logBuffer
	o := servingOptions(t, "*.example.com")
	o.Log = log.logger()
	id, err := enrollsite.Join(t.Context(), o, h.token(t, "shop-1"))
	must(t, err)
	wantKnown(t, id)
	if _, err := id.ServingTLS().GetCertificate(nil); !errors.Is(err, enrollsite.ErrNoServing) {
		t.Errorf("its gateway shows a certificate, or %v", err)
	}
	must(t, id.Renew(t.Context()))
	wantKnown(t, id)
	if !strings.Contains(log.String(), "*.example.com") {
		t.Error("the site's log does not name what was refused")
	}
}

// TestGatewayAtAnOlderHub joins at a hub that reads neither the key nor the names, and therefore finds the
// signature wrong.
func TestGatewayAtAnOlderHub(t *testing.T) {
	h := startHub(t)
	newer := http.NewServeMux()
	h.Register(newer)
	older := func(w http.ResponseWriter, r *http.Request) {
		var fields map[string]json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&fields); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		delete(fields, "servingKey")
		delete(fields, "servingNames")
		body, err := json.Marshal(fields)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		newer.ServeHTTP(w, r)
	}
	token := h.token(t, "shop-1")
	token.URLs = []string{"https://" + serve(t, h.authority.NewServing("127.0.0.1").TLSConfig(), http.HandlerFunc(older))}
	id, err := enrollsite.Join(t.Context(), servingOptions(t, "shop.example.com"), token)
	must(t, err)
	must(t, id.Renew(t.Context()))
	if _, err := id.ServingTLS().GetCertificate(nil); !errors.Is(err, enrollsite.ErrNoServing) {
		t.Errorf("its gateway shows a certificate, or %v", err)
	}
}

func TestGatewayIdentityWithAnotherKey(t *testing.T) {
	h := startHub(t)
	one, two := servingOptions(t), servingOptions(t)
	for _, o := range []enrollsite.Options{one, two} {
		_, err := enrollsite.Join(t.Context(), o, h.token(t, "shop-1"))
		must(t, err)
	}
	path := filepath.Join(one.Dir, enrollsite.IdentityFile)
	mine, theirs := map[string]any{}, map[string]any{}
	for file, into := range map[string]*map[string]any{path: &mine, filepath.Join(two.Dir, enrollsite.IdentityFile): &theirs} {
		data, err := os.ReadFile(file)
		must(t, err)
		must(t, json.Unmarshal(data, into))
	}
	mine["servingKey"] = theirs["servingKey"]
	data, err := json.Marshal(mine)
	must(t, err)
	must(t, os.WriteFile(path, data, 0o600))
	if _, err := enrollsite.Open(one); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("opens with %v", err)
	}
}

func TestGatewayAuthorityIsKept(t *testing.T) {
	dir := t.TempDir()
	hub, err := enrollhub.OpenAuthority(dir, time.Now)
	must(t, err)
	first, err := enrollhub.OpenGatewayAuthority(dir, time.Now)
	must(t, err)
	second, err := enrollhub.OpenGatewayAuthority(dir, time.Now)
	must(t, err)
	if string(first.PEM()) != string(second.PEM()) {
		t.Error("a second start made another authority")
	}
	if string(first.PEM()) == string(hub.PEM()) {
		t.Error("it is the hub's own")
	}
	path := filepath.Join(dir, "gateway.pem")
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its key has mode %v", info.Mode())
	}
	must(t, os.WriteFile(path, first.PEM(), 0o600))
	if _, err := enrollhub.OpenGatewayAuthority(dir, time.Now); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without its key it opens with %v", err)
	}
}
