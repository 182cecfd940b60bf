package enrollsite

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// IdentityFile is the file below the data directory that holds a member's identity, mode 0600. It is there
// once the member has joined.
const IdentityFile = "identity.json"

// pendingFile holds the keys with which a member is about to join, so that one that loses the hub's
// answer, or its power, asks again with the same.
const pendingFile = "identity.pending.json"

// ErrNotJoined means that a data directory holds no identity.
var ErrNotJoined = errors.New("this machine has not joined a hub")

// state is what a member keeps.
type state struct {
	// Seed is that of the Ed25519 key, SealKey the X25519 private key. Neither ever leaves this machine.
	Seed    []byte `json:"seed"`
	SealKey []byte `json:"sealKey"`
	// TokenID is the token that the keys are for, while joining.
	TokenID string `json:"tokenID,omitempty"`

	Site    fleet.SiteName `json:"site,omitempty"`
	Member  fleet.MemberID `json:"member,omitempty"`
	HubURLs []string       `json:"hubURLs,omitempty"`
	BusURLs []string       `json:"busURLs,omitempty"`
	// Pin is the SHA-256 of the hub's authority, CA its certificate in PEM. Authorities are all that are trusted, CA
	// among them, in PEM; empty: CA alone. An agent that is older than this knows Pin and CA.
	Pin         []byte `json:"pin,omitempty"`
	CA          string `json:"ca,omitempty"`
	Authorities string `json:"authorities,omitempty"`
	// Certificate is the client certificate chain in PEM, Credential that of the bus.
	Certificate string `json:"certificate,omitempty"`
	Credential  string `json:"credential,omitempty"`
	// ServingKey is the P-256 key of the gateway (PKCS #8), which never leaves this machine either;
	// ServingCertificate its chain and GatewayCA the authority of that, in PEM.
	ServingKey         []byte `json:"servingKey,omitempty"`
	ServingCertificate string `json:"servingCertificate,omitempty"`
	GatewayCA          string `json:"gatewayCA,omitempty"`
	// Times of the hub, in seconds since 1970. HubTime never goes back.
	NotBefore int64 `json:"notBefore,omitempty"`
	Expires   int64 `json:"expires,omitempty"`
	HubTime   int64 `json:"hubTime,omitempty"`
}

func newState() (state, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return state{}, fmt.Errorf("make key: %w", err)
	}
	seal, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return state{}, fmt.Errorf("make key: %w", err)
	}
	return state{Seed: key.Seed(), SealKey: seal.Bytes()}, nil
}

func (s state) key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(s.Seed) }

func (s state) sealKey() (*ecdh.PrivateKey, error) { return ecdh.X25519().NewPrivateKey(s.SealKey) }

// readState returns fs.ErrNotExist when there is no file.
func readState(path string) (state, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return state{}, err
	}
	var s state
	err = json.Unmarshal(data, &s)
	if err == nil && len(s.Seed) != ed25519.SeedSize {
		err = fmt.Errorf("seed has %d bytes, want %d", len(s.Seed), ed25519.SeedSize)
	}
	if err == nil {
		_, err = s.sealKey()
	}
	if err == nil && len(s.ServingKey) > 0 {
		_, err = s.servingKey()
	}
	if err != nil {
		return state{}, fmt.Errorf("identity in %s is damaged: %w: remove the file and join anew", path, err)
	}
	return s, nil
}

// write replaces the file such that a crash leaves the old content or the new.
func (s state) write(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
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
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// syncDir makes a rename within dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove identity: %w", err)
	}
	return nil
}
