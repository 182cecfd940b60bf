package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fault/faultclock"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// wrongClockProgram builds the agent whose clock can be wrong, once for all tests.
var wrongClockProgram = sync.OnceValues(func() (string, error) {
	return faultclock.Build(context.Background(), filepath.Dir(programs.Site)+"/wrong")
})

// clocked makes a box whose agent runs by a clock of its own.
func clocked(t *testing.T, name string) (*box, faultclock.Clock) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(programs.Site)+"/wrong", 0o755); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, name)
	program, err := wrongClockProgram()
	if err != nil {
		t.Fatal(err)
	}
	clock, err := faultclock.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b.program, b.env = program, append(b.env, clock.Env())
	return b, clock
}

// Years in which a box may wake.
var (
	year1970 = time.Date(1970, 1, 1, 0, 0, 10, 0, time.UTC)
	year2040 = time.Date(2040, 6, 1, 12, 0, 0, 0, time.UTC)
)

// TestWrongClock has boxes that wake in 1970 and in 2040, and one whose clock is set while it works. Each joins,
// takes releases and serves: order is by generation, and TLS never by the agent's own clock.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	fleettest.Require(t)
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", "127.0.0.1:0", "--kube-addr", "127.0.0.1:0")
	boxes := map[time.Time]*box{}
	clocks := map[time.Time]faultclock.Clock{}
	for name, at := range map[string]time.Time{"toll-1970": year1970, "toll-2040": year2040} {
		b, clock := clocked(t, name)
		must(t, clock.Set(at))
		b.start(h.Token(t, name, "--label", "kind=toll"))
		boxes[at], clocks[at] = b, clock
	}
	placeHello(t, h, "1.0.0")
	for at, b := range boxes {
		b.awaitServes("/hello", "hello 1.0.0")
		b.awaitConnected()
		// The clock must really be wrong, or all this says nothing: the log is written by it.
		if want := fmt.Sprintf("time=%d-", at.Year()); !strings.Contains(b.said.String(), want) {
			t.Errorf("%s does not live in %d:\n%s", b.name, at.Year(), b.said.String())
		}
	}

	// Both are set to the other's time while they work, and restart in it.
	must(t, clocks[year1970].Set(year2040))
	must(t, clocks[year2040].Set(year1970))
	placeHello(t, h, "1.1.0")
	for _, b := range boxes {
		b.awaitServes("/hello", "hello 1.1.0")
	}
	for at, b := range boxes {
		b.kill()
		must(t, clocks[at].Set(at))
		b.start("")
	}
	placeHello(t, h, "1.2.0")
	for _, b := range boxes {
		b.awaitServes("/hello", "hello 1.2.0")
		b.awaitConnected()
	}
	h.Skerry(t, "wait", "app/hello", "--for=condition=Ready", "--timeout=60s")
}

// expires is until when the credentials of a box hold, by the hub's clock.
func (b *box) expires() int64 {
	b.t.Helper()
	var s struct {
		Expires int64 `json:"expires"`
	}
	data, err := os.ReadFile(filepath.Join(b.dir, "identity.json"))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil || s.Expires == 0 {
		b.t.Fatalf("identity of %s: expires %d, %v", b.name, s.Expires, err)
	}
	return s.Expires
}

// TestCredentialsOverTime has credentials that hold 15 s: they renew at two thirds of that without a break of
// the app, an agent that slept past their end comes back by its key, in whatever year it wakes, and one that
// was revoked meanwhile does not. The hub's audit names all of it.
func TestCredentialsOverTime(t *testing.T) {
	t.Parallel()
	const life = 15 * time.Second
	fleettest.Require(t)
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", "127.0.0.1:0", "--kube-addr", "127.0.0.1:0",
		"--credential-life", life.String())
	awake, _ := clocked(t, "toll-awake")
	sleeper, sleepers := clocked(t, "toll-sleeper")
	revoked, _ := clocked(t, "toll-revoked")
	for _, b := range []*box{awake, sleeper, revoked} {
		b.start(h.Token(t, b.name, "--label", "kind=toll"))
	}
	placeHello(t, h, "1.0.0")
	for _, b := range []*box{awake, sleeper, revoked} {
		b.awaitServes("/hello", "hello 1.0.0")
		b.awaitConnected()
	}
	slept := max(sleeper.expires(), revoked.expires())
	sleeper.kill()
	revoked.kill()
	h.Skerry(t, "site", "revoke", revoked.name)

	first := awake.expires()
	fleettest.Eventually(t, 2*life, "the credentials are renewed twice", func() string {
		now := awake.expires()
		if left := time.Until(time.Unix(now, 0)); left <= 0 {
			t.Fatalf("they ended at %d before they were renewed", now)
		}
		if now < first+int64((life*4/3*9/10).Seconds())-2 {
			return fmt.Sprintf("they hold until %d, at first until %d", now, first)
		}
		return ""
	})
	fleettest.Eventually(t, 2*life, "the sleepers' credentials end", func() string {
		if time.Now().Unix() <= slept {
			return fmt.Sprint("not before ", slept)
		}
		return ""
	})

	must(t, sleepers.Set(year2040))
	sleeper.start("")
	revoked.start("")
	sleeper.awaitConnected()
	placeHello(t, h, "1.1.0")
	sleeper.awaitServes("/hello", "hello 1.1.0")
	awake.awaitServes("/hello", "hello 1.1.0")
	revoked.awaitServes("/hello", "hello 1.0.0")
	fleettest.Eventually(t, time.Minute, "the revoked box says so", func() string {
		if !strings.Contains(revoked.said.String(), "the hub refuses this member") {
			return revoked.said.String()
		}
		return ""
	})
	if s, err := fleettest.StatusIn(revoked.dir); err != nil || s.Link == fleet.LinkConnected {
		t.Errorf("the revoked box is %s %v", s.Link, err)
	}
	said := h.Said()
	for what, want := range map[string][]string{
		"enrolment":  {`"audit":"join"`, `"decision":"admitted"`, `"site":"toll-awake"`},
		"renewal":    {`"audit":"renew"`, `"decision":"admitted"`, `"site":"toll-awake"`},
		"refusal":    {`"audit":"renew"`, `"decision":"Revoked"`, `"site":"toll-revoked"`},
		"revocation": {`"audit":"revoke"`, `"cause":"revoked"`, `"site":"toll-revoked"`},
	} {
		if !hasLine(said, want...) {
			t.Errorf("the hub's audit has no line of the %s with %v", what, want)
		}
	}
}

// hasLine reports whether one line holds all words.
func hasLine(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// TestReleasesHaveNoFaultClock: nothing but what package faultclock builds can be told a wrong time.
func TestReleasesHaveNoFaultClock(t *testing.T) {
	fleettest.Require(t)
	b, _ := clocked(t, "any")
	for program, want := range map[string]bool{programs.Site: false, programs.Skerry: false, b.program: true} {
		data, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(data, []byte(faultclock.Env)); got != want {
			t.Errorf("%s reads %s: %v, want %v", program, faultclock.Env, got, want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
