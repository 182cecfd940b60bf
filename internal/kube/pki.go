package kube

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/util/keyutil"
)

// Lives of certificates. Authorities outlive everything; the rest is renewed at the first start after two
// thirds of its life.
const (
	authorityLife   = 20 * 365 * 24 * time.Hour
	certificateLife = 365 * 24 * time.Hour
	// backdate makes a new certificate valid for peers whose clock is a little behind.
	backdate = time.Hour
)

// authority is a certificate authority whose key stands beside it on disk.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	// certFile is the certificate in PEM.
	certFile string
}

// pair names the files of a certificate and its key.
type pair struct{ cert, key string }

// pkiDir is the name of its directory below Options.Dir.
const pkiDir = "pki"

// pki makes and keeps the certificates of one data directory.
type pki struct {
	dir string
	now func() time.Time
}

// authority loads the authority of that name, making it when there is none.
func (p pki) authority(name string) (*authority, error) {
	files := p.files(name)
	cert, key, err := loadPair(files)
	if err == nil {
		return &authority{cert: cert, key: key, certFile: files.cert}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "skerry " + name},
		NotBefore:             p.now().Add(-backdate),
		NotAfter:              p.now().Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, key, err = p.issue(files, template, nil)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key, certFile: files.cert}, nil
}

// leaf returns the files of a certificate that ca signed for these names, making or renewing it when
// needed. A leaf for a server has names or addresses; one for a client has a subject only.
func (p pki) leaf(name string, ca *authority, subject pkix.Name, usage x509.ExtKeyUsage, names []string, ips []net.IP) (pair, error) {
	files := p.files(name)
	template := &x509.Certificate{
		Subject:     subject,
		NotBefore:   p.now().Add(-backdate),
		NotAfter:    p.now().Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
		DNSNames:    names,
		IPAddresses: ips,
	}
	old, _, err := loadPair(files)
	if err == nil && p.fits(old, template, ca) {
		return files, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pair{}, err
	}
	_, _, err = p.issue(files, template, ca)
	return files, err
}

// fits reports whether an existing certificate may go on serving in place of one made from template.
func (p pki) fits(old, template *x509.Certificate, ca *authority) bool {
	if old.CheckSignatureFrom(ca.cert) != nil || old.Subject.String() != template.Subject.String() {
		return false
	}
	life := old.NotAfter.Sub(old.NotBefore)
	if p.now().After(old.NotBefore.Add(life * 2 / 3)) {
		return false
	}
	for _, name := range template.DNSNames {
		if old.VerifyHostname(name) != nil {
			return false
		}
	}
	for _, ip := range template.IPAddresses {
		if old.VerifyHostname(ip.String()) != nil {
			return false
		}
	}
	return true
}

// issue makes a key and a certificate and writes both; without ca the certificate signs itself.
func (p pki) issue(files pair, template *x509.Certificate, ca *authority) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key %s: %w", files.key, err)
	}
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, fmt.Errorf("make serial number: %w", err)
	}
	parent, signer := template, crypto.Signer(key)
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate %s: %w", files.cert, err)
	}
	keyPEM, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key %s: %w", files.key, err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if ca != nil {
		certPEM = append(certPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})...)
	}
	// The key first: a certificate without its key would look like a complete pair after a crash.
	if err := writeFile(files.key, keyPEM); err != nil {
		return nil, nil, err
	}
	if err := writeFile(files.cert, certPEM); err != nil {
		return nil, nil, err
	}
	return loadPair(files)
}

// signingKey returns the file of a private key, making it when there is none.
func (p pki) signingKey(name string) (string, error) {
	file := p.files(name).key
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make key %s: %w", file, err)
	}
	data, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return "", fmt.Errorf("encode key %s: %w", file, err)
	}
	return file, writeFile(file, data)
}

func (p pki) files(name string) pair {
	return pair{cert: filepath.Join(p.dir, name+".crt"), key: filepath.Join(p.dir, name+".key")}
}

func loadPair(files pair) (*x509.Certificate, crypto.Signer, error) {
	certPEM, err := os.ReadFile(files.cert)
	if err != nil {
		return nil, nil, fmt.Errorf("read certificate: %w", err)
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, nil, fmt.Errorf("certificate %s holds no PEM block: remove it and its key to have them made anew", files.cert)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", files.cert, err)
	}
	loaded, err := keyutil.PrivateKeyFromFile(files.key)
	if err != nil {
		return nil, nil, fmt.Errorf("read key: %w", err)
	}
	key, ok := loaded.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("key %s cannot sign", files.key)
	}
	return cert, key, nil
}

// writeFile replaces a file at once, readable by its owner alone, leaving it untouched when it already
// has that content.
func writeFile(path string, data []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// A key that a power cut takes away takes what was encrypted with it along.
	dir, err := os.Open(filepath.Dir(path))
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		return fmt.Errorf("sync directory of %s: %w", path, err)
	}
	return nil
}
