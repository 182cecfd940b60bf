package enrollsite

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Options say where an identity is kept and how the hub is reached.
type Options struct {
	// Dir is the agent's data directory.
	Dir string
	// ExtraCA holds, in PEM, authorities that vouch for a public name of the hub, beside the hub's own.
	ExtraCA []byte
	// Proxy returns the proxy for an https URL, nil for none; when Proxy is nil the environment decides.
	Proxy func(*url.URL) (*url.URL, error)
	// Dial opens connections, to the hub or to the proxy; nil means net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Hardware and Version are told to the hub.
	Hardware fleet.Hardware
	Version  string
	// Serving asks the hub for a certificate of the site's gateway too: for ServingNames, DNS names and
	// addresses that enroll.ValidateServingNames allows, and for enroll.SiteHost.
	Serving      bool
	ServingNames []string
	Log          *slog.Logger
}

// Identity is who this member is. It is safe for concurrent use.
type Identity struct {
	o     Options
	path  string
	trust *trust
	key   ed25519.PrivateKey
	seal  *ecdh.PrivateKey
	nudge chan struct{}
	// renewed holds a value when credentials are newer than a module saw.
	renewed chan struct{}

	mu          sync.Mutex
	state       state
	trusted     []pin // of state
	certificate *tls.Certificate
	serving     *tls.Certificate // of the gateway; nil while the hub gave none
	heard       time.Time        // when HubTime was heard, by the monotonic clock; zero: in an earlier life
}

// Open reads the identity of a member that joined before; ErrNotJoined when there is none.
func Open(o Options) (*Identity, error) {
	path := filepath.Join(o.Dir, IdentityFile)
	s, err := readState(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: run with a join token", o.Dir, ErrNotJoined)
	}
	if err != nil {
		return nil, err
	}
	return newIdentity(o, path, s)
}

func newIdentity(o Options, path string, s state) (*Identity, error) {
	s, err := s.withServingKey(o)
	if err != nil {
		return nil, err
	}
	i := &Identity{o: o, path: path, state: s, key: s.key(), nudge: make(chan struct{}, 1), renewed: make(chan struct{}, 1)}
	if i.seal, err = s.sealKey(); err != nil {
		return nil, fmt.Errorf("identity in %s: %w", path, err)
	}
	if i.certificate, err = keyPair(s.Certificate, i.key); err != nil {
		return nil, fmt.Errorf("identity in %s: %w: remove the file and join anew", path, err)
	}
	if i.serving, err = s.servingPair(); err != nil {
		return nil, fmt.Errorf("identity in %s: %w: remove the file and join anew", path, err)
	}
	if i.trusted, err = s.pins(); err != nil {
		return nil, fmt.Errorf("identity in %s: %w: remove the file and join anew", path, err)
	}
	if i.trust, err = newTrust(o, i.pins, i.lastHub); err != nil {
		return nil, err
	}
	if o.Serving && !covers(i.serving, o.ServingNames) {
		i.RenewSoon()
	}
	return i, nil
}

func newTrust(o Options, pins func() []pin, lastHub func() time.Time) (*trust, error) {
	extra, err := parseCertificates(o.ExtraCA)
	if err != nil || len(o.ExtraCA) > 0 && len(extra) == 0 {
		return nil, fmt.Errorf("extra authorities: no certificate in PEM: %w", errors.Join(err, wire.ErrMessage))
	}
	return &trust{pins: pins, extra: extra, lastHub: lastHub}, nil
}

func keyPair(chain string, key crypto.Signer) (*tls.Certificate, error) {
	certs, err := parseCertificates([]byte(chain))
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, c := range certs {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

// Join makes this machine a member with a join token. It asks once at each of the hub's addresses; a hub
// that refuses is a *RefusedError. A machine that asked before with the same token asks with the same
// keys, so that a lost answer costs no token.
func Join(ctx context.Context, o Options, token enroll.Token) (*Identity, error) {
	identity, err := join(ctx, o, token, wire.PathEnroll)
	if err != nil {
		return nil, fmt.Errorf("join with token %s: %w", token.ID, err)
	}
	return identity, nil
}

func join(ctx context.Context, o Options, token enroll.Token, ask string) (*Identity, error) {
	path, pending := filepath.Join(o.Dir, IdentityFile), filepath.Join(o.Dir, pendingFile)
	s, err := readState(pending)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil || s.TokenID != token.ID {
		if s, err = newState(); err != nil {
			return nil, err
		}
		s.TokenID = token.ID
		if err := s.write(pending); err != nil {
			return nil, err
		}
	}
	if s, err = s.withServingKey(o); err != nil {
		return nil, err
	}
	lastHub := func() time.Time { return token.Issued }
	pins := []pin{token.CA}
	if token.NextCA != (pin{}) {
		pins = append(pins, token.NextCA)
	}
	t, err := newTrust(o, func() []pin { return pins }, lastHub)
	if err != nil {
		return nil, err
	}
	seal, err := s.sealKey()
	if err != nil {
		return nil, err
	}
	a := &asker{key: s.key(), tls: t.config(nil), proxy: o.Proxy, dial: o.Dial, pins: pins}
	response, err := a.askServing(ctx, o, s, token.URLs, ask, wire.EnrollRequest{
		TokenID: token.ID, TokenSecret: token.Secret.Wire(), SealKey: seal.PublicKey().Bytes(),
		Hardware: o.Hardware, Version: o.Version,
	})
	if err != nil {
		return nil, err
	}
	s.TokenID, s.HubURLs, s.HubTime = "", token.URLs, token.Issued.Unix()
	if s, err = s.after(response); err != nil {
		return nil, err
	}
	i, err := newIdentity(o, path, s)
	if err != nil {
		return nil, err
	}
	i.heard = time.Now()
	if err := s.write(path); err != nil {
		return nil, err
	}
	return i, remove(pending)
}

// after returns the state after an answer of the hub that was checked.
func (s state) after(r wire.EnrollResponse) (state, error) {
	inUse, err := parseCertificates([]byte(r.CA))
	if err != nil || len(inUse) != 1 {
		return s, fmt.Errorf("the hub's authority cannot be read: %w", errors.Join(err, wire.ErrMessage))
	}
	digest := sha256.Sum256(inUse[0].Raw)
	s.Pin, s.CA = digest[:], r.CA
	if r.Authorities != "" {
		s.Authorities = r.Authorities
	}
	return s.with(r), nil
}

// with returns the state after an answer, but for whom it trusts.
func (s state) with(r wire.EnrollResponse) state {
	s.Site, s.Member = r.Site, r.Member
	s.Certificate, s.Credential, s.BusURLs = r.Certificate, r.BusCredential, r.BusURLs
	s.HubURLs = addresses(r.HubURLs, s.HubURLs)
	s.NotBefore, s.Expires = r.NotBefore, r.Expires
	if r.ServingCertificate != "" {
		s.ServingCertificate, s.GatewayCA = r.ServingCertificate, r.GatewayCA
	}
	s.HubTime = max(s.HubTime, r.HubTime)
	return s
}

// addresses joins those that the hub says it has with those that were known, the newest first and no more than a
// member may know. What is no address of a hub's port is left out.
func addresses(said, known []string) []string {
	var out []string
	for _, raw := range slices.Concat(said, known) {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "https" || u.Host == "" || slices.Contains(out, raw) || len(out) == wire.MaxHubURLs {
			continue
		}
		out = append(out, raw)
	}
	return out
}

func (i *Identity) pins() []pin {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.trusted // replaced as a whole, never changed
}

// Site returns the site of this member.
func (i *Identity) Site() fleet.SiteName { return i.snapshot().Site }

// Member returns this member's id.
func (i *Identity) Member() fleet.MemberID { return i.snapshot().Member }

// HubURLs are where the hub's port is reached.
func (i *Identity) HubURLs() []string { return slices.Clone(i.snapshot().HubURLs) }

// BusURLs are where the bus is reached: as the hub said, else at its own port.
func (i *Identity) BusURLs() []string {
	s := i.snapshot()
	if len(s.BusURLs) > 0 {
		return slices.Clone(s.BusURLs)
	}
	var urls []string
	for _, raw := range s.HubURLs {
		u, err := url.Parse(raw)
		if err != nil {
			continue // the token was checked
		}
		u.Scheme = "wss"
		urls = append(urls, u.JoinPath(wire.PathBus).String())
	}
	return urls
}

// CA returns the hub's authority in use, in PEM.
func (i *Identity) CA() []byte { return []byte(i.snapshot().CA) }

// Credentials returns the newest credential of the bus.
func (i *Identity) Credentials() (string, error) { return i.snapshot().Credential, nil }

// Sign signs a nonce of the bus with this member's key.
func (i *Identity) Sign(nonce []byte) ([]byte, error) { return ed25519.Sign(i.key, nonce), nil }

// Key is the member's own, by which hub and neighbours know it. It must not be written or sent anywhere.
func (i *Identity) Key() ed25519.PrivateKey { return i.key }

// SealKey opens what the hub sealed to this member.
func (i *Identity) SealKey() *ecdh.PrivateKey { return i.seal }

// TLSConfig is for every connection to the hub: it shows this member's newest certificate and accepts the
// hub alone.
func (i *Identity) TLSConfig() *tls.Config {
	return i.trust.config(func() (*tls.Certificate, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.certificate, nil
	})
}

// HubTime returns the hub's time now, as far as it is known: what the hub said last and what has passed
// since, by a clock that nobody sets. known is false until the hub was heard in this life of the agent;
// the time is then only a lower bound.
func (i *Identity) HubTime() (now time.Time, known bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	last := time.Unix(i.state.HubTime, 0).UTC()
	if i.heard.IsZero() {
		return last, false
	}
	return last.Add(time.Since(i.heard)), true
}

// Forget removes the identity from the disk, for a site that was deleted.
func (i *Identity) Forget() error {
	return errors.Join(remove(i.path), remove(filepath.Join(i.o.Dir, pendingFile)))
}

func (i *Identity) snapshot() state {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state
}

func (i *Identity) lastHub() time.Time { return time.Unix(i.snapshot().HubTime, 0) }

// Leaf returns the newest client certificate, for status.
func (i *Identity) Leaf() *x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.certificate.Leaf
}
