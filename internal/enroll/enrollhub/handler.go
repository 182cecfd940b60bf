package enrollhub

import (
	"context"
	"crypto/ed25519"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Bounds of enrolment.
const (
	maxBody = 16 << 10
	// lostAnswer is how long the machine that used a token may ask again, because the answer was lost.
	lostAnswer = 10 * time.Minute
	// DefaultTTL is how long a member's credentials live. A renewal needs only the member's key, so a
	// site that was away longer comes back all the same.
	DefaultTTL = 12 * time.Hour
	// sealKeySize is that of an X25519 public key.
	sealKeySize = 32
	// changedTries bounds how often a record that others change is tried.
	changedTries = 5
)

// Options of a Desk.
type Options struct {
	Issuer    Issuer
	Authority *Authority
	// Gateways signs for the gateways of sites; nil issues them nothing.
	Gateways *GatewayAuthority
	Members  Members
	Tokens   Tokens
	// Claims keeps claims and their codes; nil serves none.
	Claims Claims
	// BusURLs are given to members when the bus is not (only) at the hub's port.
	BusURLs []string
	// HubURLs are where the hub's port is reached; members are told with each renewal.
	HubURLs []string
	// TTL of credentials; zero means DefaultTTL.
	TTL time.Duration
	Log *slog.Logger
	// Now is the hub's clock.
	Now func() time.Time
}

// gatewayLife is how long a gateway's certificate holds: a site that is cut off serves its callers for so
// long. A revoked site can, too; who trusts gateways must take this into account.
const gatewayLife = 90 * 24 * time.Hour

// Desk admits and renews members. It is safe for concurrent use.
type Desk struct {
	o          Options
	challenges challenges
	limiter    *limiter
	requests   *prometheus.CounterVec
	cut        *cutOff
}

// NewDesk returns a Desk.
func NewDesk(o Options) (*Desk, error) {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	key, err := o.Authority.Secret("enrolment challenge")
	if err != nil {
		return nil, err
	}
	return &Desk{o: o, challenges: challenges{key}, limiter: newLimiter(o.Now), requests: newRequests(), cut: newCutOff()}, nil
}

// Register puts the handlers of wire.PathEnroll, wire.PathRenew and wire.PathClaim on mux.
func (d *Desk) Register(mux *http.ServeMux) {
	mux.Handle("POST "+wire.PathEnroll, d.handler("join", d.join))
	mux.Handle("POST "+wire.PathRenew, d.handler("renew", d.renew))
	if d.o.Claims != nil {
		mux.Handle("POST "+wire.PathClaim, d.handler("claim", d.claim))
	}
}

// refusal is an answer that is not a success, as an error.
type refusal struct {
	status  int
	reason  string
	message string
	// cause is for the hub's log alone.
	cause error
}

func (r *refusal) Error() string { return r.reason + ": " + r.message }
func (r *refusal) Unwrap() error { return r.cause }

func refuse(reason, message string, cause error) error {
	status := map[string]int{
		wire.RefusedChallenge: http.StatusUnauthorized, wire.RefusedToken: http.StatusForbidden,
		wire.RefusedRevoked: http.StatusForbidden, wire.RefusedUnknown: http.StatusForbidden,
		wire.RefusedBusy: http.StatusTooManyRequests, wire.RefusedInvalid: http.StatusBadRequest,
		wire.RefusedHardware: http.StatusForbidden, wire.RefusedPending: http.StatusAccepted, wire.RefusedDenied: http.StatusForbidden,
	}[reason]
	return &refusal{status: status, reason: reason, message: message, cause: cause}
}

// refuseToken says the same for every fault of a token but its age and use, so that nobody learns which
// tokens there are.
func refuseToken(cause error) error {
	return refuse(wire.RefusedToken, "this hub does not know this join token: get a new one with `skerry site token`", cause)
}

func (d *Desk) handler(what string, serve func(context.Context, wire.EnrollRequest, string) (wire.EnrollResponse, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var response wire.EnrollResponse
		request, err := d.read(w, r)
		if err == nil {
			response, err = serve(r.Context(), request, r.RemoteAddr)
		}
		d.requests.WithLabelValues(what, decision(err)).Inc()
		log := d.o.Log.With("audit", what, "remote", r.RemoteAddr, "token", request.TokenID)
		if err == nil {
			if response.ServingCertificate != "" {
				log = log.With("serving", append([]string{enroll.SiteHost(response.Site)}, request.ServingNames...))
			}
			log.Info("audit", "decision", "admitted", "site", response.Site, "member", response.Member, "expires", time.Unix(response.Expires, 0).UTC())
			answer(w, http.StatusOK, response)
			return
		}
		d.refuse(w, log.With("site", request.Site, "member", request.Member), err)
	})
}

func (d *Desk) refuse(w http.ResponseWriter, log *slog.Logger, err error) {
	var r *refusal
	if !errors.As(err, &r) {
		log.Error("audit", "decision", "failed", "error", err)
		w.Header().Set("Retry-After", "5")
		answer(w, http.StatusServiceUnavailable, wire.EnrollRefusal{Reason: wire.RefusedBusy, Message: "the hub cannot answer now: try again later"})
		return
	}
	body := wire.EnrollRefusal{Reason: r.reason, Message: r.message}
	switch r.reason {
	case wire.RefusedChallenge:
		body.Challenge = d.challenges.make(d.o.Now())
	case wire.RefusedPending: // the claim was written down; each poll is not
	case wire.RefusedBusy:
		w.Header().Set("Retry-After", "5")
		log.Warn("audit", "decision", r.reason)
	default:
		log.Warn("audit", "decision", r.reason, "cause", r.cause)
	}
	answer(w, r.status, body)
}

// read reads and checks what both kinds of request have in common, the signature among it.
func (d *Desk) read(w http.ResponseWriter, r *http.Request) (wire.EnrollRequest, error) {
	if !d.limiter.allow(r.RemoteAddr) {
		return wire.EnrollRequest{}, refuse(wire.RefusedBusy, "too many requests: try again later", nil)
	}
	var request wire.EnrollRequest
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(body, &request)
	}
	if err != nil {
		return wire.EnrollRequest{}, refuse(wire.RefusedInvalid, "the request cannot be read", err)
	}
	switch {
	case request.Protocol < 1 || request.Protocol > wire.Protocol:
		return request, refuse(wire.RefusedInvalid, fmt.Sprintf("protocol %d, this hub speaks 1 to %d: upgrade the hub", request.Protocol, wire.Protocol), nil)
	case len(request.PublicKey) != ed25519.PublicKeySize:
		return request, refuse(wire.RefusedInvalid, fmt.Sprintf("publicKey has %d bytes, want %d", len(request.PublicKey), ed25519.PublicKeySize), nil)
	case len(request.SealKey) != 0 && len(request.SealKey) != sealKeySize:
		return request, refuse(wire.RefusedInvalid, fmt.Sprintf("sealKey has %d bytes, want %d", len(request.SealKey), sealKeySize), nil)
	}
	if f := request.Hardware.Fingerprint; f != "" {
		if err := fleet.ValidateFingerprint(f); err != nil {
			return request, refuse(wire.RefusedInvalid, "hardware: "+err.Error(), err)
		}
	}
	if err := checkServing(request); err != nil {
		return request, refuse(wire.RefusedInvalid, err.Error(), err)
	}
	switch {
	case len(request.Signature) == 0 || !d.challenges.valid(request.Challenge, d.o.Now()):
		return request, refuse(wire.RefusedChallenge, "sign the challenge and ask again", nil)
	case !ed25519.Verify(request.PublicKey, wire.EnrollSigned(request), request.Signature):
		return request, refuse(wire.RefusedInvalid, "the signature is not that of publicKey over this request", nil)
	}
	return request, nil
}

// join admits the holder of a token.
func (d *Desk) join(ctx context.Context, request wire.EnrollRequest, _ string) (wire.EnrollResponse, error) {
	token, err := d.use(ctx, request)
	if err != nil {
		return wire.EnrollResponse{}, err
	}
	member := Member{Site: token.Site, ID: token.Member, Key: token.UsedBy, SealKey: request.SealKey, Enrolled: token.UsedAt, Fingerprint: request.Hardware.Fingerprint}
	return d.seat(ctx, member, request)
}

// seat makes member the one of its site, cuts off those that were, and answers with its credentials.
func (d *Desk) seat(ctx context.Context, member Member, request wire.EnrollRequest) (wire.EnrollResponse, error) {
	replaced, err := d.admit(ctx, member)
	switch {
	case errors.Is(err, ErrUnknown):
		return wire.EnrollResponse{}, refuseToken(fmt.Errorf("site %q: %w", member.Site, err))
	case errors.Is(err, ErrHardware): // bound after the token was used
		return wire.EnrollResponse{}, refuseHardware(err)
	case err != nil:
		return wire.EnrollResponse{}, err
	}
	if err := d.revoke("replaced", replaced...); err != nil {
		return wire.EnrollResponse{}, err
	}
	return d.issue(ctx, member.Site, member.ID, request)
}

// use checks a token and marks it used by the request's key. The same key gets the same answer again for
// a while; nobody else does.
func (d *Desk) use(ctx context.Context, request wire.EnrollRequest) (TokenRecord, error) {
	secret, err := enroll.ParseSecret(request.TokenSecret)
	if err = errors.Join(err, enroll.ValidateID(request.TokenID)); err != nil {
		return TokenRecord{}, refuseToken(err)
	}
	hash := secret.Hash()
	for range changedTries {
		token, err := d.o.Tokens.Token(ctx, request.TokenID)
		switch {
		case errors.Is(err, ErrUnknown):
			return TokenRecord{}, refuseToken(err)
		case err != nil:
			return TokenRecord{}, err
		case subtle.ConstantTimeCompare(hash[:], token.Hash[:]) != 1:
			return TokenRecord{}, refuseToken(errors.New("wrong secret"))
		}
		now := d.o.Now()
		if len(token.UsedBy) > 0 {
			if subtle.ConstantTimeCompare(token.UsedBy, request.PublicKey) == 1 && now.Sub(token.UsedAt) < lostAnswer {
				return token, nil
			}
			return TokenRecord{}, refuse(wire.RefusedToken, "this join token was used already: get a new one with `skerry site token`", nil)
		}
		if !now.Before(token.Expires) {
			return TokenRecord{}, refuse(wire.RefusedToken, fmt.Sprintf("this join token expired at %s: get a new one with `skerry site token`", token.Expires.UTC().Format(time.RFC3339)), nil)
		}
		if err := d.checkHardware(ctx, token, request.Hardware.Fingerprint); err != nil {
			return TokenRecord{}, err
		}
		token.UsedBy, token.UsedAt, token.Member = request.PublicKey, now, fleet.MemberID("m-"+enroll.NewID())
		err = d.o.Tokens.Use(ctx, token)
		if err == nil {
			return token, nil
		}
		if !errors.Is(err, ErrChanged) {
			return TokenRecord{}, err
		}
	}
	return TokenRecord{}, refuse(wire.RefusedBusy, "others use this token at the same time: try again", nil)
}

// checkHardware refuses a machine that token or site are not for, before the token is spent on it.
func (d *Desk) checkHardware(ctx context.Context, token TokenRecord, fingerprint string) error {
	if err := checkBound(token.Fingerprint, fingerprint); err != nil {
		return refuseHardware(fmt.Errorf("this join token of site %q: %w", token.Site, err))
	}
	site, err := d.o.Members.Seat(ctx, token.Site)
	if errors.Is(err, ErrUnknown) {
		return refuseToken(err)
	}
	if err != nil {
		return err
	}
	if err := checkBound(site.Fingerprint, fingerprint); err != nil {
		return refuseHardware(fmt.Errorf("site %q: %w", token.Site, err))
	}
	return nil
}

// checkBound compares the fingerprint of the only machine that is wanted, empty for any, with a machine's own.
func checkBound(want, got string) error {
	switch {
	case want == "" || want == got:
		return nil
	case got == "":
		return fmt.Errorf("%w, with fingerprint %s, and this one says none: upgrade its agent", ErrHardware, want)
	}
	return fmt.Errorf("%w, with fingerprint %s, and this one has %s: use that machine, or change the site's spec.fingerprint and make a new token", ErrHardware, want, got)
}

func refuseHardware(err error) error { return refuse(wire.RefusedHardware, err.Error(), err) }

func (d *Desk) admit(ctx context.Context, m Member) (replaced []Member, err error) {
	for range changedTries {
		if replaced, err = d.o.Members.Admit(ctx, m); !errors.Is(err, ErrChanged) {
			break
		}
	}
	return replaced, err
}

// renew gives new credentials to the holder of a member's key.
func (d *Desk) renew(ctx context.Context, request wire.EnrollRequest, _ string) (wire.EnrollResponse, error) {
	if err := errors.Join(request.Site.Validate(), request.Member.Validate()); err != nil {
		return wire.EnrollResponse{}, refuse(wire.RefusedInvalid, "site and member must be set", err)
	}
	return d.issue(ctx, request.Site, request.Member, request)
}

// issue signs credentials for the request's key, when it is that of a member who is not revoked.
func (d *Desk) issue(ctx context.Context, site fleet.SiteName, id fleet.MemberID, request wire.EnrollRequest) (wire.EnrollResponse, error) {
	key := ed25519.PublicKey(request.PublicKey)
	member, err := d.o.Members.Member(ctx, site, id)
	switch {
	case errors.Is(err, ErrUnknown), err == nil && !member.Key.Equal(key):
		return wire.EnrollResponse{}, refuse(wire.RefusedUnknown, fmt.Sprintf("this hub does not know member %q of site %q with this key: join with a new token", id, site), err)
	case err != nil:
		return wire.EnrollResponse{}, err
	case member.Revoked:
		return wire.EnrollResponse{}, refuse(wire.RefusedRevoked, fmt.Sprintf("member %q of site %q is revoked: join with a new token", id, site), nil)
	}
	now := d.o.Now()
	credential, notBefore, expires, err := d.o.Issuer.IssueMember(site, id, key, d.o.TTL, now)
	if err != nil {
		return wire.EnrollResponse{}, err
	}
	certificate, err := d.o.Authority.SignMember(site, id, key, notBefore, expires)
	if err != nil {
		return wire.EnrollResponse{}, err
	}
	response := wire.EnrollResponse{
		Protocol: wire.Protocol, Site: site, Member: id,
		Certificate: string(certificate), BusCredential: credential,
		HubTime: now.Unix(), NotBefore: notBefore.Unix(), Expires: expires.Unix(),
		CA: string(d.o.Authority.PEM()), Authorities: string(d.o.Authority.Bundle()), BusURLs: d.o.BusURLs, HubURLs: d.o.HubURLs,
	}
	if d.o.Gateways == nil || len(request.ServingKey) == 0 {
		return response, nil
	}
	serving, err := d.o.Gateways.SignServing(site, request.ServingKey, request.ServingNames, notBefore, notBefore.Add(gatewayLife))
	if err != nil {
		return wire.EnrollResponse{}, err
	}
	response.ServingCertificate, response.GatewayCA = string(serving), string(d.o.Gateways.PEM())
	return response, nil
}

// Revoke cuts members off the bus. Their records say that they are revoked already. It may be told the same
// members again and again.
func (d *Desk) Revoke(members ...Member) error { return d.revoke("revoked", members...) }

func (d *Desk) revoke(cause string, members ...Member) error {
	if len(members) == 0 {
		return nil
	}
	keys := make([]ed25519.PublicKey, len(members))
	for i, m := range members {
		keys[i] = m.Key
	}
	if err := d.o.Issuer.Revoke(keys...); err != nil {
		return fmt.Errorf("revoke members of site %q on the bus: %w", members[0].Site, err)
	}
	for _, m := range members {
		if d.cut.first(m) {
			d.o.Log.Info("audit", "audit", "revoke", "site", m.Site, "member", m.ID, "cause", cause)
		}
	}
	return nil
}

// NewToken makes a join token for site that may be used for ttl, by the machine with this fingerprint or, if
// that is empty, by any; urls are where the hub is reached.
func (d *Desk) NewToken(ctx context.Context, site fleet.SiteName, fingerprint string, urls []string, ttl time.Duration) (enroll.Token, error) {
	if err := site.Validate(); err != nil {
		return enroll.Token{}, err
	}
	if fingerprint != "" {
		if err := fleet.ValidateFingerprint(fingerprint); err != nil {
			return enroll.Token{}, err
		}
	}
	now := d.o.Now()
	token := d.newSecret(urls, now)
	err := d.o.Tokens.Create(ctx, TokenRecord{ID: token.ID, Hash: token.Secret.Hash(), Site: site, Fingerprint: fingerprint, Expires: now.Add(ttl)})
	if err != nil {
		return enroll.Token{}, fmt.Errorf("store join token for site %q: %w", site, err)
	}
	d.o.Log.Info("audit", "audit", "token", "site", site, "token", token.ID, "expires", now.Add(ttl).UTC())
	return token, nil
}

// newSecret makes what a join token and a claim code have in common.
func (d *Desk) newSecret(urls []string, now time.Time) enroll.Token {
	current, next := d.o.Authority.pins()
	token := enroll.NewToken(urls, current, now)
	token.NextCA = next
	return token
}

// ErrNoMember is wrapped when a request was not made by a member.
var ErrNoMember = errors.New("the request was made by no member of a site")

// Member returns which member made a request on the hub's port, by its client certificate: one of this
// authority, valid now, with the key of a member who is not revoked. Other errors than ErrNoMember mean
// that it could not be found out.
func (d *Desk) Member(r *http.Request) (fleet.SiteName, fleet.MemberID, error) {
	if r.TLS == nil {
		return "", "", fmt.Errorf("no TLS: %w", ErrNoMember)
	}
	site, id, leaf, err := d.o.Authority.verifyMember(r.TLS.PeerCertificates)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrNoMember, err)
	}
	member, err := d.o.Members.Member(r.Context(), site, id)
	switch {
	case errors.Is(err, ErrUnknown), err == nil && !member.Key.Equal(leaf.PublicKey):
		return "", "", fmt.Errorf("site %q, member %q is not known: %w", site, id, ErrNoMember)
	case err != nil:
		return "", "", fmt.Errorf("look for site %q, member %q: %w", site, id, err)
	case member.Revoked:
		return "", "", fmt.Errorf("site %q, member %q is revoked: %w", site, id, ErrNoMember)
	}
	return site, id, nil
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The member has gone when this fails; it asks again.
	_ = json.NewEncoder(w).Encode(v)
}
