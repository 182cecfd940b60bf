package enrollhub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// maxServingKey is more than a P-256 key takes as SubjectPublicKeyInfo: 91 bytes.
const maxServingKey = 128

// GatewayAuthority signs for the gateways of sites and for nothing else. It is not the hub's Authority and
// cannot be used as one: a site chooses the names in its certificate. It is safe for concurrent use.
type GatewayAuthority struct{ *signer }

// OpenGatewayAuthority reads the authority of gateways below dir (gateway.pem, mode 0600), making it at the
// first start. now is the hub's clock.
func OpenGatewayAuthority(dir string, now func() time.Time) (*GatewayAuthority, error) {
	path := filepath.Join(dir, "gateway.pem")
	s, err := openSigner(path, "Skerry gateway authority", now())
	if err != nil {
		return nil, fmt.Errorf("the gateways' authority in %s: %w: restore the file from a backup, or remove it and let people trust the new one", path, err)
	}
	return &GatewayAuthority{s}, nil
}

// PEM returns the authority's certificate.
func (g *GatewayAuthority) PEM() []byte { return g.pem() }

// Expires is when the authority's certificate ends.
func (g *GatewayAuthority) Expires() time.Time { return g.cert.NotAfter }

// SignServing returns the certificate chain of a site's gateway in PEM: for key, a P-256 public key as DER
// SubjectPublicKeyInfo, and for names beside the site's own (enroll.SiteHost). Names that
// enroll.ValidateServingName refuses are refused here too.
func (g *GatewayAuthority) SignServing(site fleet.SiteName, key []byte, names []string, notBefore, notAfter time.Time) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("sign certificate of the gateway of site %q: %w", site, err)
	}
	public, err := parseServingKey(key)
	if err := errors.Join(err, site.Validate(), enroll.ValidateServingNames(names)); err != nil {
		return fail(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: string(site), Organization: []string{"skerry:gateways"}},
		DNSNames:     []string{enroll.SiteHost(site)},
		NotBefore:    notBefore.Add(-skew), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, g.cert, public, g.key)
	if err != nil {
		return fail(err)
	}
	return certPEM(der), nil
}

func parseServingKey(der []byte) (*ecdsa.PublicKey, error) {
	if len(der) > maxServingKey {
		return nil, fmt.Errorf("servingKey has %d bytes, want at most %d", len(der), maxServingKey)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("servingKey: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("servingKey is a %T, want an ECDSA key on P-256", parsed)
	}
	return key, nil
}

// checkServing refuses a request for a gateway's certificate that could not be signed, before a token is
// used for it.
func checkServing(r wire.EnrollRequest) error {
	if len(r.ServingKey) == 0 {
		return nil
	}
	if _, err := parseServingKey(r.ServingKey); err != nil {
		return err
	}
	return enroll.ValidateServingNames(r.ServingNames)
}
