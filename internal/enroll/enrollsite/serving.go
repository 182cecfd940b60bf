package enrollsite

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/skerry-dev/skerry/internal/wire"
)

// ErrNoServing means that the hub has given no certificate for the gateway yet.
var ErrNoServing = errors.New("the hub has given this site's gateway no certificate yet")

// ServingTLS is for the gateway's listener: each handshake shows the newest certificate that the hub gave, so
// that a renewal needs no new listener. Without one handshakes fail with ErrNoServing. A certificate whose
// time is over is shown all the same while the hub is away: what a client makes of it is the client's.
func (i *Identity) ServingTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			if i.serving == nil {
				return nil, ErrNoServing
			}
			return i.serving, nil
		},
	}
}

// GatewayCA returns the authority, in PEM, that signed the gateway's certificate; empty while there is none.
func (i *Identity) GatewayCA() []byte { return []byte(i.snapshot().GatewayCA) }

// withServingKey returns the state with a key for the gateway, if o wants one. A key that was just made is
// written with the first certificate for it; until then it is worth nothing.
func (s state) withServingKey(o Options) (state, error) {
	if !o.Serving || len(s.ServingKey) > 0 {
		return s, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return s, fmt.Errorf("make key of the gateway: %w", err)
	}
	if s.ServingKey, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return s, fmt.Errorf("encode key of the gateway: %w", err)
	}
	return s, nil
}

func (s state) servingKey() (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(s.ServingKey)
	if err != nil {
		return nil, fmt.Errorf("key of the gateway: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key of the gateway is a %T", parsed)
	}
	return key, nil
}

// servingPair returns nil when the hub gave no certificate.
func (s state) servingPair() (*tls.Certificate, error) {
	if s.ServingCertificate == "" {
		return nil, nil
	}
	key, err := s.servingKey()
	if err != nil {
		return nil, err
	}
	pair, err := keyPair(s.ServingCertificate, key)
	if err != nil {
		return nil, fmt.Errorf("certificate of the gateway: %w", err)
	}
	if !key.PublicKey.Equal(pair.Leaf.PublicKey) {
		return nil, errors.New("certificate of the gateway is for another key")
	}
	return pair, nil
}

// askServing asks like ask, and for a certificate of the gateway if o wants one. A hub that finds that part
// of the request invalid, or is older than it, is asked again without: a name that cannot be had must not
// cost the member its credentials.
func (a *asker) askServing(ctx context.Context, o Options, s state, urls []string, path string, request wire.EnrollRequest) (wire.EnrollResponse, error) {
	if !o.Serving {
		return a.ask(ctx, urls, path, request)
	}
	key, err := s.servingKey()
	if err != nil {
		return wire.EnrollResponse{}, err
	}
	with := request
	with.ServingNames = o.ServingNames
	if with.ServingKey, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return wire.EnrollResponse{}, fmt.Errorf("encode key of the gateway: %w", err)
	}
	response, err := a.ask(ctx, urls, path, with)
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Reason == wire.RefusedInvalid {
		o.Log.Error("the hub gives this site's gateway no certificate: mend --gateway-name, give --tls-cert and --tls-key, or upgrade the hub",
			"names", o.ServingNames, "error", err)
		return a.ask(ctx, urls, path, request)
	}
	if err == nil && response.ServingCertificate == "" {
		o.Log.Warn("the hub gives gateways no certificates: upgrade it, or give --tls-cert and --tls-key")
	}
	return response, err
}

// checkServing refuses a certificate that the gateway cannot show. key is what was asked for.
func checkServing(r wire.EnrollResponse, key []byte) error {
	chain, err := parseCertificates([]byte(r.ServingCertificate))
	if err != nil || len(chain) == 0 {
		return errors.Join(err, errors.New("it cannot be read"))
	}
	if len(key) == 0 || !bytes.Equal(chain[0].RawSubjectPublicKeyInfo, key) {
		return errors.New("it is for another key")
	}
	authorities, err := parseCertificates([]byte(r.GatewayCA))
	if err != nil || len(authorities) != 1 {
		return errors.Join(err, errors.New("its authority cannot be read"))
	}
	return chain[len(chain)-1].CheckSignatureFrom(authorities[0])
}

// covers reports whether pair is for all names.
func covers(pair *tls.Certificate, names []string) bool {
	if pair == nil {
		return false
	}
	for _, name := range names {
		if pair.Leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}
