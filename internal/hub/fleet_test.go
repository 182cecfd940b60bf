package hub_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// post is a hub's Fleet in a bubble of time, and a site's side of the bus.
type post struct {
	t      *testing.T
	fleet  *hub.Fleet
	broker *membus.Broker
	client *membus.Client
	site   *membus.Client
	stop   func()

	mu      sync.Mutex
	changes []fleet.SiteName
}

// newPost starts a Fleet. It must be called inside a bubble, and stop before the bubble ends.
func newPost(t *testing.T, broker *membus.Broker) *post {
	t.Helper()
	p := &post{t: t, broker: broker, client: broker.Client(), site: broker.Client()}
	p.fleet = hub.NewFleet(p.client, p.client, discard(), time.Now)
	p.fleet.OnChange(func(name fleet.SiteName) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.changes = append(p.changes, name)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.fleet.Run(ctx) }()
	p.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		p.client.Close()
		p.site.Close()
	}
	synctest.Wait()
	return p
}

// changed returns the sites that watchers were told of since the last call.
func (p *post) changed() []fleet.SiteName {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	changes := p.changes
	p.changes = nil
	return changes
}

func (p *post) alive(site fleet.SiteName, leaving bool) {
	p.t.Helper()
	data, err := wire.EncodeJSON("alive", wire.Alive{Sequence: 1, Leaving: leaving})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.site.Publish(context.Background(), wire.AliveSubject(site, "m-1"), data); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
}

func (p *post) report(subject string, r wire.Report) {
	p.t.Helper()
	data, err := r.Encode()
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.site.Put(context.Background(), subject, data, wire.AnyRevision); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
}

func (p *post) wantLink(site fleet.SiteName, want fleet.Link, reason string) {
	p.t.Helper()
	if got := p.fleet.Link(site); got != want {
		p.t.Errorf("link of %s is %s, want %s: %s", site, got, want, reason)
	}
}

// sleep lets time pass and everything that follows from it happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func said(sequence uint64, version string) wire.Report {
	return wire.Report{Site: "shop-1", Member: "m-1", Epoch: "E", Sequence: sequence, Version: version}
}

func TestLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		p.wantLink("shop-1", fleet.LinkUnknown, "this hub started just now")
		if !p.fleet.LastHeard("shop-1").IsZero() {
			t.Error("a site that never spoke was heard")
		}
		sleep(5 * time.Second)
		p.alive("shop-1", false)
		p.wantLink("shop-1", fleet.LinkConnected, "it said that it is there")
		if got := p.fleet.LastHeard("shop-1"); !got.Equal(time.Now()) {
			t.Errorf("last heard at %v", got)
		}
		if diff := cmp.Diff([]fleet.SiteName{"shop-1"}, p.changed()); diff != "" {
			t.Errorf("watchers were told (-want +got):\n%s", diff)
		}
		for range 12 {
			sleep(wire.AliveSeconds * time.Second)
			p.alive("shop-1", false)
		}
		if got := p.changed(); len(got) > 0 {
			t.Errorf("signs of life that change nothing were told: %v", got)
		}
		sleep(29 * time.Second)
		p.wantLink("shop-1", fleet.LinkConnected, "two signs of life may be lost")
		sleep(2 * time.Second)
		p.wantLink("shop-1", fleet.LinkAway, "three may not")
		if diff := cmp.Diff([]fleet.SiteName{"shop-1"}, p.changed()); diff != "" {
			t.Errorf("watchers of a silent site were told (-want +got):\n%s", diff)
		}
		p.alive("shop-1", false)
		p.wantLink("shop-1", fleet.LinkConnected, "it is back")
		p.alive("shop-1", true)
		p.wantLink("shop-1", fleet.LinkAway, "it said that it leaves")
		p.alive("shop-1", false)
		p.wantLink("shop-1", fleet.LinkConnected, "it came back at once")
		if got := p.changed(); len(got) != 3 {
			t.Errorf("three changes were told as %v", got)
		}
	})
}

// TestUnknownEnds asks for a site that never comes: whoever asked must be told when it counts as away.
func TestUnknownEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		p.wantLink("shop-9", fleet.LinkUnknown, "this hub started just now")
		sleep(29 * time.Second)
		p.wantLink("shop-9", fleet.LinkUnknown, "it may still come")
		if got := p.changed(); len(got) > 0 {
			t.Errorf("told too early: %v", got)
		}
		sleep(2 * time.Second)
		p.wantLink("shop-9", fleet.LinkAway, "it did not")
		if diff := cmp.Diff([]fleet.SiteName{"shop-9"}, p.changed()); diff != "" {
			t.Errorf("nobody was told (-want +got):\n%s", diff)
		}
		p.wantLink("shop-10", fleet.LinkAway, "a name that is asked for later was away all the time")
	})
}

func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		subject := wire.ReportSubject("shop-1", "m-1")
		if _, ok := p.fleet.Report("shop-1"); ok {
			t.Error("a site that never reported has a report")
		}
		other := said(1, "other")
		other.Site = "shop-2"
		anotherMember := said(9, "m-2")
		anotherMember.Member = "m-2"
		newDisk := said(1, "new disk")
		newDisk.Epoch = "F"
		steps := []struct {
			subject string
			report  wire.Report
			want    string
			reason  string
		}{
			{subject, said(5, "five"), "five", "the first report"},
			{subject, said(7, "seven"), "seven", "a higher sequence"},
			{subject, said(7, "seven again"), "seven", "the same sequence is the same report"},
			{subject, said(6, "six"), "seven", "an old sequence that came late"},
			{subject, other, "seven", "a body that speaks for another site is a lie"},
			{subject, anotherMember, "seven", "a body that speaks for another member is a lie"},
			{wire.ReportSubject("shop-1", "m-2"), said(8, "eight"), "seven", "a subject of another member than the body's"},
			{wire.ReportSubject("shop-1", "m-2"), anotherMember, "m-2", "another member reports for the site now"},
			{subject, newDisk, "new disk", "a machine whose store is new counts from one"},
		}
		for _, s := range steps {
			p.report(s.subject, s.report)
			if got, _ := p.fleet.Report("shop-1"); got.Version != s.want {
				t.Errorf("report is %q, want %q: %s", got.Version, s.want, s.reason)
			}
		}
		if _, ok := p.fleet.Report("shop-2"); ok {
			t.Error("one site spoke for another")
		}
		if got := p.changed(); len(got) != 4 || len(slices.Compact(got)) != 1 {
			t.Errorf("four reports were taken and %v was told", got)
		}
		for _, data := range []string{"", "{", `[1]`} {
			if _, err := p.site.Put(context.Background(), subject, []byte(data), wire.AnyRevision); err != nil {
				t.Fatal(err)
			}
			if err := p.site.Publish(context.Background(), wire.AliveSubject("shop-1", "m-1"), []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.site.Publish(context.Background(), "skerry.v1.alive.UPPER.m-1", []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := p.changed(); len(got) > 0 {
			t.Errorf("bytes that are no message changed %v", got)
		}
		p.wantLink("shop-1", fleet.LinkUnknown, "a report is no sign of life: it may be an old one")
	})
}

// TestRestart starts another hub on the same bus: it knows the reports, and of no site whether it is there.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := membus.New()
		p := newPost(t, broker)
		p.report(wire.ReportSubject("shop-1", "m-1"), said(3, "three"))
		p.alive("shop-1", false)
		p.stop()
		sleep(time.Hour)

		p = newPost(t, broker)
		defer p.stop()
		if got, ok := p.fleet.Report("shop-1"); !ok || got.Version != "three" {
			t.Errorf("the next hub knows report %+v", got)
		}
		p.wantLink("shop-1", fleet.LinkUnknown, "the next hub has not heard it yet")
		p.changed()
		sleep(31 * time.Second)
		p.wantLink("shop-1", fleet.LinkAway, "nothing was heard")
		if diff := cmp.Diff([]fleet.SiteName{"shop-1"}, p.changed()); diff != "" {
			t.Errorf("watchers were told (-want +got):\n%s", diff)
		}
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		ctx := context.Background()
		p.report(wire.ReportSubject("shop-1", "m-1"), said(3, "three"))
		p.alive("shop-1", false)
		p.changed()
		if err := p.fleet.ForgetMember(ctx, "shop-1", "m-2"); err != nil {
			t.Fatal(err)
		}
		if _, ok := p.fleet.Report("shop-1"); !ok {
			t.Error("forgetting a member that does not report forgot the one that does")
		}
		if err := p.fleet.ForgetMember(ctx, "shop-1", "m-1"); err != nil {
			t.Fatal(err)
		}
		if _, ok := p.fleet.Report("shop-1"); ok {
			t.Error("the report of a forgotten member is still there")
		}
		if diff := cmp.Diff([]fleet.SiteName{"shop-1"}, p.changed()); diff != "" {
			t.Errorf("watchers were told (-want +got):\n%s", diff)
		}
		second := said(1, "second")
		second.Member = "m-2"
		p.report(wire.ReportSubject("shop-1", "m-2"), second)
		if err := p.fleet.Forget(ctx, "shop-1"); err != nil {
			t.Fatal(err)
		}
		if _, err := p.site.Get(ctx, wire.ReportSubject("shop-1", "m-2")); err == nil {
			t.Error("a forgotten site's report is still stored")
		}
		if _, ok := p.fleet.Report("shop-1"); ok || !p.fleet.LastHeard("shop-1").IsZero() {
			t.Error("a forgotten site is still known")
		}
	})
}

// TestBusIsLost breaks the watch of reports: it starts again and misses nothing.
func TestBusIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		p.client.SetConnected(false)
		p.report(wire.ReportSubject("shop-1", "m-1"), said(1, "meanwhile"))
		sleep(5 * time.Second)
		if _, ok := p.fleet.Report("shop-1"); ok {
			t.Fatal("a report arrived without a bus")
		}
		p.client.SetConnected(true)
		sleep(2 * time.Second)
		if got, _ := p.fleet.Report("shop-1"); got.Version != "meanwhile" {
			t.Errorf("after the bus came back the report is %+v", got)
		}
	})
}
