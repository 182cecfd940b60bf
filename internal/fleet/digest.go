package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// ErrDigest is wrapped by errors about a malformed digest or content that does not match one.
var ErrDigest = errors.New("digest mismatch")

// Digest names content by its SHA-256, in the form of the OCI image specification:
// "sha256:" and 64 lower-case hexadecimal digits. The zero value names nothing.
type Digest string

const digestPrefix = "sha256:"

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(digestPrefix + hex.EncodeToString(sum[:]))
}

// Validate reports whether the digest is well formed.
func (d Digest) Validate() error {
	rest, ok := strings.CutPrefix(string(d), digestPrefix)
	if !ok || len(rest) != hex.EncodedLen(sha256.Size) || strings.Trim(rest, "0123456789abcdef") != "" {
		return fmt.Errorf("%q is not sha256: and 64 lower-case hexadecimal digits: %w", string(d), ErrDigest)
	}
	return nil
}

// Hex returns the hexadecimal part, which is safe as a file name once Validate returned nil.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// Short returns the first 12 hexadecimal digits, for people.
func (d Digest) Short() string {
	h := d.Hex()
	return h[:min(12, len(h))]
}

// Check returns an error that wraps ErrDigest unless b is what d names.
func (d Digest) Check(b []byte) error {
	if got := DigestOf(b); got != d {
		return fmt.Errorf("want %s, content is %s: %w", d, got, ErrDigest)
	}
	return nil
}

// Verifier computes the digest of what is written to it. The zero value is not usable; see NewVerifier.
// It is not safe for concurrent use.
type Verifier struct{ sum hash.Hash }

// NewVerifier returns a Verifier that has seen no bytes.
func NewVerifier() *Verifier { return &Verifier{sum: sha256.New()} }

// Write adds b; it never fails.
func (v *Verifier) Write(b []byte) (int, error) { return v.sum.Write(b) }

// Digest returns the digest of all that was written so far.
func (v *Verifier) Digest() Digest {
	return Digest(digestPrefix + hex.EncodeToString(v.sum.Sum(nil)))
}

// DigestReader returns the digest of all that r yields and how many bytes that were.
func DigestReader(r io.Reader) (Digest, int64, error) {
	v := NewVerifier()
	n, err := io.Copy(v, r)
	return v.Digest(), n, err
}
