package fault

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fault/link"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// get asks a URL from another host.
func get(from *link.Namespace, url string) (string, error) {
	out, err := exec.Command("nsenter", from.Args("curl", "-sS", "--max-time", "5", "--fail", url)...).CombinedOutput()
	return string(out), err
}

// placeHello pushes a version of the scaffold's app and places it on every toll gate.
func placeHello(t *testing.T, h *fleettest.Hub, version string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hello")
	h.Skerry(t, "app", "init", dir)
	h.Skerry(t, "push", dir, "--version", version)
	manifest := filepath.Join(dir, "placed.yaml")
	text := fmt.Sprintf(`apiVersion: skerry.dev/v1alpha1
kind: SiteGrant
metadata: {name: tolls}
spec: {namespaces: [default], sites: {}, runtimes: [process]}
---
apiVersion: skerry.dev/v1alpha1
kind: App
metadata: {name: hello, namespace: default}
spec:
  source: {bundle: "hello:%s"}
  placement: {sites: {matchLabels: {kind: toll}}}
  route: {path: /hello}
`, version)
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Skerry(t, "apply", "-f", manifest)
}

// runUntil runs a program until stop is called, or the test ends, and waits for its end.
func runUntil(t *testing.T, name string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var logs strings.Builder
	cmd.Stderr = &logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("%s ended: %v\n%s", name, err, logs.String())
		}
	})
	t.Cleanup(stop)
	return stop
}

// TestCable runs a hub and a site as two hosts and pulls the cable between them: the site serves on, starts
// without the hub, and takes what it missed when the cable is back.
func TestCable(t *testing.T) {
	fleettest.Require(t)
	c := link.New(t).Cable()
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", c.Here+":7443", "--name", c.Here,
		"--public-url", "https://"+c.Here+":7443", "--kube-addr", "127.0.0.1:0")
	token := h.Token(t, "toll-1", "--label", "kind=toll")
	placeHello(t, h, "1.0.0")
	dir := fleettest.NewDir(t)
	agent := func(token string) (stop func()) {
		args := c.Args(programs.Site, "run", "--data-dir", dir, "--gateway-addr", "127.0.0.1:8081")
		if token != "" {
			args = append(args, "--join", token)
		}
		return runUntil(t, "nsenter", args...)
	}
	stop := agent(token)
	url := "http://127.0.0.1:8081/hello"
	serves := func(what, want string) {
		t.Helper()
		fleettest.Eventually(t, time.Minute, what, func() string {
			if said, err := get(c.Namespace, url); err != nil || !strings.Contains(said, want) {
				return fmt.Sprint(said, err)
			}
			return ""
		})
	}
	serves("the site serves", "from toll-1: hello 1.0.0")

	c.Pull()
	h.Skerry(t, "wait", "site/toll-1", "--for=condition=Ready=false", "--timeout=60s")
	serves("the site serves with the cable pulled", "from toll-1: hello 1.0.0")
	placeHello(t, h, "1.1.0")
	stop()
	stop = agent("")
	serves("the site starts with the cable pulled", "from toll-1: hello 1.0.0")
	if s, err := fleettest.StatusIn(dir); err != nil || s.Link == fleet.LinkConnected {
		t.Errorf("with the cable pulled the agent says %v %v", s.Link, err)
	}

	c.Plug()
	serves("the site takes what it missed", "from toll-1: hello 1.1.0")
	h.Skerry(t, "wait", "app/hello", "--for=condition=Ready", "--timeout=60s")
	stop()
}
