package enroll

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/wire"
)

// ErrToken is wrapped by every error about text that is no join token.
var ErrToken = errors.New("not a join token")

// tokenPrefix names the kind and version of the format, for people and for scanners of leaked secrets.
const tokenPrefix = "skj1."

// Bounds of a token.
const (
	maxTokenText = 4 << 10
	maxURLs      = 8
	maxURL       = 512
	maxTokenID   = 32
	secretSize   = 32
	checkSize    = 4
)

// Token is what lets one machine join as a member of one site, once. Its secret never leaves it by String,
// by a formatting verb or by a log: only Text tells it.
type Token struct {
	// URLs are where the hub's port is reached, such as "https://hub.example.com:7443".
	URLs []string
	// CA is the SHA-256 of the certificate (DER) of the hub's authority.
	CA [sha256.Size]byte
	// NextCA is that of the authority which will take its place; zero when there is none. It travels in an
	// address, so that agents which know nothing of it can join while CA is in use.
	NextCA [sha256.Size]byte
	// ID names the token at the hub; it is no secret.
	ID string
	// Secret proves it.
	Secret Secret
	// Issued is when the hub made the token, by its clock, to the second: the first hub time that a site
	// learns.
	Issued time.Time
}

// Secret is the part of a token that must not be seen.
type Secret [secretSize]byte

const redacted = "[redacted]"

// String hides the secret.
func (Secret) String() string { return redacted }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return redacted }

// Format hides the secret from every other verb.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue hides the secret from logs.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the secret from JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Wire returns the secret as it travels in a request to the hub, over a connection to the pinned hub alone.
func (s Secret) Wire() string { return base64.RawURLEncoding.EncodeToString(s[:]) }

// ParseSecret reads what Wire wrote.
func ParseSecret(text string) (Secret, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != secretSize {
		return Secret{}, fmt.Errorf("secret is malformed: %w", ErrToken)
	}
	return Secret(b), nil
}

// Hash returns what the hub keeps of the secret. The secret is random and as long as the hash, so it
// needs no salt and no slow function.
func (s Secret) Hash() [sha256.Size]byte {
	return sha256.Sum256(append([]byte("skerry join token v1\n"), s[:]...))
}

// NewToken makes a token with a new id and secret.
func NewToken(urls []string, ca [sha256.Size]byte, issued time.Time) Token {
	t := Token{URLs: urls, CA: ca, ID: NewID(), Issued: issued.UTC().Truncate(time.Second)}
	rand.Read(t.Secret[:]) // never fails
	return t
}

// NewID returns 16 random characters that may stand in the name of a Kubernetes object and in a subject.
// It has 80 bits, so that nobody guesses another's.
func NewID() string {
	var b [10]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// ValidateID reports whether id is one that NewID could have made.
func ValidateID(id string) error {
	if id == "" || len(id) > maxTokenID || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return fmt.Errorf("its id is malformed: %w", ErrToken)
	}
	return nil
}

// String names the token without its secret.
func (t Token) String() string { return "join token " + t.ID }

// LogValue names the token without its secret.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Text returns the token as people copy it, on one line: a prefix and, in base64url, the time of issue,
// the fingerprint, the id and each URL with its length before it, the secret, and the first bytes of the
// SHA-256 of all before, by which a token that lost its end in copying is known from a wrong one.
func (t Token) Text() string { return t.text(tokenPrefix) }

func (t Token) text(prefix string) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(t.Issued.Unix()))
	b = append(b, t.CA[:]...)
	b = append(b, t.Secret[:]...)
	b = appendString(b, t.ID)
	b = append(b, byte(len(t.URLs)))
	for _, u := range t.URLs {
		if t.NextCA != [sha256.Size]byte{} {
			u = wire.WithPin(u, t.NextCA)
		}
		b = appendString(b, u)
	}
	sum := sha256.Sum256(b)
	return prefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:checkSize]...))
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// ParseToken reads what Text wrote; blanks around it are ignored. Errors wrap ErrToken and never show the
// text.
func ParseToken(text string) (Token, error) { return parse(tokenPrefix, text) }

func parse(prefix, text string) (Token, error) {
	text = strings.TrimSpace(text)
	rest, ok := strings.CutPrefix(text, prefix)
	switch {
	case !ok:
		return Token{}, fmt.Errorf("it does not begin with %s: %w", prefix, ErrToken)
	case len(text) > maxTokenText:
		return Token{}, fmt.Errorf("it has %d characters, at most %d are allowed: %w", len(text), maxTokenText, ErrToken)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(b) < checkSize || strings.ContainsAny(rest, "\r\n") { // which the decoder skips
		return Token{}, fmt.Errorf("it was cut short or changed in copying: %w", ErrToken)
	}
	body, check := b[:len(b)-checkSize], b[len(b)-checkSize:]
	if sum := sha256.Sum256(body); string(sum[:checkSize]) != string(check) {
		return Token{}, fmt.Errorf("it was cut short or changed in copying: %w", ErrToken)
	}
	r := reader{rest: body}
	t := Token{Issued: time.Unix(int64(binary.BigEndian.Uint64(r.take(8))), 0).UTC()}
	copy(t.CA[:], r.take(sha256.Size))
	copy(t.Secret[:], r.take(secretSize))
	t.ID = r.text(maxTokenID)
	for range min(int(r.take(1)[0]), maxURLs+1) {
		address := r.text(maxURL)
		if without, next, ok := wire.CutPin(address); ok {
			address, t.NextCA = without, next
		}
		t.URLs = append(t.URLs, address)
	}
	if r.bad || len(r.rest) > 0 {
		return Token{}, fmt.Errorf("its parts do not fit: %w", ErrToken)
	}
	return t, t.validate()
}

func (t Token) validate() error {
	if err := ValidateID(t.ID); err != nil {
		return err
	}
	if len(t.URLs) == 0 || len(t.URLs) > maxURLs {
		return fmt.Errorf("it names %d addresses of the hub, want 1 to %d: %w", len(t.URLs), maxURLs, ErrToken)
	}
	for _, raw := range t.URLs {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("address %q of the hub is not https://host: %w", raw, ErrToken)
		}
	}
	return nil
}

// reader takes bytes apart. After the first that is missing, bad is set and it yields zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		r.bad, r.rest = true, nil
		return make([]byte, n)
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) text(limit int) string {
	n := int(binary.BigEndian.Uint16(r.take(2)))
	if n > limit {
		r.bad = true
		return ""
	}
	return string(r.take(n))
}
