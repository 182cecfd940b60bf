package enrollhub

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/wire"
)

func servingKey(t *testing.T, curve elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return spki(t, key.Public())
}

func spki(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestServingRequests(t *testing.T) {
	good := servingKey(t, elliptic.P256())
	ed, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	many := strings.Split(strings.Repeat("a.example ", 17)[:17*10-1], " ")
	tests := []struct {
		reason   string
		key      []byte
		names    []string
		unsigned bool
		want     string
		named    string // what the audit line must name
	}{
		{"a name and addresses", good, []string{"shop.example.com", "192.0.2.1", "2001:db8::1"}, false, "", "shop-1.sites.skerry.internal shop.example.com 192.0.2.1 2001:db8::1"},
		{"no name but the site's own", good, nil, false, "", "shop-1.sites.skerry.internal"},
		{"as many names as there may be", good, many[:16], false, "", "a.example"},
		{"one more", good, many, false, wire.RefusedInvalid, "17 names"},
		{"a wildcard", good, []string{"*.example.com"}, false, wire.RefusedInvalid, "*.example.com"},
		{"a malformed name after a good one", good, []string{"shop.example.com", "a..b"}, false, wire.RefusedInvalid, "a..b"},
		{"the name of another site", good, []string{"shop-2.sites.skerry.internal"}, false, wire.RefusedInvalid, "shop-2"},
		{"the hub's URI", good, []string{wire.HubURI}, false, wire.RefusedInvalid, wire.HubURI},
		{"a key of another curve", servingKey(t, elliptic.P224()), nil, false, wire.RefusedInvalid, "P-256"},
		{"an Ed25519 key, which browsers do not take", spki(t, ed), nil, false, wire.RefusedInvalid, "P-256"},
		{"a key that is too long", spki(t, big.Public()), nil, false, wire.RefusedInvalid, "294 bytes"},
		{"no key at all", []byte("key"), nil, false, wire.RefusedInvalid, "servingKey"},
		{"names that were changed after signing", good, []string{"bank.example.com"}, true, wire.RefusedInvalid, "InvalidRequest"},
		{"names without a key, which mean nothing", nil, []string{"*"}, false, "", "admitted"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			f := newFixture(t)
			r := f.renewal(t)
			r.ServingKey, r.ServingNames = tt.key, tt.names
			if !tt.unsigned {
				r.Signature = ed25519.Sign(f.key, wire.EnrollSigned(r))
			}
			w := httptest.NewRecorder()
			f.mux.ServeHTTP(w, httptest.NewRequest(http.MethodPost, wire.PathRenew, strings.NewReader(encode(t, r))))
			got := ""
			if w.Code != http.StatusOK {
				_, refusal := f.post(t, wire.PathRenew, encode(t, r), remote)
				got = refusal.Reason
			}
			if got != tt.want {
				t.Fatalf("answered %d %q, want %q", w.Code, got, tt.want)
			}
			issued := strings.Contains(w.Body.String(), "servingCertificate")
			if want := tt.want == "" && tt.key != nil; issued != want {
				t.Errorf("a certificate of the gateway is in the answer: %v, want %v", issued, want)
			}
			if !strings.Contains(f.log.String(), tt.named) {
				t.Errorf("the audit line lacks %q: %s", tt.named, f.log.String())
			}
		})
	}
}

func TestHubWithoutGatewayAuthority(t *testing.T) {
	f := newFixture(t)
	f.desk.o.Gateways = nil
	r := f.renewal(t)
	r.ServingKey = servingKey(t, elliptic.P256())
	r.Signature = ed25519.Sign(f.key, wire.EnrollSigned(r))
	w := httptest.NewRecorder()
	f.mux.ServeHTTP(w, httptest.NewRequest(http.MethodPost, wire.PathRenew, strings.NewReader(encode(t, r))))
	if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "servingCertificate") {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}
