package fleet

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalidName is wrapped by every error about a name that breaks the rules of its type.
var ErrInvalidName = errors.New("invalid name")

// maxLabel is the length of a DNS label (RFC 1123), which is also what Kubernetes allows in label values.
const maxLabel = 63

// SiteName names one site. It is a DNS label (RFC 1123): lower-case letters, digits and '-', at most 63
// characters, so that it is at once a Kubernetes object name, one token of a bus subject, and a directory.
type SiteName string

// Validate reports whether the name keeps the rules of its type.
func (n SiteName) Validate() error { return validateLabel("site", string(n)) }

// MemberID names one member (box or replica) of a site. The hub chooses it at enrolment; it keeps the
// rules of a SiteName and is never used for another key.
type MemberID string

// Validate reports whether the id keeps the rules of its type.
func (m MemberID) Validate() error { return validateLabel("member", string(m)) }

// AppKey names one app: the namespace and name of its App object. The zero value names no app.
type AppKey struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String returns "namespace/name".
func (k AppKey) String() string { return k.Namespace + "/" + k.Name }

// MarshalText lets an AppKey be a key of a JSON object.
func (k AppKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (k *AppKey) UnmarshalText(text []byte) error {
	parsed, err := ParseAppKey(string(text))
	if err != nil {
		return err
	}
	*k = parsed
	return nil
}

// Validate reports whether both parts are DNS labels.
func (k AppKey) Validate() error {
	if err := validateLabel("namespace", k.Namespace); err != nil {
		return err
	}
	return validateLabel("app", k.Name)
}

// ParseAppKey reads "namespace/name".
func ParseAppKey(s string) (AppKey, error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		return AppKey{}, fmt.Errorf("app %q: want namespace/name: %w", s, ErrInvalidName)
	}
	k := AppKey{Namespace: ns, Name: name}
	return k, k.Validate()
}

func validateLabel(what, s string) error {
	if s == "" || len(s) > maxLabel {
		return fmt.Errorf("%s %q: want 1 to %d characters: %w", what, s, maxLabel, ErrInvalidName)
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (c != '-' || i == 0 || i == len(s)-1) {
			return fmt.Errorf("%s %q: want lower-case letters, digits and inner '-': %w", what, s, ErrInvalidName)
		}
	}
	return nil
}

// fingerprintSize is the length of a fingerprint: 16 bytes as lower-case hexadecimal digits.
const fingerprintSize = 32

// ValidateFingerprint reports whether text is a machine's fingerprint: 32 lower-case hexadecimal digits.
func ValidateFingerprint(text string) error {
	if len(text) != fingerprintSize || strings.Trim(text, "0123456789abcdef") != "" {
		return fmt.Errorf("fingerprint %.40q: want %d digits of 0-9 and a-f, as `skerry-site fingerprint` prints them", text, fingerprintSize)
	}
	return nil
}
