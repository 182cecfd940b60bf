package hub_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// tapped is a bus that notes what is written, and fails or does something else first when it is told to.
type tapped struct {
	wire.Bus
	mu     sync.Mutex
	noted  []string
	before func(op, subject string) error
}

func (b *tapped) note(op, subject string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.before != nil {
		if err := b.before(op, subject); err != nil {
			return err
		}
	}
	b.noted = append(b.noted, op+" "+subject)
	return nil
}

func (b *tapped) taken() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	noted := b.noted
	b.noted = nil
	return noted
}

func (b *tapped) Put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	if err := b.note("put", subject); err != nil {
		return 0, err
	}
	return b.Bus.Put(ctx, subject, data, revision)
}

func (b *tapped) Publish(ctx context.Context, subject string, data []byte) error {
	if err := b.note("publish", subject); err != nil {
		return err
	}
	return b.Bus.Publish(ctx, subject, data)
}

// desk is a hub's desired state on a broker of its own.
type desk struct {
	t       *testing.T
	broker  *membus.Broker
	bus     *tapped
	desired *hub.Desired
}

func newDesk(t *testing.T, broker *membus.Broker) *desk {
	t.Helper()
	client := broker.Client()
	t.Cleanup(client.Close)
	d := &desk{t: t, broker: broker, bus: &tapped{Bus: client}}
	var err error
	if d.desired, err = hub.LoadDesired(t.Context(), d.bus, client, discard()); err != nil {
		t.Fatal(err)
	}
	d.bus.taken()
	return d
}

func (d *desk) set(site fleet.SiteName, name, body string) {
	d.t.Helper()
	var data []byte
	if body != "" {
		data = []byte(body)
	}
	if err := d.desired.Set(d.t.Context(), site, name, data); err != nil {
		d.t.Fatal(err)
	}
}

// manifest returns what a site would get now.
func (d *desk) manifest(site fleet.SiteName) wire.Manifest {
	d.t.Helper()
	m, err := d.bus.Get(d.t.Context(), wire.DesiredSubject(site, wire.ManifestSection))
	if err != nil {
		d.t.Fatal(err)
	}
	manifest, err := wire.DecodeManifest(m.Data)
	if err != nil {
		d.t.Fatal(err)
	}
	return manifest
}

// follows fails unless a site that pulls now gets exactly the sections of want.
func (d *desk) follows(site fleet.SiteName, want map[string]string) {
	d.t.Helper()
	got := map[string]string{}
	for name, ref := range d.manifest(site).Sections {
		m, err := d.bus.Get(d.t.Context(), wire.DesiredSubject(site, name))
		if err != nil {
			d.t.Errorf("section %s: %v", name, err)
			continue
		}
		if err := ref.Digest.Check(m.Data); err != nil || ref.Size != int64(len(m.Data)) {
			d.t.Errorf("section %s of %d bytes: the site would refuse %q: %v", name, ref.Size, m.Data, err)
		}
		got[name] = string(m.Data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		d.t.Errorf("the site gets something else (-want +got):\n%s", diff)
	}
}

func TestSetTellsASite(t *testing.T) {
	d := newDesk(t, membus.New())
	if got := d.desired.Manifest("shop-1").Generation; got != 0 {
		t.Errorf("a site that was told nothing has generation %d", got)
	}
	d.set("shop-1", "apps", "one")
	want := []string{
		"put " + wire.DesiredSubject("shop-1", "apps"), "put " + wire.DesiredSubject("shop-1", "manifest"), "publish " + wire.HintSubject("shop-1"),
	}
	if diff := cmp.Diff(want, d.bus.taken()); diff != "" {
		t.Errorf("the order of writing is another: a site could meet a manifest without its section (-want +got):\n%s", diff)
	}
	d.follows("shop-1", map[string]string{"apps": "one"})
	first := d.manifest("shop-1")

	d.set("shop-1", "apps", "one")
	if got := d.bus.taken(); len(got) > 0 {
		t.Errorf("saying the same again wrote %v", got)
	}
	d.set("shop-1", "apps", "two")
	d.set("shop-1", "gateway", "g")
	d.set("shop-2", "apps", "other")
	d.follows("shop-1", map[string]string{"apps": "two", "gateway": "g"})
	d.follows("shop-2", map[string]string{"apps": "other"})
	if m := d.manifest("shop-1"); m.Generation != first.Generation+2 || m.HubEpoch != first.HubEpoch || !m.Newer(first) {
		t.Errorf("generation %d after %d", m.Generation, first.Generation)
	}
	if got := d.desired.Section("shop-1", "apps"); string(got) != "two" {
		t.Errorf("Section = %q", got)
	}
	d.bus.taken()
	d.set("shop-1", "apps", "")
	d.follows("shop-1", map[string]string{"gateway": "g"})
	d.bus.taken()
	d.set("shop-1", "apps", "")
	if got := d.bus.taken(); len(got) > 0 || d.desired.Section("shop-1", "apps") != nil {
		t.Errorf("removing what is gone wrote %v", got)
	}
}

// TestHold lets others speak before the owner of a section that was lost: a manifest of theirs alone would make the
// site remove what it runs.
func TestHold(t *testing.T) {
	d := newDesk(t, membus.New())
	d.desired.Hold("shop-1", "apps")
	d.set("shop-1", "delivery", "")
	d.set("shop-1", "tasks", "one")
	d.set("shop-1", "tasks", "two")
	if got := d.bus.taken(); len(got) > 0 {
		t.Fatalf("a site that is held was told %v", got)
	}
	d.set("shop-2", "tasks", "other")
	d.follows("shop-2", map[string]string{"tasks": "other"})
	d.set("shop-1", "apps", "a")
	d.follows("shop-1", map[string]string{"apps": "a"})
	if err := d.desired.Release(t.Context(), "shop-1"); err != nil {
		t.Fatal(err)
	}
	d.follows("shop-1", map[string]string{"apps": "a", "tasks": "two"})
	d.set("shop-1", "delivery", "now")
	d.follows("shop-1", map[string]string{"apps": "a", "tasks": "two", "delivery": "now"})
	if err := d.desired.Release(t.Context(), "shop-1"); err != nil {
		t.Errorf("to release what nobody holds: %v", err)
	}
}

func TestDesiredIsLoaded(t *testing.T) {
	broker := membus.New()
	d := newDesk(t, broker)
	d.set("shop-1", "apps", "one")
	d.set("shop-1", "gateway", "g")
	before := d.manifest("shop-1")
	again := newDesk(t, broker)
	if diff := cmp.Diff(before, again.desired.Manifest("shop-1")); diff != "" {
		t.Errorf("the next hub knows another manifest (-want +got):\n%s", diff)
	}
	again.set("shop-1", "apps", "one")
	if got := again.bus.taken(); len(got) > 0 {
		t.Errorf("the next hub wrote %v although nothing changed", got)
	}
	again.set("shop-1", "apps", "two")
	if m := again.manifest("shop-1"); !m.Newer(before) || m.HubEpoch != before.HubEpoch {
		t.Errorf("the next hub's manifest %d is not newer than %d", m.Generation, before.Generation)
	}
	again.follows("shop-1", map[string]string{"apps": "two", "gateway": "g"})
}

// TestCrashBetweenSectionAndManifest ends a hub after the first of its two writes: whatever its owner says
// next, to this hub or to the next one, the site follows.
func TestCrashBetweenSectionAndManifest(t *testing.T) {
	power := errors.New("power cut")
	for _, next := range []string{"one", "two", "three"} {
		for _, restart := range []bool{false, true} {
			broker := membus.New()
			d := newDesk(t, broker)
			d.set("shop-1", "apps", "one")
			d.bus.before = func(_, subject string) error {
				if subject == wire.DesiredSubject("shop-1", wire.ManifestSection) {
					return power
				}
				return nil
			}
			if err := d.desired.Set(t.Context(), "shop-1", "apps", []byte("two")); !errors.Is(err, power) {
				t.Fatalf("Set returned %v", err)
			}
			d.bus.before = nil
			if restart {
				d = newDesk(t, broker)
			}
			d.set("shop-1", "apps", next)
			d.follows("shop-1", map[string]string{"apps": next})
		}
	}
}

func TestRemovalThatFails(t *testing.T) {
	d := newDesk(t, membus.New())
	d.set("shop-1", "apps", "one")
	d.bus.before = func(string, string) error { return wire.ErrDisconnected }
	if err := d.desired.Set(t.Context(), "shop-1", "apps", nil); !errors.Is(err, wire.ErrDisconnected) {
		t.Fatalf("Set returned %v", err)
	}
	d.bus.before = nil
	d.set("shop-1", "apps", "")
	d.follows("shop-1", map[string]string{})
}

func TestHintIsNotNeeded(t *testing.T) {
	d := newDesk(t, membus.New())
	d.bus.before = func(op, _ string) error {
		if op == "publish" {
			return wire.ErrDisconnected
		}
		return nil
	}
	d.set("shop-1", "apps", "one")
	d.follows("shop-1", map[string]string{"apps": "one"})
}

// TestSecondHub lets two hubs write for one site, as when leadership changes hands late.
func TestSecondHub(t *testing.T) {
	broker := membus.New()
	a, b := newDesk(t, broker), newDesk(t, broker)
	a.set("shop-1", "apps", "a")
	a.set("shop-1", "gateway", "g")
	if err := b.desired.Set(t.Context(), "shop-1", "apps", []byte("b")); !errors.Is(err, wire.ErrConflict) {
		t.Fatalf("a hub that knows nothing of the other's manifest replaced it: %v", err)
	}
	if got := b.desired.Section("shop-1", "gateway"); string(got) != "g" {
		t.Errorf("after the conflict the other's section is %q", got)
	}
	b.set("shop-1", "apps", "b")
	b.follows("shop-1", map[string]string{"apps": "b", "gateway": "g"})
	if err := a.desired.Set(t.Context(), "shop-1", "apps", []byte("c")); !errors.Is(err, wire.ErrConflict) {
		t.Fatalf("the first hub did not notice the second: %v", err)
	}
	a.set("shop-1", "apps", "c")
	a.follows("shop-1", map[string]string{"apps": "c", "gateway": "g"})
}

// TestConflictWithAForgottenSite meets another hub that removed everything of the site.
func TestConflictWithAForgottenSite(t *testing.T) {
	broker := membus.New()
	a := newDesk(t, broker)
	a.set("shop-1", "apps", "a")
	b := newDesk(t, broker)
	if err := a.desired.Forget(t.Context(), "shop-1"); err != nil {
		t.Fatal(err)
	}
	if err := b.desired.Set(t.Context(), "shop-1", "apps", []byte("b")); !errors.Is(err, wire.ErrConflict) {
		t.Fatalf("Set returned %v", err)
	}
	b.set("shop-1", "apps", "b")
	b.follows("shop-1", map[string]string{"apps": "b"})
}

// TestEpochRace lets another hub make the epoch just before this one does.
func TestEpochRace(t *testing.T) {
	broker := membus.New()
	client, quick := broker.Client(), broker.Client()
	defer client.Close()
	defer quick.Close()
	bus := &tapped{Bus: client, before: func(_, subject string) error {
		if subject == wire.HubEpochSubject {
			_, err := quick.Put(t.Context(), subject, []byte("QUICKER"), 0)
			return err
		}
		return nil
	}}
	desired, err := hub.LoadDesired(t.Context(), bus, client, discard())
	if err != nil {
		t.Fatal(err)
	}
	bus.before = nil
	if err := desired.Set(t.Context(), "shop-1", "apps", []byte("one")); err != nil {
		t.Fatal(err)
	}
	other := newDesk(t, broker)
	other.set("shop-1", "apps", "one")
	if got := other.bus.taken(); len(got) > 0 {
		t.Errorf("two hubs that started at once have different epochs: the other wrote %v", got)
	}
}

// TestLostMemory makes the hub's memory another one: every site is told anew, with what is newer to it.
func TestLostMemory(t *testing.T) {
	broker := membus.New()
	d := newDesk(t, broker)
	d.set("shop-1", "apps", "one")
	d.set("shop-1", "apps", "two")
	before := d.manifest("shop-1")
	if err := broker.Client().Purge(t.Context(), wire.HubEpochSubject); err != nil {
		t.Fatal(err)
	}
	d = newDesk(t, broker)
	d.set("shop-1", "apps", "two")
	if m := d.manifest("shop-1"); m.HubEpoch == before.HubEpoch || !m.Newer(before) {
		t.Errorf("manifest %s/%d after %s/%d", m.HubEpoch, m.Generation, before.HubEpoch, before.Generation)
	}
	d.follows("shop-1", map[string]string{"apps": "two"})
}

func TestWipe(t *testing.T) {
	broker := membus.New()
	d := newDesk(t, broker)
	d.set("shop-1", "apps", "one")
	for range 2 {
		if err := d.desired.Wipe(t.Context(), "shop-1"); err != nil {
			t.Fatal(err)
		}
	}
	m := d.manifest("shop-1")
	if !m.Wipe || len(m.Sections) > 0 || m.Generation != 2 {
		t.Errorf("after two Wipes the manifest is %+v", m)
	}
	for _, d := range []*desk{d, newDesk(t, broker)} {
		d.bus.taken()
		d.set("shop-1", "apps", "back")
		if got := d.bus.taken(); len(got) > 0 {
			t.Errorf("a site that is being wiped was told of an app: %v", got)
		}
	}
}

// TestForgottenSiteComesAgain deletes a site and makes it again while its machine is away: the machine,
// which still has the old manifest, must take the new one for newer.
func TestForgottenSiteComesAgain(t *testing.T) {
	for _, restart := range []bool{false, true} {
		broker := membus.New()
		d := newDesk(t, broker)
		for _, body := range []string{"one", "two", "three"} {
			d.set("shop-1", "apps", body)
		}
		kept := d.manifest("shop-1")
		if err := errors.Join(d.desired.Wipe(t.Context(), "shop-1"), d.desired.Forget(t.Context(), "shop-1")); err != nil {
			t.Fatal(err)
		}
		if _, err := d.bus.Get(t.Context(), wire.DesiredSubject("shop-1", wire.ManifestSection)); !errors.Is(err, wire.ErrNotFound) {
			t.Errorf("a forgotten site's manifest is still there: %v", err)
		}
		if restart {
			d = newDesk(t, broker)
		}
		d.set("shop-1", "apps", "again")
		if m := d.manifest("shop-1"); !m.Newer(kept) {
			t.Errorf("manifest %s/%d is not newer than %s/%d, which the machine kept", m.HubEpoch, m.Generation, kept.HubEpoch, kept.Generation)
		}
		d.follows("shop-1", map[string]string{"apps": "again"})
	}
}

func TestDamagedManifestIsWrittenAnew(t *testing.T) {
	broker := membus.New()
	client := broker.Client()
	defer client.Close()
	for _, damaged := range []string{"{", `{"protocol":9,"hubEpoch":"x","generation":1}`, ""} {
		if _, err := client.Put(t.Context(), wire.DesiredSubject("shop-1", wire.ManifestSection), []byte(damaged), wire.AnyRevision); err != nil {
			t.Fatal(err)
		}
		d := newDesk(t, broker)
		d.set("shop-1", "apps", "one")
		d.follows("shop-1", map[string]string{"apps": "one"})
	}
	// Stored subjects that are no site's must not keep a hub from starting.
	if _, err := client.Put(t.Context(), wire.AllDesired[:len(wire.AllDesired)-1]+"UPPER.apps", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	newDesk(t, broker).follows("shop-1", map[string]string{"apps": "one"})
}

func TestSetFails(t *testing.T) {
	broker := membus.New()
	d := newDesk(t, broker)
	err := d.desired.Set(t.Context(), "shop-1", "apps", bytes.Repeat([]byte("x"), wire.MaxMessage+1))
	if !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a section that cannot travel was answered with %v", err)
	}
	if got := d.desired.Manifest("shop-1").Generation; got != 0 {
		t.Errorf("it changed the manifest to generation %d", got)
	}
	away := broker.Client()
	away.SetConnected(false)
	if _, err := hub.LoadDesired(t.Context(), away, away, discard()); !errors.Is(err, wire.ErrDisconnected) {
		t.Errorf("loading without a bus returned %v", err)
	}
}

// TestOwnersSetAtOnce writes sections of many owners and sites at once.
func TestOwnersSetAtOnce(t *testing.T) {
	d := newDesk(t, membus.New())
	owners := []string{"apps", "gateway", "devices", "rules"}
	var wg sync.WaitGroup
	for _, owner := range owners {
		for _, site := range []fleet.SiteName{"shop-1", "shop-2", "shop-3"} {
			wg.Go(func() {
				for _, body := range []string{"1", "2", "3", "4", owner} {
					if err := d.desired.Set(t.Context(), site, owner, []byte(body)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, site := range []fleet.SiteName{"shop-1", "shop-2", "shop-3"} {
		d.follows(site, map[string]string{"apps": "apps", "gateway": "gateway", "devices": "devices", "rules": "rules"})
		if got := d.manifest(site).Generation; got != uint64(5*len(owners)) {
			t.Errorf("site %s has generation %d", site, got)
		}
	}
}

// TestBeginAgain holds a hub whose bus was restored from a backup to a new epoch, once a site says that it
// has seen more than is stored.
func TestBeginAgain(t *testing.T) {
	for name, row := range map[string]struct {
		reason string
		epoch  func(stored string) string
		ahead  uint64
		begins bool
	}{
		"later":   {"the site would ignore the hub until the numbers had caught up", func(s string) string { return s }, 1, true},
		"same":    {"the site has what is stored", func(s string) string { return s }, 0, false},
		"foreign": {"numbers of another epoch cannot be compared", func(string) string { return "another" }, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, membus.New())
			d.set("shop-1", "apps", "body")
			stored := d.manifest("shop-1")
			if err := d.desired.BeginAgain(t.Context(), "shop-1", row.epoch(stored.HubEpoch), stored.Generation+row.ahead); err != nil {
				t.Fatal(err)
			}
			now := d.manifest("shop-1")
			if begun := now.HubEpoch != stored.HubEpoch; begun != row.begins {
				t.Errorf("a new epoch began: %v, want %v: %s", begun, row.begins, row.reason)
			}
			if now.Sections["apps"] != stored.Sections["apps"] {
				t.Errorf("the site is told %v, before %v", now.Sections, stored.Sections)
			}
		})
	}
}
