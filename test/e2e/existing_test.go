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
	skerry := func(args ...string) (string, error) {
		cmd := exec.Command(programs.Skerry, args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+api.Kubeconfig)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	token := ""
	fleettest.Eventually(t, time.Minute, "the hub gives a token", func() string {
		out, err := skerry("site", "token", "box-1")
		if err != nil {
			return out
		}
		token = strings.TrimSpace(out)
		return ""
	})
	siteDir := fleettest.NewDir(t)
	start(t, programs.Site, "run", "--join", token, "--data-dir", siteDir, "--gateway-addr", "127.0.0.1:0")
	fleettest.Eventually(t, time.Minute, "the site is connected", func() string {
		s, err := fleettest.StatusIn(siteDir)
		if err != nil || s.Link != fleet.LinkConnected {
			return fmt.Sprint(s.Link, err)
		}
		return ""
	})
	if out, err := skerry("wait", "site/box-1", "--for=condition=Ready", "--timeout=30s"); err != nil {
		t.Fatal(out)
	}
	if _, err := os.Stat(filepath.Join(dir, "kubernetes")); !os.IsNotExist(err) {
		t.Errorf("the hub started an API server of its own: %v", err)
	}
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
