package enrollhub

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// claimName is the name of the claim of a key.
func claimName(key []byte) string {
	sum := sha256.Sum256(append([]byte("skerry claim v1\n"), key...))
	return "c-" + hex.EncodeToString(sum[:8])
}

// claim answers a machine that asks with a claim code: it waits in the queue until a person says yes, and is then
// answered as one that joins. What decides is the claim as it was written down first, of which the key alone is
// proven; what the machine says later of its hardware changes nothing.
func (d *Desk) claim(ctx context.Context, request wire.EnrollRequest, remote string) (wire.EnrollResponse, error) {
	c, err := d.o.Claims.Claim(ctx, claimName(request.PublicKey))
	known := err == nil
	switch {
	case err != nil && !errors.Is(err, ErrUnknown):
		return wire.EnrollResponse{}, err
	case known && subtle.ConstantTimeCompare(c.Key, request.PublicKey) != 1:
		return wire.EnrollResponse{}, refuse(wire.RefusedInvalid, "this key cannot have a claim: make another", nil)
	case known && c.Decision == v1alpha1.ClaimApproved:
		return d.admitClaim(ctx, c, request)
	}
	code, err := d.code(ctx, request)
	if err != nil {
		return wire.EnrollResponse{}, err
	}
	switch {
	case known && c.Decision == v1alpha1.ClaimDenied:
		return wire.EnrollResponse{}, refuse(wire.RefusedDenied, fmt.Sprintf("claim %s was denied: ask who runs the fleet", c.Name), nil)
	case known:
		c, err = d.o.Claims.Match(ctx, c)
	default:
		c, err = d.o.Claims.Enqueue(ctx, newClaim(request, code.ID, remote), code)
		if err == nil {
			d.o.Log.Info("audit", "audit", "claim", "claim", c.Name, "code", code.ID, "fingerprint", c.Fingerprint, "remote", remote, "decision", c.Decision, "site", c.Site)
		}
	}
	switch {
	case errors.Is(err, ErrFull):
		return wire.EnrollResponse{}, refuse(wire.RefusedBusy, "the queue of claims is full: decide about those that wait, `skerry site claims`", err)
	case errors.Is(err, ErrChanged):
		return wire.EnrollResponse{}, refuse(wire.RefusedBusy, "the claim is being decided: try again", err)
	case err != nil:
		return wire.EnrollResponse{}, err
	case c.Decision == v1alpha1.ClaimApproved:
		return d.admitClaim(ctx, c, request)
	}
	return wire.EnrollResponse{}, pending(c, "a person has to approve it, with `skerry site approve %s --as NAME`", c.Name)
}

func pending(c Claim, format string, args ...any) error {
	return refuse(wire.RefusedPending, fmt.Sprintf("claim %s waits: ", c.Name)+fmt.Sprintf(format, args...), nil)
}

// code returns the claim code of a request when it holds.
func (d *Desk) code(ctx context.Context, request wire.EnrollRequest) (CodeRecord, error) {
	const unknown = "this hub does not know this claim code: get a new one with `skerry site claim-code create`"
	secret, err := enroll.ParseSecret(request.TokenSecret)
	if err = errors.Join(err, enroll.ValidateID(request.TokenID)); err != nil {
		return CodeRecord{}, refuse(wire.RefusedToken, unknown, err)
	}
	code, err := d.o.Claims.Code(ctx, request.TokenID)
	hash := secret.Hash()
	switch {
	case errors.Is(err, ErrUnknown):
		return CodeRecord{}, refuse(wire.RefusedToken, unknown, err)
	case err != nil:
		return CodeRecord{}, err
	case subtle.ConstantTimeCompare(hash[:], code.Hash[:]) != 1:
		return CodeRecord{}, refuse(wire.RefusedToken, unknown, errors.New("wrong secret"))
	case !d.o.Now().Before(code.Expires):
		return CodeRecord{}, refuse(wire.RefusedToken, fmt.Sprintf("this claim code expired at %s: get a new one with `skerry site claim-code create`", code.Expires.UTC().Format(time.RFC3339)), nil)
	}
	return code, nil
}

func newClaim(request wire.EnrollRequest, code, remote string) Claim {
	from := ""
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		from = ap.Addr().Unmap().WithZone("").String()
	}
	return Claim{
		Name: claimName(request.PublicKey), Code: code, Key: request.PublicKey, Fingerprint: request.Hardware.Fingerprint,
		Hostname: printable(request.Hardware.Hostname, 253), Arch: printable(request.Hardware.Arch, 32), Version: printable(request.Version, 128),
		From: from, Decision: v1alpha1.ClaimPending,
	}
}

// printable returns what of a text may be shown on somebody's terminal, at most n characters of it.
func printable(text string, n int) string {
	var b strings.Builder
	for _, r := range text {
		if n == 0 {
			break
		}
		if r != unicode.ReplacementChar && unicode.IsPrint(r) {
			b.WriteRune(r)
			n--
		}
	}
	return b.String()
}

// admitClaim makes the machine of an approved claim the member of its site, once. What stands against it, a person
// can mend: the machine waits.
func (d *Desk) admitClaim(ctx context.Context, c Claim, request wire.EnrollRequest) (wire.EnrollResponse, error) {
	now := d.o.Now()
	if c.Member == "" {
		site, err := d.o.Members.Seat(ctx, c.Site)
		switch {
		case errors.Is(err, ErrUnknown):
			return wire.EnrollResponse{}, pending(c, "it is approved for site %q, which is not there", c.Site)
		case err != nil:
			return wire.EnrollResponse{}, err
		case checkBound(site.Fingerprint, c.Fingerprint) != nil:
			return wire.EnrollResponse{}, pending(c, "it is approved for site %q, whose spec.fingerprint is that of another machine", c.Site)
		case site.Taken != "" && !c.Replace:
			return wire.EnrollResponse{}, pending(c, "it is approved for site %q, which has a machine: approve it with --replace to put this one in its place", c.Site)
		}
		c.Member, c.Admitted = fleet.MemberID("m-"+enroll.NewID()), now
		err = d.o.Claims.Use(ctx, c)
		if errors.Is(err, ErrChanged) {
			return wire.EnrollResponse{}, refuse(wire.RefusedBusy, "the claim changed meanwhile: try again", err)
		}
		if err != nil {
			return wire.EnrollResponse{}, err
		}
	}
	if now.Sub(c.Admitted) >= lostAnswer {
		// Nobody is admitted twice: who lost the answer for so long is answered as one that renews.
		return d.issue(ctx, c.Site, c.Member, request)
	}
	member := Member{Site: c.Site, ID: c.Member, Key: c.Key, SealKey: request.SealKey, Enrolled: c.Admitted, Fingerprint: c.Fingerprint}
	return d.seat(ctx, member, request)
}

// NewClaimCode makes a claim code that holds for ttl and lets at most limit claims stand at one time.
func (d *Desk) NewClaimCode(ctx context.Context, store func(context.Context, CodeRecord) error, urls []string, ttl time.Duration, limit int) (enroll.ClaimCode, error) {
	now := d.o.Now()
	code := enroll.ClaimCode{Token: d.newSecret(urls, now)}
	record := CodeRecord{ID: code.Token.ID, Hash: code.Token.Secret.Hash(), Expires: now.Add(ttl), Max: limit}
	if err := store(ctx, record); err != nil {
		return enroll.ClaimCode{}, fmt.Errorf("store claim code: %w", err)
	}
	d.o.Log.Info("audit", "audit", "claim code", "code", record.ID, "expires", record.Expires.UTC(), "max", limit)
	return code, nil
}
