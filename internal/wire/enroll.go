package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Paths of the hub's port that sites use. They are fixed within a protocol version.
const (
	PathEnroll   = "/enroll/v1/join"
	PathRenew    = "/enroll/v1/renew"
	PathClaim    = "/enroll/v1/claim"
	PathBus      = "/bus/v1"
	PathRegistry = "/v2/"
)

// MaxAuthorities bounds what a member trusts at one time.
const MaxAuthorities = 4

// pathPin is where the SHA-256 of the hub's next authority may stand in an address of the hub: a path segment and, after
// it, the digest in base64url. Whoever knows nothing of it asks below that path, where the hub answers as it does
// below none.
const pathPin = "/ca/"

// WithPin returns an address of the hub, without a path, that carries the digest of an authority beside it.
func WithPin(address string, digest [sha256.Size]byte) string {
	return strings.TrimSuffix(address, "/") + pathPin + base64.RawURLEncoding.EncodeToString(digest[:])
}

// CutPin returns an address or a path without the digest that WithPin added; ok is false when there is none.
func CutPin(address string) (without string, digest [sha256.Size]byte, ok bool) {
	before, after, found := strings.Cut(address, pathPin)
	text, rest, more := strings.Cut(after, "/")
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !found || err != nil || len(b) != sha256.Size {
		return address, digest, false
	}
	if more {
		rest = "/" + rest
	}
	return before + rest, [sha256.Size]byte(b), true
}

// EnrollRequest asks the hub for credentials: for the first time with a join token (PathEnroll) or a claim code
// (PathClaim), later with the member's key alone (PathRenew).
type EnrollRequest struct {
	Protocol int `json:"protocol"`
	// TokenID and TokenSecret are the parts of the join token or the claim code; empty when renewing.
	TokenID     string `json:"tokenID,omitempty"`
	TokenSecret string `json:"tokenSecret,omitempty"`
	// Site and Member name who renews; empty when joining.
	Site   fleet.SiteName `json:"site,omitempty"`
	Member fleet.MemberID `json:"member,omitempty"`
	// PublicKey is the member's Ed25519 key, 32 bytes; SealKey its X25519 key, 32 bytes.
	PublicKey []byte         `json:"publicKey"`
	SealKey   []byte         `json:"sealKey,omitempty"`
	Hardware  fleet.Hardware `json:"hardware"`
	Version   string         `json:"version,omitempty"`
	// ServingKey, if set, asks for a certificate of the site's gateway for this key: an ECDSA P-256 public
	// key as DER SubjectPublicKeyInfo, since browsers take no Ed25519. ServingNames are the DNS names and
	// addresses that it is for, beside the one that the hub gives every site; without a key they mean
	// nothing. A hub that issues none leaves ServingCertificate empty; one that is older than these fields
	// refuses the signature and is to be asked again without them.
	ServingKey   []byte   `json:"servingKey,omitempty"`
	ServingNames []string `json:"servingNames,omitempty"`
	// Challenge is what the hub sent with its refusal to answer an unsigned request; Signature is made
	// with the member's key over EnrollSigned.
	Challenge []byte `json:"challenge,omitempty"`
	Signature []byte `json:"signature,omitempty"`
}

// EnrollResponse carries a member's short-lived credentials.
type EnrollResponse struct {
	Protocol int            `json:"protocol"`
	Site     fleet.SiteName `json:"site"`
	Member   fleet.MemberID `json:"member"`
	// Certificate is the client certificate chain in PEM, for the member's own key.
	Certificate string `json:"certificate"`
	// BusCredential is the NATS user JWT for the member's own key.
	BusCredential string `json:"busCredential"`
	// HubTime, NotBefore and Expires are the hub's own clock, in seconds since 1970. The member renews
	// at two thirds of the time between NotBefore and Expires.
	HubTime   int64 `json:"hubTime"`
	NotBefore int64 `json:"notBefore"`
	Expires   int64 `json:"expires"`
	// CA is the hub's certificate authority in PEM: the one that it serves with.
	CA string `json:"ca"`
	// Authorities are all that the member is to trust from now on, in PEM, CA among them: two while one takes
	// the place of the other. A hub that is older leaves it empty, and the member's trust as it is.
	Authorities string `json:"authorities,omitempty"`
	// BusURLs are where the bus is reached; empty means PathBus of the hub's own port.
	BusURLs []string `json:"busURLs,omitempty"`
	// HubURLs are where the hub's port is reached, the first one first; at most MaxHubURLs. A member tries them
	// before those that it knew, which it keeps: a hub that moves is found as long as one of them is right.
	HubURLs []string `json:"hubURLs,omitempty"`
	// ServingCertificate is the certificate chain of the gateway in PEM, for ServingKey. It is made anew with
	// each renewal and holds far beyond Expires: a site that is cut off goes on serving.
	// GatewayCA is the authority, in PEM, that signed it: the one of all gateways of this hub, never CA.
	ServingCertificate string `json:"servingCertificate,omitempty"`
	GatewayCA          string `json:"gatewayCA,omitempty"`
}

// MaxHubURLs bounds the addresses of the hub that a member knows.
const MaxHubURLs = 8

// EnrollRefusal is the body of every answer that is not a success.
type EnrollRefusal struct {
	// Reason is one of the Refused constants; Message is for people.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Challenge, with RefusedChallenge, is to be signed and sent back.
	Challenge []byte `json:"challenge,omitempty"`
}

// Reasons of a refusal.
const (
	RefusedChallenge = "ChallengeRequired" // sign the challenge and ask again
	RefusedToken     = "TokenRefused"      // unknown, used, expired or foreign: get a new one
	RefusedRevoked   = "Revoked"           // this member may not come back
	RefusedUnknown   = "UnknownMember"     // the hub does not know this member: join with a new token
	RefusedBusy      = "TooManyRequests"   // try again later
	RefusedInvalid   = "InvalidRequest"
	RefusedPending   = "ClaimPending"  // a person has to approve the claim: ask again later
	RefusedDenied    = "ClaimDenied"   // a person denied it
	RefusedHardware  = "WrongHardware" // site or token are bound to another machine
)

// EnrollSigned returns the bytes that EnrollRequest.Signature signs: a fixed label, then each part with
// its length before it, so that no part can be exchanged on the way and fields added later by a newer
// peer do not change what an older one verifies. A request with a ServingKey adds two parts, the key and
// the names, each name with its length before it; one without signs what it always did.
func EnrollSigned(r EnrollRequest) []byte {
	out := []byte("skerry enrollment v1\n")
	for _, part := range [][]byte{
		[]byte(r.TokenID), []byte(r.Site), []byte(r.Member), r.PublicKey, r.SealKey, r.Challenge,
	} {
		out = appendPart(out, part)
	}
	if len(r.ServingKey) == 0 {
		return out
	}
	var names []byte
	for _, name := range r.ServingNames {
		names = appendPart(names, []byte(name))
	}
	return appendPart(appendPart(out, r.ServingKey), names)
}

func appendPart(to, part []byte) []byte {
	to = binary.BigEndian.AppendUint32(to, uint32(len(part)))
	return append(to, part...)
}

// HubURI is the name (a URI in the certificate) by which members know the hub's own server.
const HubURI = "skerry://hub"
