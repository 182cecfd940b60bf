package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// TestRotation replaces the hub's authority under a site that serves, one that is away for a while, and one that joins
// between the steps. The hub is never started anew, but once to see that it comes back with both.
func TestRotation(t *testing.T) {
	fleettest.Require(t)
	addr := freePort(t)
	hubDir := fleettest.NewDir(t)
	start := func() *fleettest.Hub {
		return fleettest.StartHub(t, programs, hubDir, "--addr", addr, "--kube-addr", "127.0.0.1:0")
	}
	h := start()
	online := h.Join(t, "box-1")
	h.Skerry(t, "label", "site", "box-1", "kind=shop")
	site, err := fleettest.StatusIn(online)
	must(t, err)
	till := newTill(t, programs, site.Gateway)
	till.release(h, "1.0.0")
	stop := till.askOn()
	awayDir := fleettest.NewDir(t)
	token := h.Token(t, "box-2")
	away := fleettest.Run(t, programs.Site, "run", "--join", token, "--data-dir", awayDir, "--gateway-addr", "127.0.0.1:0")
	fleettest.AwaitLink(t, awayDir, fleet.LinkConnected)
	h.Skerry(t, "wait", "site/box-2", "--for=condition=Ready", "--timeout=30s")
	away.Kill(t)

	step := func(name, refusedFor string) {
		t.Helper()
		fleettest.Eventually(t, time.Minute, "hub ca "+name+" is refused for "+refusedFor+" alone", func() string {
			out, err := h.TrySkerry("hub", "ca", name)
			if refusedFor == "" && err == nil {
				return ""
			}
			if err != nil && strings.Contains(out, "("+refusedFor+")") {
				return ""
			}
			if refusedFor != "" && err == nil {
				t.Fatalf("hub ca %s cut %s off:\n%s", name, refusedFor, out)
			}
			return out
		})
	}
	h.Skerry(t, "hub", "ca", "add")
	step("use", "box-2")
	between := h.Join(t, "box-3")
	step("use", "box-2") // who joins now knows both
	fleettest.Run(t, programs.Site, "run", "--data-dir", awayDir, "--gateway-addr", "127.0.0.1:0")
	step("use", "") // once it is back
	for _, dir := range []string{online, awayDir, between} {
		fleettest.AwaitLink(t, dir, fleet.LinkConnected)
	}
	till.release(h, "2.0.0") // content by the client certificate of the first

	h.Kill(t)
	h = start()
	for _, dir := range []string{online, awayDir, between} {
		fleettest.AwaitLink(t, dir, fleet.LinkConnected)
	}
	till.serves(h, "2.0.0")
	last := h.Join(t, "box-4")
	step("drop", "")
	if out := h.Skerry(t, "hub", "ca", "list"); strings.Count(out, "in use") != 1 || strings.Contains(out, "previous") {
		t.Errorf("after drop:\n%s", out)
	}
	till.release(h, "3.0.0")
	h.Kill(t)
	h = start()
	for _, name := range []string{"box-1", "box-2", "box-3", "box-4"} {
		h.Token(t, "other") // it is up
		h.Skerry(t, "wait", "site/"+name, "--for=condition=Ready", "--timeout=60s")
	}
	fleettest.AwaitLink(t, last, fleet.LinkConnected)
	till.release(h, "4.0.0")
	stop()
}
