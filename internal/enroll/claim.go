package enroll

import (
	"errors"
	"fmt"
	"log/slog"
)

// ErrClaimCode is wrapped by every error about text that is no claim code.
var ErrClaimCode = errors.New("not a claim code")

// claimPrefix names the kind and version of the format.
const claimPrefix = "skc1."

// ClaimCode is what lets any number of machines ask to become sites: one that ships with all boxes of a fleet.
// It gives nothing but the right to stand in a queue of bounded length until a person says yes. Its secret is
// hidden as that of a Token is, with which it shares the parts.
type ClaimCode struct{ Token Token }

// String names the code without its secret.
func (c ClaimCode) String() string { return "claim code " + c.Token.ID }

// LogValue names the code without its secret.
func (c ClaimCode) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Text returns the code on one line, in the format of a join token with another prefix.
func (c ClaimCode) Text() string { return c.Token.text(claimPrefix) }

// ParseClaimCode reads what Text wrote; blanks around it are ignored. Errors wrap ErrClaimCode and never show the
// text.
func ParseClaimCode(text string) (ClaimCode, error) {
	t, err := parse(claimPrefix, text)
	if err != nil {
		return ClaimCode{}, fmt.Errorf("%w: %w", ErrClaimCode, err)
	}
	return ClaimCode{t}, nil
}

// PathClaimCodes is where people ask the hub for a claim code. It needs the right to create siteclaims/code, a
// subresource that exists for this right alone.
const PathClaimCodes = "/view/v1/claim-codes"

// Bounds of a claim code.
const (
	DefaultClaims = 1000
	MaxClaims     = 10_000
)

// ClaimCodeRequest asks for a claim code.
type ClaimCodeRequest struct {
	// TTLSeconds is how long machines may ask with it: at most a year, at least a minute.
	TTLSeconds int `json:"ttlSeconds"`
	// Max is how many claims it may have at one time; zero means DefaultClaims, at most MaxClaims.
	Max int `json:"max,omitempty"`
}

// ClaimCodeAnswer carries a claim code. It is shown once: the hub keeps only its hash.
type ClaimCodeAnswer struct {
	ID   string `json:"id"`
	Code string `json:"code"`
}
