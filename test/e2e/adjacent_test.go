package e2e

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/testenv"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// adjacentWithoutTag is the commit that stands for the release before this one while there is no tag: the end of
// the first milestone.
const adjacentWithoutTag = "189dc42"

// TestAdjacentReleases lets the agent of the release before this one work with this hub, and this agent with that
// hub: join, run an app, report, show its logs, take the next version.
func TestAdjacentReleases(t *testing.T) {
	fleettest.Require(t)
	ref := adjacent(t)
	began := time.Now()
	old := buildAt(t, ref)
	t.Logf("the programs of %s were built in %s", ref, time.Since(began).Round(time.Second))
	for _, row := range []struct {
		reason string
		bin    fleettest.Binaries
	}{
		{"the hub is upgraded first", fleettest.Binaries{Skerry: programs.Skerry, Site: old.Site}},
		{"a new machine joins an old hub", fleettest.Binaries{Skerry: old.Skerry, Site: programs.Site}},
	} {
		t.Run(row.reason, func(t *testing.T) {
			h := fleettest.StartHub(t, row.bin, fleettest.NewDir(t), "--addr", "127.0.0.1:0", "--kube-addr", "127.0.0.1:0")
			if row.bin.Skerry == programs.Skerry {
				h.Token(t, "other") // it is up
				h.Skerry(t, "hub", "ca", "add")
			}
			dir := h.Join(t, "box-1") // also an agent that knows of one authority alone
			h.Skerry(t, "label", "site", "box-1", "kind=shop")
			site, err := fleettest.StatusIn(dir)
			must(t, err)
			till := newTill(t, row.bin, site.Gateway)
			till.release(h, "1.0.0")
			till.release(h, "2.0.0")
			if out := h.Skerry(t, "logs", "app/till", "--site", "box-1"); !strings.Contains(out, "listening") {
				t.Errorf("the log of the app is %q", out)
			}
		})
	}
	t.Run("both are upgraded in place", func(t *testing.T) { upgraded(t, old) })
}

// upgraded runs hub and site of the old release, kills both, and continues their directories with this one.
func upgraded(t *testing.T, old fleettest.Binaries) {
	addr, gateway := freePort(t), freePort(t)
	hubDir, siteDir := fleettest.NewDir(t), fleettest.NewDir(t)
	h := fleettest.StartHub(t, old, hubDir, "--addr", addr, "--kube-addr", "127.0.0.1:0")
	agent := fleettest.Run(t, old.Site, "run", "--join", h.Token(t, "box-1"), "--data-dir", siteDir, "--gateway-addr", gateway)
	fleettest.AwaitLink(t, siteDir, fleet.LinkConnected)
	h.Skerry(t, "label", "site", "box-1", "kind=shop")
	before, err := fleettest.StatusIn(siteDir)
	must(t, err)
	till := newTill(t, old, before.Gateway)
	till.release(h, "1.0.0")

	h.Kill(t)
	h = fleettest.StartHub(t, programs, hubDir, "--addr", addr, "--kube-addr", "127.0.0.1:0")
	sameSite(t, h, siteDir, before.Member)
	till.serves(h, "1.0.0")
	agent.Kill(t)
	fleettest.Run(t, programs.Site, "run", "--data-dir", siteDir, "--gateway-addr", gateway)
	sameSite(t, h, siteDir, before.Member)
	till.serves(h, "1.0.0") // which ended with its agent, and is started by the next
	till.release(h, "2.0.0")
}

// adjacent is the release before this one: the newest tag before HEAD, or what stands for it.
func adjacent(t *testing.T) string {
	t.Helper()
	ref := adjacentWithoutTag
	testenv.Require(t, testenv.Tool("git"))
	if out, err := exec.Command("git", "describe", "--tags", "--abbrev=0", "HEAD^").Output(); err == nil {
		ref = strings.TrimSpace(string(out))
	}
	// No package brings a history that a source archive or a shallow clone lacks: this is no tool to require.
	if err := exec.Command("git", "cat-file", "-e", ref+"^{commit}").Run(); err != nil {
		t.Skipf("SKIPPED: needs the git history back to %s, which this checkout lacks: clone it with full depth", ref)
	}
	return ref
}

// buildAt builds the programs as they were at a commit.
func buildAt(t *testing.T, ref string) fleettest.Binaries {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	source, bin := t.TempDir(), t.TempDir()
	cmd := exec.CommandContext(ctx, "sh", "-ec", `git -C "$(git rev-parse --show-toplevel)" archive "$1" | tar x -C "$2"
cd "$2" && go build -buildvcs=false -o "$3/" ./cmd/skerry ./cmd/skerry-site`, "sh", ref, source, bin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", ref, err, out)
	}
	return fleettest.Binaries{Skerry: bin + "/skerry", Site: bin + "/skerry-site"}
}
