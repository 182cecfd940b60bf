package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// TestExistingCluster runs a hub on an API server that is there already, and lets a site join.
func TestExistingCluster(t *testing.T) {
	fleettest.Require(t)
	api := kubetest.Start(t)
	dir := fleettest.NewDir(t)
	start(t, programs.Skerry, "hub", "run", "--data-dir", dir, "--kubeconfig", api.Kubeconfig, "--addr", "127.0.0.1:0")
	h := lone{kubeconfig: api.Kubeconfig}
	h.join(t, "box-1")
	if _, err := os.Stat(filepath.Join(dir, "kubernetes")); !os.IsNotExist(err) {
		t.Errorf("the hub started an API server of its own: %v", err)
	}
}

// lone is a hub without sites of its own, as `skerry hub run` runs it.
type lone struct{ kubeconfig string }

// skerry runs the command line against the hub.
func (h lone) skerry(args ...string) (string, error) {
	cmd := exec.Command(programs.Skerry, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// join lets a machine join as a site and returns its data directory once both sides say that it is connected.
func (h lone) join(t *testing.T, site string) string {
	t.Helper()
	token := ""
	fleettest.Eventually(t, time.Minute, "the hub gives a token", func() string {
		out, err := h.skerry("site", "token", site)
		if err != nil {
			return out
		}
		token = strings.TrimSpace(out)
		return ""
	})
	dir := fleettest.NewDir(t)
	start(t, programs.Site, "run", "--join", token, "--data-dir", dir, "--gateway-addr", "127.0.0.1:0")
	awaitLink(t, dir, fleet.LinkConnected)
	if out, err := h.skerry("wait", "site/"+site, "--for=condition=Ready", "--timeout=30s"); err != nil {
		t.Fatal(out)
	}
	return dir
}

// awaitLink waits until the agent of a data directory says how it stands to the hub.
func awaitLink(t *testing.T, dir string, want fleet.Link) {
	t.Helper()
	fleettest.Eventually(t, time.Minute, "the site's link is "+string(want), func() string {
		s, err := fleettest.StatusIn(dir)
		if err != nil || s.Link != want {
			return fmt.Sprint(s.Link, err)
		}
		return ""
	})
}

// start runs a program until the test ends, and logs what it says.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	logs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			t.Log(lines.Text())
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s %s: %v", filepath.Base(name), args[0], err)
		}
	})
}
