package enroll_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/wire"
)

// wantRefused fails the test unless err is a refusal of the hub for reason.
func wantRefused(t testing.TB, err error, reason string) {
	t.Helper()
	var refused *enrollsite.RefusedError
	if !errors.As(err, &refused) || refused.Reason != reason {
		t.Errorf("got %v, want a refusal for %s", err, reason)
	}
}

func TestJoin(t *testing.T) {
	h := startHub(t)
	o := siteOptions(t)
	token := h.token(t, "shop-1")
	parsed, err := enroll.ParseToken(token.Text())
	must(t, err)
	id, err := enrollsite.Join(t.Context(), o, parsed)
	must(t, err)
	if id.Site() != "shop-1" || id.Member().Validate() != nil {
		t.Errorf("joined as site %q, member %q", id.Site(), id.Member())
	}
	wantKnown(t, id)
	info, err := os.Stat(filepath.Join(o.Dir, enrollsite.IdentityFile))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the identity has mode %v", info.Mode())
	}
	files, err := os.ReadDir(o.Dir)
	must(t, err)
	if len(files) != 1 {
		t.Errorf("joining leaves %v behind", files)
	}

	again, err := enrollsite.Open(o)
	must(t, err)
	if again.Site() != id.Site() || again.Member() != id.Member() {
		t.Errorf("opened again it is %q/%q", again.Site(), again.Member())
	}
	wantKnown(t, again)
	must(t, again.Renew(t.Context()))
	wantKnown(t, again)
	if want := "wss://" + h.addr + wire.PathBus; !slices.Equal(again.BusURLs(), []string{want}) {
		t.Errorf("the bus is at %v, want %s", again.BusURLs(), want)
	}

	must(t, again.Forget())
	if _, err := enrollsite.Open(o); !errors.Is(err, enrollsite.ErrNotJoined) {
		t.Errorf("a forgotten identity opens with %v", err)
	}
	log := h.log.String()
	for what, secret := range map[string]string{"the token": token.Text(), "its secret": token.Secret.Wire()} {
		if strings.Contains(log, secret) {
			t.Errorf("the hub's log shows %s", what)
		}
	}
	for _, want := range []string{`"audit":"token"`, `"audit":"join","remote"`, `"decision":"admitted"`, `"audit":"renew"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the hub's log lacks %s", want)
		}
	}
}

func TestTokenIsRefused(t *testing.T) {
	h, foreign := startHub(t), startHub(t)
	changed := func(token enroll.Token, change func(*enroll.Token)) enroll.Token {
		change(&token)
		return token
	}
	used := h.token(t, "shop-1")
	_, err := enrollsite.Join(t.Context(), siteOptions(t), used)
	must(t, err)
	unknownSite, err := h.NewToken(t.Context(), "shop-9", "", []string{h.url()}, time.Hour)
	must(t, err)
	tests := []struct {
		reason string
		token  enroll.Token
	}{
		{"it was used by another key", used},
		{"its secret is another", changed(h.token(t, "shop-2"), func(token *enroll.Token) { token.Secret[0] ^= 1 })},
		{"its id is unknown", changed(h.token(t, "shop-2"), func(token *enroll.Token) { token.ID = enroll.NewID() })},
		{"the secret of one does not fit another", changed(h.token(t, "shop-2"), func(token *enroll.Token) { token.Secret = h.token(t, "shop-2").Secret })},
		{"it is another hub's, carried to this one", changed(foreign.token(t, "shop-2"), func(token *enroll.Token) {
			token.URLs, token.CA = []string{h.url()}, h.token(t, "shop-2").CA
		})},
		{"its site is gone", unknownSite},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			o := siteOptions(t)
			_, err := enrollsite.Join(t.Context(), o, tt.token)
			wantRefused(t, err, wire.RefusedToken)
			if _, err := enrollsite.Open(o); !errors.Is(err, enrollsite.ErrNotJoined) {
				t.Errorf("a refused machine has an identity: %v", err)
			}
		})
	}
	t.Run("it expired", func(t *testing.T) {
		token := h.token(t, "shop-2")
		h.clock.advance(2 * time.Hour)
		_, err := enrollsite.Join(t.Context(), siteOptions(t), token)
		wantRefused(t, err, wire.RefusedToken)
	})
	t.Run("the server is not the hub that the token names", func(t *testing.T) {
		token := foreign.token(t, "shop-2")
		token.URLs = []string{h.url()}
		_, err := enrollsite.Join(t.Context(), siteOptions(t), token)
		if !errors.Is(err, enrollsite.ErrNotTheHub) {
			t.Errorf("got %v", err)
		}
	})
}

// TestSingleUse lets many machines with keys of their own use one token at one moment.
func TestSingleUse(t *testing.T) {
	h := startHub(t)
	token := h.token(t, "shop-1")
	const machines = 50
	options := make([]enrollsite.Options, machines)
	for i := range options {
		options[i] = siteOptions(t)
	}
	joined := make(chan *enrollsite.Identity, machines)
	var wg sync.WaitGroup
	for i := range machines {
		wg.Go(func() {
			id, err := enrollsite.Join(t.Context(), options[i], token)
			if err == nil {
				joined <- id
				return
			}
			wantRefused(t, err, wire.RefusedToken)
		})
	}
	wg.Wait()
	if len(joined) != 1 {
		t.Fatalf("%d machines joined with one token", len(joined))
	}
	wantKnown(t, <-joined)
	if n := len(h.records.sites["shop-1"]); n != 1 {
		t.Errorf("the site has %d members", n)
	}
}

// TestLostAnswer lets a machine ask again that never heard the answer: same keys, same token.
func TestLostAnswer(t *testing.T) {
	h := startHub(t)
	o := siteOptions(t)
	token := h.token(t, "shop-1")
	first, err := enrollsite.Join(t.Context(), o, token)
	must(t, err)
	// What a machine has whose power went before the answer was on its disk.
	lose := func() {
		data, err := os.ReadFile(filepath.Join(o.Dir, enrollsite.IdentityFile))
		must(t, err)
		must(t, first.Forget())
		data = []byte(strings.Replace(string(data), `"seed"`, `"tokenID": "`+token.ID+`", "seed"`, 1))
		must(t, os.WriteFile(filepath.Join(o.Dir, "identity.pending.json"), data, 0o600))
	}
	lose()
	h.clock.advance(time.Minute)
	second, err := enrollsite.Join(t.Context(), o, token)
	must(t, err)
	if second.Member() != first.Member() {
		t.Errorf("it became member %s after %s", second.Member(), first.Member())
	}
	lose()
	h.clock.advance(time.Hour)
	_, err = enrollsite.Join(t.Context(), o, token)
	wantRefused(t, err, wire.RefusedToken)

	h.clock.advance(-time.Hour)
	h.revoke(t, first)
	_, err = enrollsite.Join(t.Context(), o, token)
	wantRefused(t, err, wire.RefusedRevoked)
}

func TestNewMemberReplacesOld(t *testing.T) {
	h := startHub(t)
	old, other := h.join(t, "shop-1"), h.join(t, "shop-2")
	young := h.join(t, "shop-1")
	wantKnown(t, young)
	wantKnown(t, other)
	if status, _ := whoAmI(t, old); status == 200 {
		t.Error("the member that was replaced is still known")
	}
	wantRefused(t, old.Renew(t.Context()), wire.RefusedRevoked)
}

func TestCertificateExpiresAndKeyRenewsIt(t *testing.T) {
	h := startHub(t)
	id := h.join(t, "shop-1")
	h.clock.advance(24 * time.Hour)
	if status, body := whoAmI(t, id); status == 200 {
		t.Errorf("an expired certificate is taken: %s", body)
	}
	must(t, id.Renew(t.Context()))
	wantKnown(t, id)
}
