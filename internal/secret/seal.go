package secret

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Errors of this package, to be tested with errors.Is.
var (
	// ErrOpen means that something was not sealed to this key, not for this place, or was changed.
	ErrOpen = errors.New("sealed data cannot be opened")
	// ErrKey means that a member's public key is none.
	ErrKey = errors.New("not an X25519 public key")
	// ErrPlain means that what was sealed is not a list of values.
	ErrPlain = errors.New("malformed list of values")
)

// Context is the place of sealed values: what was sealed for one cannot be opened as another's.
type Context struct {
	Site      fleet.SiteName
	Member    fleet.MemberID
	Namespace string
	Name      string
	// UID and Version are those of the Secret.
	UID     string
	Version string
}

// info is HPKE's info: a fixed label, then each part with its length before it.
func (c Context) info() []byte {
	out := []byte("skerry secret v1\n")
	for _, part := range []string{string(c.Site), string(c.Member), c.Namespace, c.Name, c.UID, c.Version} {
		out = appendPart(out, part)
	}
	return out
}

// Seal encrypts values by key to a member's X25519 public key, for one place. It is HPKE (RFC 9180) in base
// mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM, in one shot: the encapsulated key, then
// the ciphertext. Each call yields other bytes.
func Seal(key []byte, c Context, values map[string]fleet.SecretValue) ([]byte, error) {
	public, err := ecdh.X25519().NewPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("seal to member %s of site %s: %w: %w", c.Member, c.Site, err, ErrKey)
	}
	recipient, err := hpke.NewDHKEMPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("seal to member %s of site %s: %w: %w", c.Member, c.Site, err, ErrKey)
	}
	plain := encodeValues(values)
	defer clear(plain)
	sealed, err := hpke.Seal(recipient, hpke.HKDFSHA256(), hpke.AES256GCM(), c.info(), plain)
	if err != nil {
		return nil, fmt.Errorf("seal to member %s of site %s: %w", c.Member, c.Site, err)
	}
	return sealed, nil
}

// Open decrypts what Seal made for the same place and the public half of key.
func Open(key *ecdh.PrivateKey, c Context, sealed []byte) (map[string]fleet.SecretValue, error) {
	private, err := hpke.NewDHKEMPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s: %w: %w", c.Namespace, c.Name, err, ErrOpen)
	}
	plain, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), c.info(), sealed)
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s: %w: %w", c.Namespace, c.Name, err, ErrOpen)
	}
	values, err := decodeValues(plain)
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s: %w: %w", c.Namespace, c.Name, err, ErrOpen)
	}
	return values, nil
}

// SealedSize is how many bytes Seal yields for values.
func SealedSize(values map[string]fleet.SecretValue) int {
	const encapsulated, tag = 32, 16
	return encapsulated + padded(valuesSize(values)) + tag
}

// padTo hides the length of values: what is sealed is filled with zeros to a multiple of it.
const padTo = 128

func padded(n int) int { return (n + padTo - 1) / padTo * padTo }

func valuesSize(values map[string]fleet.SecretValue) int {
	n := lengthSize
	for key, value := range values {
		n += 2*lengthSize + len(key) + len(value)
	}
	return n
}

const lengthSize = 4

// encodeValues writes the number of values, then each key and value with its length before it, in the
// order of keys, then zeros.
func encodeValues(values map[string]fleet.SecretValue) []byte {
	size := valuesSize(values)
	out := make([]byte, 0, padded(size))
	out = binary.BigEndian.AppendUint32(out, uint32(len(values)))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		out = appendPart(out, key)
		out = appendPart(out, values[key])
	}
	return out[:padded(size)] // never written before, so zero
}

// decodeValues reads what encodeValues wrote. The values share plain's memory.
func decodeValues(plain []byte) (map[string]fleet.SecretValue, error) {
	if len(plain) < lengthSize {
		return nil, fmt.Errorf("%d bytes: %w", len(plain), ErrPlain)
	}
	count := binary.BigEndian.Uint32(plain)
	rest := plain[lengthSize:]
	values := map[string]fleet.SecretValue{}
	for range count {
		var key, value []byte
		var ok bool
		if key, rest, ok = cutPart(rest); ok {
			value, rest, ok = cutPart(rest)
		}
		if _, twice := values[string(key)]; !ok || twice {
			return nil, fmt.Errorf("value %d of %d: %w", len(values), count, ErrPlain)
		}
		values[string(key)] = value
	}
	return values, nil
}

func appendPart[T string | fleet.SecretValue](to []byte, part T) []byte {
	to = binary.BigEndian.AppendUint32(to, uint32(len(part)))
	return append(to, part...)
}

func cutPart(from []byte) (part, rest []byte, ok bool) {
	if len(from) < lengthSize {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(from)
	from = from[lengthSize:]
	if uint64(n) > uint64(len(from)) {
		return nil, nil, false
	}
	return from[:n:n], from[n:], true
}
