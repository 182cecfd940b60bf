package natsserver

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// MaxTTLWithoutRevocation bounds credentials for a NATS server to which revocations cannot be pushed:
// so long may a revoked member stay.
const MaxTTLWithoutRevocation = 10 * time.Minute

// maxHeaders is how much a message may grow by the headers that NATS and its client put before it.
const maxHeaders = 4 << 10

// Limits of one member's connection.
const (
	// maxSubscriptions is the hint, the calls, the inbox, and room for a later version's.
	maxSubscriptions = 16
	// answerWithin is how long after a call its one reply may be published.
	answerWithin = 2 * time.Minute
)

// Issuer signs credentials for the users of one NATS account. It is safe for concurrent use.
type Issuer struct {
	account string // public key
	signing nkeys.KeyPair
	maxTTL  time.Duration // zero: no bound
	types   jwt.StringList
}

// NewIssuer returns an Issuer for an external NATS: account is the account's public key, signingSeed the
// seed of one of its signing keys. It cannot revoke, so its credentials live MaxTTLWithoutRevocation at
// most.
func NewIssuer(account string, signingSeed []byte) (*Issuer, error) {
	if !nkeys.IsValidPublicAccountKey(account) {
		return nil, fmt.Errorf("NATS account %q: want the public key of an account, which begins with A", account)
	}
	pair, err := nkeys.FromSeed(signingSeed)
	if err != nil {
		return nil, fmt.Errorf("signing key of NATS account %s: %w", account, err)
	}
	public, err := pair.PublicKey()
	if err != nil || !nkeys.IsValidPublicAccountKey(public) {
		return nil, fmt.Errorf("signing key of NATS account %s: want the seed of an account key, which begins with SA: %w", account, errors.Join(err, nkeys.ErrInvalidSeed))
	}
	return &Issuer{
		account: account, signing: pair, maxTTL: MaxTTLWithoutRevocation,
		types: jwt.StringList{jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket},
	}, nil
}

// CanRevoke reports whether Revoke takes effect before a credential ends by itself.
func (i *Issuer) CanRevoke() bool { return false }

// Revoke does nothing: the credential ends by itself.
func (i *Issuer) Revoke(...ed25519.PublicKey) error { return nil }

// IssueMember returns the credential of a member, a NATS user JWT for its own key, and from when until
// when it holds. A ttl beyond what the issuer allows is shortened.
func (i *Issuer) IssueMember(site fleet.SiteName, member fleet.MemberID, key ed25519.PublicKey, ttl time.Duration, now time.Time) (credential string, notBefore, expires time.Time, err error) {
	fail := func(err error) (string, time.Time, time.Time, error) {
		return "", time.Time{}, time.Time{}, fmt.Errorf("bus credential of site %q, member %q: %w", site, member, err)
	}
	// Names become tokens of subjects: one with a dot or a star would be a right too many.
	if err := errors.Join(site.Validate(), member.Validate()); err != nil {
		return fail(err)
	}
	if i.maxTTL > 0 {
		ttl = min(ttl, i.maxTTL)
	}
	if ttl < time.Second {
		return fail(fmt.Errorf("time to live is %v, want at least a second", ttl))
	}
	user, err := userKey(key)
	if err != nil {
		return fail(err)
	}
	claims := jwt.NewUserClaims(user)
	claims.Name = string(site) + "/" + string(member)
	claims.Permissions = memberRights(site, member)
	claims.Limits.Subs = maxSubscriptions
	claims.Limits.Payload = wire.MaxMessage + maxHeaders
	claims.AllowedConnectionTypes = i.types
	notBefore = now.Truncate(time.Second)
	expires = notBefore.Add(ttl)
	claims.Expires = expires.Unix()
	if credential, err = i.sign(claims); err != nil {
		return fail(err)
	}
	return credential, notBefore, expires, nil
}

// IssueHub returns the credential of the hub's own user, who may use every subject of the account, and
// the function that signs for it. The key lives in this process alone.
func (i *Issuer) IssueHub() (credential string, sign func(nonce []byte) ([]byte, error), err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", nil, fmt.Errorf("make key of the hub's bus user: %w", err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return "", nil, fmt.Errorf("make key of the hub's bus user: %w", err)
	}
	claims := jwt.NewUserClaims(public)
	claims.Name = "hub"
	claims.AllowedConnectionTypes = i.types
	credential, err = i.sign(claims)
	return credential, pair.Sign, err
}

func (i *Issuer) sign(claims *jwt.UserClaims) (string, error) {
	claims.IssuerAccount = i.account
	return claims.Encode(i.signing)
}

// memberRights are all that a member may do. The direct get is allowed in the form that names one subject
// in its own, so that the server's check of subjects is the check of what is read; forms that name
// subjects in the payload, stream info and consumers are not.
func memberRights(site fleet.SiteName, member fleet.MemberID) jwt.Permissions {
	return jwt.Permissions{
		Pub: jwt.Permission{Allow: jwt.StringList{
			"$JS.API.DIRECT.GET." + wire.StreamDesired + "." + wire.DesiredPattern(site),
			"$JS.API.DIRECT.GET." + wire.StreamEvents + "." + wire.EventsSubject(site, member),
			wire.ReportSubject(site, member),
			wire.EventsSubject(site, member),
			wire.AliveSubject(site, member),
			wire.StreamPattern(site, member),
		}},
		Sub: jwt.Permission{Allow: jwt.StringList{
			wire.HintSubject(site),
			wire.CallPattern(site, member),
			wire.InboxPrefix(site, member) + ".>",
		}},
		// An answer to a call goes to the inbox that the call named, once. A member hears only its own
		// calls, so it can answer no other's.
		Resp: &jwt.ResponsePermission{MaxMsgs: 1, Expires: answerWithin},
	}
}

func userKey(key ed25519.PublicKey) (string, error) {
	if len(key) != ed25519.PublicKeySize {
		return "", fmt.Errorf("public key has %d bytes, want %d", len(key), ed25519.PublicKeySize)
	}
	user, err := nkeys.Encode(nkeys.PrefixByteUser, key)
	return string(user), err
}
