package apphub

import (
	"io"
	"log/slog"
	"testing"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// TestTellAgain tells a site the same again and again, as every pass over all sites does: it costs nothing unless
// what is stored is no longer what was told, and then it is mended.
func TestTellAgain(t *testing.T) {
	bus := membus.New().Client()
	t.Cleanup(bus.Close)
	ctx := t.Context()
	desired, err := hub.LoadDesired(ctx, bus, bus, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	placement := app.Placement{
		App: fleet.AppKey{Namespace: "default", Name: "till"}, Release: "till-1",
		Bundle: app.Bundle{Repository: "default/till", Digest: fleet.DigestOf([]byte("till")), Size: 100},
	}
	if err := placement.Seal(); err != nil {
		t.Fatal(err)
	}
	facts := fleet.Facts{Name: "shop-1", Zone: "north"}
	b := newBook(desired, func(fleet.SiteName) {})
	tell := func() {
		t.Helper()
		if err := b.tell(ctx, facts, placement.App, &placement); err != nil {
			t.Fatal(err)
		}
	}
	unchanged := func() bool { return b.unchanged(b.page("shop-1"), facts) }
	if tell(); !unchanged() {
		t.Error("a site that was told this moment would be told again")
	}
	generation, body := desired.Manifest("shop-1").Generation, string(desired.Section("shop-1", app.SectionName))
	if tell(); desired.Manifest("shop-1").Generation != generation {
		t.Error("a site was told the same twice")
	}

	// Another hub wrote meanwhile, and this one took it up.
	if err := desired.Set(ctx, "shop-1", app.SectionName, []byte(`{"facts":{"name":"shop-1"},"apps":[]}`)); err != nil {
		t.Fatal(err)
	}
	if unchanged() {
		t.Error("what another stored is taken for what was told")
	}
	if tell(); string(desired.Section("shop-1", app.SectionName)) != body {
		t.Errorf("the site is told %s, want %s", desired.Section("shop-1", app.SectionName), body)
	}

	facts.Zone = "south"
	if unchanged() {
		t.Error("a changed zone is no change")
	}
	if tell(); desired.Manifest("shop-1").Generation != generation+3 {
		t.Errorf("generation %d after a changed zone, want %d", desired.Manifest("shop-1").Generation, generation+3)
	}

	// A hub that starts compares everything once.
	again := newBook(desired, func(fleet.SiteName) {})
	if known, err := again.load("shop-1"); !known || err != nil {
		t.Fatal(known, err)
	}
	if again.unchanged(again.page("shop-1"), facts) {
		t.Error("a hub that has told nothing yet takes what it read for told")
	}
}
