package enrollsite

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/wire"
)

// signer is an authority made for a test.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t *testing.T, from, to time.Time) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signer{cert, key}
}

func (s signer) sign(t *testing.T, uri string, usage x509.ExtKeyUsage, from, to time.Time) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, DNSNames: []string{"hub.example.com"},
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, s.key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestVerify(t *testing.T) {
	day := 24 * time.Hour
	heard := time.Unix(1_800_000_000, 0)
	hub := newSigner(t, heard.Add(-365*day), heard.Add(3650*day))
	other := newSigner(t, heard.Add(-365*day), heard.Add(3650*day))
	server := x509.ExtKeyUsageServerAuth
	tests := []struct {
		reason string
		leaf   *x509.Certificate
		want   error
	}{
		{"it holds while the hub was heard", hub.sign(t, wire.HubURI, server, heard.Add(-day), heard.Add(day)), nil},
		{"it began after the hub was heard last: the site was away", hub.sign(t, wire.HubURI, server, heard.Add(300*day), heard.Add(330*day)), nil},
		{"it ended before the hub was heard last", hub.sign(t, wire.HubURI, server, heard.Add(-30*day), heard.Add(-day)), ErrHubExpired},
		{"it ended at the second at which the hub was heard last", hub.sign(t, wire.HubURI, server, heard.Add(-30*day), heard), ErrHubExpired},
		{"it is of this authority for a server that is not the hub", hub.sign(t, "", server, heard.Add(-day), heard.Add(day)), ErrNotTheHub},
		{"it is a member's", hub.sign(t, "skerry://site/shop-1/member/m-1", x509.ExtKeyUsageClientAuth, heard.Add(-day), heard.Add(day)), ErrNotTheHub},
		{"it is a member's that may serve", hub.sign(t, "skerry://site/shop-1/member/m-1", server, heard.Add(-day), heard.Add(day)), ErrNotTheHub},
		{"it says to be the hub but may not serve", hub.sign(t, wire.HubURI, x509.ExtKeyUsageClientAuth, heard.Add(-day), heard.Add(day)), ErrNotTheHub},
		{"it is another authority's", other.sign(t, wire.HubURI, server, heard.Add(-day), heard.Add(day)), ErrNotTheHub},
		{"it begins after its authority has ended", hub.sign(t, wire.HubURI, server, heard.Add(4000*day), heard.Add(4001*day)), ErrNotTheHub},
	}
	trusted := trust{pins: func() []pin { return []pin{sha256.Sum256(hub.cert.Raw)} }, lastHub: func() time.Time { return heard }}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{tt.leaf, hub.cert}, ServerName: "hub.example.com"}
			if err := trusted.verify(state); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("the pin stands alone", func(t *testing.T) {
		state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{hub.cert}}
		if err := trusted.verify(state); !errors.Is(err, ErrNotTheHub) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nothing is shown", func(t *testing.T) {
		if err := trusted.verify(tls.ConnectionState{}); !errors.Is(err, ErrNotTheHub) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an extra authority vouches for its names only", func(t *testing.T) {
		extra := trust{pins: func() []pin { return nil }, lastHub: trusted.lastHub, extra: []*x509.Certificate{other.cert}}
		leaf := other.sign(t, "", server, heard.Add(-day), heard.Add(day))
		state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, ServerName: "hub.example.com"}
		if err := extra.verify(state); err != nil {
			t.Error(err)
		}
		state.ServerName = "evil.example.com"
		if err := extra.verify(state); !errors.Is(err, ErrNotTheHub) {
			t.Errorf("for another name: %v", err)
		}
	})
}

func TestUntilRenewal(t *testing.T) {
	at := int64(1_800_000_000)
	i := &Identity{state: state{NotBefore: at, Expires: at + 3000, HubTime: at}}
	if d := i.untilRenewal(); d > startJitter {
		t.Errorf("after a start it waits %v", d)
	}
	i.heard = time.Now()
	for range 100 {
		// Two thirds of 3000 s, less a tenth of all at most.
		if d := i.untilRenewal(); d < 1690*time.Second || d > 2001*time.Second {
			t.Fatalf("it waits %v", d)
		}
	}
	i.state.HubTime = at + 5000
	if d := i.untilRenewal(); d != time.Second {
		t.Errorf("when it is late it waits %v", d)
	}
}

func TestHubTimeNeverGoesBack(t *testing.T) {
	s := state{HubTime: 100}
	if s = s.with(wire.EnrollResponse{HubTime: 50}); s.HubTime != 100 {
		t.Errorf("it went back to %d", s.HubTime)
	}
	if s = s.with(wire.EnrollResponse{HubTime: 150}); s.HubTime != 150 {
		t.Errorf("it stayed at %d", s.HubTime)
	}
}

func TestDamagedIdentity(t *testing.T) {
	for reason, content := range map[string]string{
		"no JSON": "{", "no key": "{}", "a key that is cut short": `{"seed":"AAAA","sealKey":"AAAA"}`,
		"a key of the gateway that is none": `{"seed":"` + strings.Repeat("AAAA", 10) + `AAA=","sealKey":"` + strings.Repeat("AAAA", 10) + `AAA=","servingKey":"AAAA"}`,
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, IdentityFile)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Dir: dir}); err == nil || errors.Is(err, ErrNotJoined) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

func TestAddressesOfAHub(t *testing.T) {
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf("https://old-%d:7443", i)
	}
	for _, row := range []struct {
		reason      string
		said, known []string
		want        []string
	}{
		{"a hub that is older says none", nil, []string{"https://a:1"}, []string{"https://a:1"}},
		{"what the hub says comes first, what was known stays", []string{"https://b:1"}, []string{"https://a:1"}, []string{"https://b:1", "https://a:1"}},
		{"each once", []string{"https://a:1", "https://b:1"}, []string{"https://b:1", "https://a:1"}, []string{"https://a:1", "https://b:1"}},
		{"what is none is left out", []string{"http://c:1", "::", "https://"}, []string{"https://a:1"}, []string{"https://a:1"}},
		{"the oldest go when there are too many", []string{"https://b:1"}, many, append([]string{"https://b:1"}, many[:7]...)},
	} {
		if diff := cmp.Diff(row.want, addresses(row.said, row.known)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.reason, diff)
		}
	}
}
