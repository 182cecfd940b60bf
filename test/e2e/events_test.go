package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/test/fleettest"
)

// eventsOf returns the reasons of what happened at a site, in order, and fails if one came twice.
func eventsOf(t *testing.T, f *fleettest.Fleet, site string) []string {
	t.Helper()
	var reasons []string
	seen := map[string]bool{}
	for line := range strings.Lines(f.Skerry(t, "events", "--site", site, "--limit", "10000", "-o", "json")) {
		number, ok := cutBetween(line, `"epoch":"`, `,"class"`)
		reason, found := cutBetween(line, `"reason":"`, `"`)
		if !ok || !found {
			t.Fatalf("no event: %s", line)
		}
		if seen[number] {
			t.Errorf("event %s came twice", number)
		}
		seen[number] = true
		reasons = append(reasons, reason)
	}
	return reasons
}

func cutBetween(s, before, after string) (string, bool) {
	_, rest, ok := strings.Cut(s, before)
	middle, _, closed := strings.Cut(rest, after)
	return middle, ok && closed
}

// happened kills the hub, then an agent while the hub is away, and asks afterwards what happened.
func happened(t *testing.T, f *fleettest.Fleet) {
	before := len(eventsOf(t, f, "shop-2"))
	f.KillHub(t)
	s, err := f.SiteStatus("shop-2")
	if err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, time.Minute, "the site noticed", func() string {
		if s, err := f.SiteStatus("shop-2"); err != nil || s.Outbox.Pending == 0 {
			return "nothing waits to be told"
		}
		return ""
	})
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.Start(t)
	want := []string{"LinkDown", "AgentStarted", "LinkUp", "AppRunning"}
	fleettest.Eventually(t, 2*time.Minute, "what happened, each thing once and in order", func() string {
		got := eventsOf(t, f, "shop-2")
		rest := want
		for _, reason := range got[min(before, len(got)):] {
			if len(rest) > 0 && reason == rest[0] {
				rest = rest[1:]
			}
		}
		if len(rest) > 0 {
			return "lacks " + strings.Join(rest, ", ") + " in " + strings.Join(got, " ")
		}
		return ""
	})
}
