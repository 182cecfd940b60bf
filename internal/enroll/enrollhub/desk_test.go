package enrollhub

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// oneMember knows one member and no token; it counts what reaches it.
type oneMember struct {
	member Member
	asked  int
	fail   error
}

func (o *oneMember) Member(_ context.Context, site fleet.SiteName, id fleet.MemberID) (Member, error) {
	o.asked++
	if o.fail != nil {
		return Member{}, o.fail
	}
	if site != o.member.Site || id != o.member.ID {
		return Member{}, ErrUnknown
	}
	return o.member, nil
}

func (o *oneMember) Seat(context.Context, fleet.SiteName) (Seat, error) { return Seat{}, ErrUnknown }
func (o *oneMember) Admit(context.Context, Member) ([]Member, error)    { return nil, ErrUnknown }
func (o *oneMember) Token(context.Context, string) (TokenRecord, error) {
	o.asked++
	return TokenRecord{}, ErrUnknown
}
func (o *oneMember) Create(context.Context, TokenRecord) error { return nil }
func (o *oneMember) Use(context.Context, TokenRecord) error    { return nil }
func (o *oneMember) Sweep(context.Context, time.Time) error    { return nil }

// textIssuer issues a text in place of a credential.
type textIssuer struct{}

func (textIssuer) IssueMember(_ fleet.SiteName, _ fleet.MemberID, _ ed25519.PublicKey, ttl time.Duration, now time.Time) (string, time.Time, time.Time, error) {
	return "credential", now, now.Add(ttl), nil
}
func (textIssuer) Revoke(...ed25519.PublicKey) error { return nil }
func (textIssuer) CanRevoke() bool                   { return true }

type fixture struct {
	desk    *Desk
	mux     *http.ServeMux
	records *oneMember
	key     ed25519.PrivateKey
	now     time.Time
	log     bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{now: time.Unix(1_800_000_000, 0), mux: http.NewServeMux()}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.key = private
	f.records = &oneMember{member: Member{Site: "shop-1", ID: "m-1", Key: public}}
	clock := func() time.Time { return f.now }
	authority, err := OpenAuthority(t.TempDir(), clock)
	if err != nil {
		t.Fatal(err)
	}
	gateways, err := OpenGatewayAuthority(t.TempDir(), clock)
	if err != nil {
		t.Fatal(err)
	}
	f.desk, err = NewDesk(Options{
		Issuer: textIssuer{}, Authority: authority, Gateways: gateways, Members: f.records, Tokens: f.records,
		Log: slog.New(slog.NewTextHandler(&f.log, nil)), Now: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.desk.Register(f.mux)
	return f
}

// post returns the status and, of an answer that is no success, the refusal.
func (f *fixture) post(t *testing.T, path, body, remote string) (int, wire.EnrollRefusal) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.RemoteAddr = remote
	w := httptest.NewRecorder()
	f.mux.ServeHTTP(w, r)
	var refusal wire.EnrollRefusal
	if w.Code != http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &refusal); err != nil {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
	}
	return w.Code, refusal
}

func encode(t *testing.T, r wire.EnrollRequest) string {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const remote = "192.0.2.1:1000"

// renewal returns a good request to renew.
func (f *fixture) renewal(t *testing.T) wire.EnrollRequest {
	t.Helper()
	r := wire.EnrollRequest{Protocol: wire.Protocol, Site: "shop-1", Member: "m-1", PublicKey: f.key.Public().(ed25519.PublicKey)}
	status, refusal := f.post(t, wire.PathRenew, encode(t, r), remote)
	if status != http.StatusUnauthorized || refusal.Reason != wire.RefusedChallenge || len(refusal.Challenge) == 0 {
		t.Fatalf("an unsigned request is answered %d %s", status, refusal.Reason)
	}
	r.Challenge = refusal.Challenge
	r.Signature = ed25519.Sign(f.key, wire.EnrollSigned(r))
	return r
}

func TestRenewalRequests(t *testing.T) {
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		reason string
		change func(*fixture, *wire.EnrollRequest)
		want   string
	}{
		{"as it should be", func(*fixture, *wire.EnrollRequest) {}, ""},
		{"signed by another key", func(_ *fixture, r *wire.EnrollRequest) { r.Signature = ed25519.Sign(stranger, wire.EnrollSigned(*r)) }, wire.RefusedInvalid},
		{"of another key altogether", func(_ *fixture, r *wire.EnrollRequest) {
			r.PublicKey = stranger.Public().(ed25519.PublicKey)
			r.Signature = ed25519.Sign(stranger, wire.EnrollSigned(*r))
		}, wire.RefusedUnknown},
		{"the site was changed after signing", func(_ *fixture, r *wire.EnrollRequest) { r.Site = "shop-2" }, wire.RefusedInvalid},
		{"the seal key was added after signing", func(_ *fixture, r *wire.EnrollRequest) { r.SealKey = make([]byte, 32) }, wire.RefusedInvalid},
		{"the challenge is the member's own", func(f *fixture, r *wire.EnrollRequest) {
			r.Challenge = challenges{[]byte("guess")}.make(f.now)
			r.Signature = ed25519.Sign(f.key, wire.EnrollSigned(*r))
		}, wire.RefusedChallenge},
		{"the challenge is cut short", func(f *fixture, r *wire.EnrollRequest) {
			r.Challenge = r.Challenge[:10]
			r.Signature = ed25519.Sign(f.key, wire.EnrollSigned(*r))
		}, wire.RefusedChallenge},
		{"the challenge is old", func(f *fixture, _ *wire.EnrollRequest) { f.now = f.now.Add(2 * challengeLife) }, wire.RefusedChallenge},
		{"the member is revoked", func(f *fixture, _ *wire.EnrollRequest) { f.records.member.Revoked = true }, wire.RefusedRevoked},
		{"the member is not known", func(f *fixture, r *wire.EnrollRequest) {
			r.Member = "m-2"
			r.Signature = ed25519.Sign(f.key, wire.EnrollSigned(*r))
		}, wire.RefusedUnknown},
		{"the site is no name", func(f *fixture, r *wire.EnrollRequest) {
			r.Site = "shop.*"
			r.Signature = ed25519.Sign(f.key, wire.EnrollSigned(*r))
		}, wire.RefusedInvalid},
		{"of a later protocol", func(_ *fixture, r *wire.EnrollRequest) { r.Protocol = wire.Protocol + 1 }, wire.RefusedInvalid},
		{"a key of the wrong size", func(_ *fixture, r *wire.EnrollRequest) { r.PublicKey = r.PublicKey[:31] }, wire.RefusedInvalid},
		{"a seal key of the wrong size", func(_ *fixture, r *wire.EnrollRequest) { r.SealKey = make([]byte, 31) }, wire.RefusedInvalid},
		{"the records cannot be read now", func(f *fixture, _ *wire.EnrollRequest) { f.records.fail = errors.New("no API") }, wire.RefusedBusy},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			f := newFixture(t)
			r := f.renewal(t)
			tt.change(f, &r)
			if status, refusal := f.post(t, wire.PathRenew, encode(t, r), remote); refusal.Reason != tt.want {
				t.Errorf("answered %d %q, want %q", status, refusal.Reason, tt.want)
			}
			if strings.Contains(f.log.String(), "no API") && !strings.Contains(f.log.String(), "level=ERROR") {
				t.Error("a fault of the hub is not logged as one")
			}
		})
	}
}

func TestBodiesThatAreNoRequests(t *testing.T) {
	for reason, body := range map[string]string{
		"nothing": "", "no JSON": "{", "another shape": "[]",
		"more than any request": `{"version":"` + strings.Repeat("x", maxBody) + `"}`,
	} {
		f := newFixture(t)
		if status, refusal := f.post(t, wire.PathEnroll, body, remote); refusal.Reason != wire.RefusedInvalid || status != http.StatusBadRequest {
			t.Errorf("%s: answered %d %s", reason, status, refusal.Reason)
		}
		if f.records.asked != 0 {
			t.Errorf("%s: the records were asked", reason)
		}
	}
}

// TestTokenIDsFromOutside makes sure that what is no id never reaches the store.
func TestTokenIDsFromOutside(t *testing.T) {
	for _, id := range []string{"", "../secrets/x", "A", strings.Repeat("a", 300), "a/b"} {
		f := newFixture(t)
		r := f.renewal(t)
		r.Site, r.Member, r.TokenID, r.TokenSecret = "", "", id, strings.Repeat("A", 43)
		r.Signature = ed25519.Sign(f.key, wire.EnrollSigned(r))
		if _, refusal := f.post(t, wire.PathEnroll, encode(t, r), remote); refusal.Reason != wire.RefusedToken {
			t.Errorf("id %q: answered %s", id, refusal.Reason)
		}
		if f.records.asked != 0 {
			t.Errorf("id %q reached the store", id)
		}
	}
}

func TestRates(t *testing.T) {
	f := newFixture(t)
	count := func(remote string, n int) (served int) {
		for range n {
			if status, _ := f.post(t, wire.PathEnroll, "{}", remote); status != http.StatusTooManyRequests {
				served++
			}
		}
		return served
	}
	if n := count(remote, 2*perAddressBurst); n != perAddressBurst {
		t.Errorf("one address got %d answers at one moment, want %d", n, perAddressBurst)
	}
	if n := count("192.0.2.1:2000", 10); n != 0 {
		t.Errorf("another port of it got %d", n)
	}
	if n := count("192.0.2.2:1000", 10); n != 10 {
		t.Errorf("another address got %d of 10", n)
	}
	if n := count("[2001:db8::1]:1", perAddressBurst) + count("[2001:db8::ffff:2]:1", 10); n != perAddressBurst {
		t.Errorf("one customer's IPv6 network got %d, want %d", n, perAddressBurst)
	}
	f.now = f.now.Add(time.Second)
	if n := count(remote, 2*perAddressBurst); n != int(perAddress) {
		t.Errorf("a second later it got %d, want %d", n, int(perAddress))
	}
	f.now = f.now.Add(time.Hour)
	total := 0
	for i := range 40 {
		total += count(fmt.Sprintf("198.51.100.%d:1", i), perAddressBurst)
	}
	if total != inTotalBurst {
		t.Errorf("all together got %d, want %d", total, inTotalBurst)
	}
}

func TestLimiterIsBounded(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter(func() time.Time { return now })
	for i := range 5 * maxAddresses {
		l.allow(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
	}
	if n := len(l.young) + len(l.old); n > 2*maxAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestServingCertificateIsRenewed(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	authority, err := OpenAuthority(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	config := authority.NewServing("hub.example.com", "192.0.2.1").TLSConfig()
	get := func() string {
		cert, err := config.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(cert.Certificate[0])
	}
	first := get()
	now = now.Add(servingLife / 2)
	if get() != first {
		t.Error("it was made anew before two thirds of its life")
	}
	now = now.Add(servingLife / 4)
	if get() == first {
		t.Error("it was not made anew")
	}
}

func TestMemberURI(t *testing.T) {
	site, member, err := parseMemberURI(memberURI("shop-1", "m-1"))
	if err != nil || site != "shop-1" || member != "m-1" {
		t.Errorf("came back as %q %q %v", site, member, err)
	}
	for _, bad := range []string{"skerry://hub", "https://site/shop-1/member/m-1", "skerry://site/shop-1/member/", "skerry://site/a.b/member/m", "skerry://site/a/member/m/x"} {
		u := memberURI("", "")
		u, err := u.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if site, member, err := parseMemberURI(u); err == nil {
			t.Errorf("%s names site %q, member %q", bad, site, member)
		}
	}
}
