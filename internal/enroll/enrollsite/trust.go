package enrollsite

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skerry-dev/skerry/internal/wire"
)

// Errors about the server at the hub's address.
var (
	// ErrNotTheHub means that the certificate shown is not from the hub that this site knows.
	ErrNotTheHub = errors.New("this is not the hub that the site knows")
	// ErrHubExpired means that the hub's certificate ended before a time at which the hub was heard last.
	ErrHubExpired = errors.New("the hub's certificate has expired")
)

// pin is the SHA-256 of an authority's certificate.
type pin = [sha256.Size]byte

// trust decides whether a server is the hub.
type trust struct {
	// pins returns the SHA-256 of the certificates of the hub's authorities: two while one takes the place of the other.
	pins func() []pin
	// extra are authorities that the owner of this machine named, for a public name of the hub.
	extra []*x509.Certificate
	// lastHub returns the latest time that the hub said.
	lastHub func() time.Time
}

// config returns a TLS configuration that verifies in its own way: the built-in one asks the machine's
// clock and the host name. certificate, if not nil, returns what to show the hub.
func (t *trust) config(certificate func() (*tls.Certificate, error)) *tls.Config {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection verifies, also when a session is resumed
		VerifyConnection:   t.verify,
		NextProtos:         []string{"http/1.1"},
	}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate() }
	}
	return config
}

func (t *trust) verify(state tls.ConnectionState) error {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		return fmt.Errorf("the server shows no certificate: %w", ErrNotTheHub)
	}
	pins := t.pins()
	for _, cert := range chain[1:] {
		if slices.Contains(pins, sha256.Sum256(cert.Raw)) {
			return t.verifyHub(chain[0], cert)
		}
	}
	if len(t.extra) > 0 {
		return t.verifyExtra(state)
	}
	return notTheHub(chain[0], nil)
}

// verifyHub verifies a chain to the pinned authority. The hub is known by its name in the certificate and
// not by its address, because the same authority may vouch for other servers.
func (t *trust) verifyHub(leaf, authority *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	at, err := t.verificationTime(leaf)
	if err != nil {
		return err
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotTheHub, err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != wire.HubURI {
		return fmt.Errorf("the certificate is not the hub's own, though of its authority: %w", ErrNotTheHub)
	}
	return nil
}

// verifyExtra verifies by the authorities that the owner of this machine named: they vouch for names.
func (t *trust) verifyExtra(state tls.ConnectionState) error {
	leaf := state.PeerCertificates[0]
	at, err := t.verificationTime(leaf)
	if err != nil {
		return err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range t.extra {
		roots.AddCert(c)
	}
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at, DNSName: state.ServerName})
	if err != nil {
		return notTheHub(leaf, err)
	}
	return nil
}

// verificationTime is a time at which leaf may be judged: not before the hub was heard last, and within
// the certificate's life. The machine's own clock has no say.
func (t *trust) verificationTime(leaf *x509.Certificate) (time.Time, error) {
	last := t.lastHub()
	if !leaf.NotAfter.After(last) {
		return time.Time{}, fmt.Errorf("it ended at %s and the hub was heard at %s: %w: start the hub's newer release, or check that the address is the hub's",
			leaf.NotAfter.UTC().Format(time.RFC3339), last.UTC().Format(time.RFC3339), ErrHubExpired)
	}
	if leaf.NotBefore.After(last) {
		return leaf.NotBefore, nil
	}
	return last, nil
}

// notTheHub names the probable cause.
func notTheHub(leaf *x509.Certificate, cause error) error {
	text := fmt.Sprintf("the certificate is issued by %q to %q, not by the hub's authority: probably a proxy on the way opens TLS; "+
		"let it pass connections to the hub unopened, or join anew if the hub was installed anew", leaf.Issuer, leaf.Subject)
	if cause == nil {
		return fmt.Errorf("%s: %w", text, ErrNotTheHub)
	}
	return fmt.Errorf("%s: %w: %w", text, ErrNotTheHub, cause)
}

// parseCertificates reads all certificates of a PEM file.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		out = append(out, cert)
	}
	return slices.Clip(out), nil
}
