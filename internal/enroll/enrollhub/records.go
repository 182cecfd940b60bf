package enrollhub

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Errors of Members and Tokens, to be tested with errors.Is.
var (
	// ErrUnknown means that there is no such record.
	ErrUnknown = errors.New("not known to this hub")
	// ErrChanged means that a record changed since it was read; read it again.
	ErrChanged = errors.New("record changed meanwhile")
	// ErrFull means that the queue of claims is as long as it may be.
	ErrFull = errors.New("the queue of claims is full")
	// ErrHardware means that a site is bound to another machine.
	ErrHardware = errors.New("bound to another machine")
)

// Issuer signs the credentials of the bus.
type Issuer interface {
	// IssueMember returns a credential for a member's key and the time for which it holds, which may be
	// shorter than ttl.
	IssueMember(site fleet.SiteName, member fleet.MemberID, key ed25519.PublicKey, ttl time.Duration, now time.Time) (credential string, notBefore, expires time.Time, err error)
	// Revoke cuts the users of keys off. It is idempotent.
	Revoke(keys ...ed25519.PublicKey) error
	// CanRevoke reports whether Revoke takes effect before credentials end by themselves.
	CanRevoke() bool
}

// Member is one member as the hub knows it.
type Member struct {
	Site     fleet.SiteName
	ID       fleet.MemberID
	Key      ed25519.PublicKey
	SealKey  []byte
	Enrolled time.Time
	Revoked  bool
	// Fingerprint of its hardware, as it said when it joined; empty when it said none.
	Fingerprint string
}

// Seat is the place of a site's machine.
type Seat struct {
	// Fingerprint is that of the only machine that may join; empty when any may.
	Fingerprint string
	// Taken is the member who has it; empty while nobody does.
	Taken fleet.MemberID
}

// Members keeps members. It is safe for concurrent use, by more than one hub.
type Members interface {
	// Member returns a member; ErrUnknown when its site or it is not known, or the site is gone.
	Member(ctx context.Context, site fleet.SiteName, id fleet.MemberID) (Member, error)
	// Admit makes m a member of its site and revokes all that were, which it returns. It changes nothing
	// when m is a member already. ErrUnknown: there is no such site; ErrChanged: try again; ErrHardware: the
	// site is bound to another machine.
	Admit(ctx context.Context, m Member) (replaced []Member, err error)
	// Seat returns who may join a site, from no cache. ErrUnknown: there is no such site.
	Seat(ctx context.Context, site fleet.SiteName) (Seat, error)
}

// TokenRecord is what the hub keeps of a join token.
type TokenRecord struct {
	ID      string
	Hash    [sha256.Size]byte
	Site    fleet.SiteName
	Expires time.Time
	// Fingerprint is that of the only machine that may use it; empty when any may.
	Fingerprint string
	// UsedBy is the key that used it, at UsedAt, as Member; empty while nobody did.
	UsedBy ed25519.PublicKey
	UsedAt time.Time
	Member fleet.MemberID
	// Version is the store's own; Use wants it as it was read.
	Version string
}

// Tokens keeps join tokens. It is safe for concurrent use, by more than one hub.
type Tokens interface {
	// Token returns the newest record of a token, from no cache; ErrUnknown when there is none.
	Token(ctx context.Context, id string) (TokenRecord, error)
	// Create stores a new record.
	Create(ctx context.Context, t TokenRecord) error
	// Use stores who used a token; ErrChanged when the record is not the one that was read.
	Use(ctx context.Context, t TokenRecord) error
	// Sweep removes records that ended before a time.
	Sweep(ctx context.Context, before time.Time) error
}

// CodeRecord is what the hub keeps of a claim code.
type CodeRecord struct {
	ID      string
	Hash    [sha256.Size]byte
	Expires time.Time
	// Max is how many claims it may have at one time.
	Max int
}

// Claim is a machine that asks to become a site.
type Claim struct {
	// Name is derived from the key: who has another key has another claim.
	Name string
	Code string
	Key  ed25519.PublicKey
	// Fingerprint, Hostname, Arch, Version and From are what was said first, and whence.
	Fingerprint, Hostname, Arch, Version, From string
	// Decision is one of the constants of package v1alpha1; Site and Replace belong to an approval.
	Decision string
	Site     fleet.SiteName
	Replace  bool
	// Member is who it became, at Admitted; empty until then.
	Member   fleet.MemberID
	Admitted time.Time
	// Record is the store's own; Use wants it as it was read.
	Record string
}

// Claims keeps claims and their codes. It is safe for concurrent use, by more than one hub.
type Claims interface {
	// Code returns a claim code, from no cache; ErrUnknown when there is none.
	Code(ctx context.Context, id string) (CodeRecord, error)
	// Claim returns a claim by its name, as it was a moment ago; ErrUnknown when there is none.
	Claim(ctx context.Context, name string) (Claim, error)
	// Enqueue stores a new claim unless its code has as many as it may, or the hub; ErrFull. A claim whose machine
	// a free site names, and no other claim, is approved for that site.
	Enqueue(ctx context.Context, c Claim, code CodeRecord) (Claim, error)
	// Match approves a pending claim whose machine a free site names, and no other claim; else it returns it as it is.
	Match(ctx context.Context, c Claim) (Claim, error)
	// Use stores who the machine of a claim became; ErrChanged when the record is not the one that was read.
	Use(ctx context.Context, c Claim) error
}
