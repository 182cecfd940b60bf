package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/skerry-dev/skerry/test/fleettest"
)

var programs fleettest.Binaries

// TestMain makes this test's own program a client process when it was started as one.
func TestMain(m *testing.M) {
	if config := os.Getenv(clientEnv); config != "" {
		if err := runClient(context.Background(), config, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "scale client:", err)
			os.Exit(1)
		}
		return
	}
	fleettest.Main(m, &programs)
}

// TestFleet lets a few sites do all that the benchmark measures with many, and holds what does not depend on
// how quick this machine is: who connects, what arrives, and what is written to the Kubernetes API.
func TestFleet(t *testing.T) {
	fleettest.Require(t)
	const sites, overWebSocket, fulls = 40, 10, 5
	b, err := newBench(t.Context(), options{program: programs.Skerry, sites: sites, webSocket: overWebSocket, perProcess: 25, idleSigns: 1}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the hub's log ends with:\n%s", b.hub.said())
		}
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
	if got := len(b.clients.all); got != 2 {
		t.Errorf("%d client processes for 50 sites of which each takes 25, want 2", got)
	}
	if err := b.begin(); err != nil {
		t.Fatal(err)
	}
	kinds := func(i int) kind {
		switch {
		case i < fulls:
			return full
		case i >= sites:
			return webSocket
		}
		return light
	}
	s := &step{Growth: &growth{}, Idle: &idleness{}, Release: &spread{}, Restart: &spread{}}
	for _, err := range []error{
		b.grow(sites+overWebSocket, kinds, s.Growth), b.release(s.Release), b.restart(s.Restart, false), b.idle(s.Idle),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a, err := b.clients.ask(request{Sites: true, Round: b.roundName()})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[kind]int{}
	for _, site := range a.Sites {
		seen[site.Kind]++
	}
	if c := a.Count; c.Linked != 50 || c.OnRound != 50 || c.Synced != 50 || seen[full] != fulls || seen[webSocket] != overWebSocket {
		t.Errorf("of 50 sites %d are linked, %d run the release, %d are in sync; kinds %v", c.Linked, c.OnRound, c.Synced, seen)
	}
	if s.Idle.Writes.total() > 0 {
		t.Errorf("an idle fleet makes the hub write to the Kubernetes API: %s", s.Idle.Writes)
	}
	for what, w := range map[string]writes{"release": s.Release.WritesSettled, "restart": s.Restart.WritesSettled} {
		if w["PATCH sites/status"] > 0 || w.total() >= 100 {
			t.Errorf("a %s costs %d writes to the Kubernetes API, want fewer than 100 and none for each site: %s", what, w.total(), w)
		}
	}
	if s.Idle.WireBytes <= 0 || s.Idle.WireBytes < s.Idle.StreamBytes {
		t.Errorf("%.0f bytes a site and hour on the wire, %.0f in the streams: connections are not counted", s.Idle.WireBytes, s.Idle.StreamBytes)
	}
}
