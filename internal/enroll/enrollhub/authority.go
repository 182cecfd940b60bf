package enrollhub

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Life of certificates.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	servingLife   = 30 * 24 * time.Hour
	// skew is how far certificates begin in the past, for hubs whose clocks differ.
	skew = 5 * time.Minute
)

// signer is one certificate authority: its certificate and key.
type signer struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// openSigner reads the authority in the file at path, making one of that name when there is no file.
func openSigner(path, name string, now time.Time) (*signer, error) {
	s, err := readSigner(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if s, err = newSigner(name, now); err != nil {
		return nil, err
	}
	return s, s.write(path)
}

func readSigner(path string) (*signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseSigner(data)
}

func newSigner(name string, now time.Time) (*signer, error) {
	s := &signer{}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-skew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.key.Public(), s.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	if s.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return s, nil
}

// write keeps both in one file, so that a crash cannot leave the one without the other.
func (s *signer) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return writeFile(path, append(s.pem(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...))
}

func parseSigner(data []byte) (*signer, error) {
	s := &signer{}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			s.cert = cert
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			s.key, _ = key.(*ecdsa.PrivateKey)
		}
	}
	if s.cert == nil || s.key == nil {
		return nil, errors.New("certificate or key is missing")
	}
	if !s.key.PublicKey.Equal(s.cert.PublicKey) {
		return nil, errors.New("certificate and key do not belong together")
	}
	return s, nil
}

func (s *signer) pem() []byte { return certPEM(s.cert.Raw) }

func (s *signer) fingerprint() [sha256.Size]byte { return sha256.Sum256(s.cert.Raw) }

func (s *signer) digest() string { return hex.EncodeToString(sum(s.cert.Raw)) }

func sum(b []byte) []byte { d := sha256.Sum256(b); return d[:] }

// Secret derives a key for one purpose from the authority's own, so that all hubs of one authority have
// the same.
func (a *Authority) Secret(purpose string) ([]byte, error) {
	raw, err := a.inUse().key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return hkdf.Key(sha256.New, raw, nil, purpose, sha256.Size)
}

// SignMember returns the client certificate chain of a member in PEM.
func (a *Authority) SignMember(site fleet.SiteName, member fleet.MemberID, key ed25519.PublicKey, notBefore, notAfter time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: string(site) + "/" + string(member), Organization: []string{"skerry:sites"}},
		URIs:         []*url.URL{memberURI(site, member)},
		NotBefore:    notBefore.Add(-skew), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	by := a.inUse()
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key, by.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of site %q, member %q: %w", site, member, err)
	}
	return certPEM(der), nil
}

func memberURI(site fleet.SiteName, member fleet.MemberID) *url.URL {
	return &url.URL{Scheme: "skerry", Host: "site", Path: "/" + string(site) + "/member/" + string(member)}
}

// parseMemberURI is the inverse of memberURI.
func parseMemberURI(u *url.URL) (fleet.SiteName, fleet.MemberID, error) {
	parts := strings.Split(u.Path, "/")
	if u.Scheme != "skerry" || u.Host != "site" || len(parts) != 4 || parts[0] != "" || parts[2] != "member" {
		return "", "", fmt.Errorf("%q names no member", u)
	}
	site, member := fleet.SiteName(parts[1]), fleet.MemberID(parts[3])
	return site, member, errors.Join(site.Validate(), member.Validate())
}

// verifyMember returns whom the certificates name, when they chain to an authority that is trusted, at the hub's time.
func (a *Authority) verifyMember(presented []*x509.Certificate) (fleet.SiteName, fleet.MemberID, *x509.Certificate, error) {
	if len(presented) == 0 {
		return "", "", nil, errors.New("no client certificate")
	}
	leaf := presented[0]
	roots := x509.NewCertPool()
	for _, s := range a.trusted() {
		roots.AddCert(s.cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", "", nil, fmt.Errorf("client certificate: %w", err)
	}
	if len(leaf.URIs) != 1 {
		return "", "", nil, fmt.Errorf("client certificate names %d members, want one", len(leaf.URIs))
	}
	site, member, err := parseMemberURI(leaf.URIs[0])
	return site, member, leaf, err
}

// Serving is the hub's own certificate, made anew when two thirds of its life are over or another authority is in
// use. It is safe for concurrent use.
type Serving struct {
	authority *Authority
	names     []string

	mu    sync.Mutex
	cert  *tls.Certificate
	by    *signer // of cert
	renew time.Time
}

// NewServing returns the certificate for names, each a DNS name or an address.
func (a *Authority) NewServing(names ...string) *Serving {
	return &Serving{authority: a, names: names}
}

// TLSConfig is for the hub's port: client certificates are asked for but not demanded, since people,
// sites and browsers share it, and each handler judges what it is shown.
func (s *Serving) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() },
	}
}

func (s *Serving) certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, by := s.authority.now(), s.authority.inUse()
	if s.cert != nil && s.by == by && now.Before(s.renew) {
		return s.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of the hub's port: %w", err)
	}
	cert, err := by.signServing(s.names, key.Public(), now)
	if err != nil {
		return nil, err
	}
	s.cert, s.by = &tls.Certificate{Certificate: [][]byte{cert, by.cert.Raw}, PrivateKey: key}, by
	s.renew = now.Add(servingLife * 2 / 3)
	return s.cert, nil
}

func (s *signer) signServing(names []string, key crypto.PublicKey, now time.Time) ([]byte, error) {
	hub, err := url.Parse(wire.HubURI)
	if err != nil {
		return nil, fmt.Errorf("name of the hub: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "Skerry hub"},
		// Members know the hub by this name, not by an address: the authority may sign other servers.
		URIs:      []*url.URL{hub},
		NotBefore: now.Add(-skew), NotAfter: now.Add(servingLife),
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
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key, s.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of the hub's port: %w", err)
	}
	return der, nil
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f // positive, as RFC 5280 wants
	return new(big.Int).SetBytes(b[:])
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// writeFile makes path, mode 0600, such that a crash leaves all of it or none.
func writeFile(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// syncDir makes a rename within dir survive a power cut: sites pin what stands there.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
