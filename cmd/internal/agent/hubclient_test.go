package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
)

func certificate(t *testing.T, serial int64) *tls.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestHubClientShowsTheNewest renews between requests that would otherwise share a connection.
func TestHubClientShowsTheNewest(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber, " ", r.RemoteAddr)
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	now := certificate(t, 1)
	config := &tls.Config{
		InsecureSkipVerify:   true, // the server is this test's own
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return now, nil },
	}
	client := hubClient(config, func() *x509.Certificate { return now.Leaf }, nil)
	defer client.CloseIdleConnections()
	ask := func() (serial int, from string) {
		t.Helper()
		res, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err == nil {
			_, err = fmt.Sscan(string(body), &serial, &from)
		}
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return serial, from
	}
	first, from := ask()
	if again, same := ask(); first != 1 || again != 1 || same != from {
		t.Errorf("one certificate, two connections: %d at %s, %d at %s", first, from, again, same)
	}
	now = certificate(t, 2)
	if serial, _ := ask(); serial != 2 {
		t.Errorf("after a renewal the hub sees certificate %d", serial)
	}
}
