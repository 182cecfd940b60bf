package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// Agents that are bad, as the main function of an agent that is otherwise as it should be.
const (
	// exitsAtOnce does so once it is more than asked for its version.
	exitsAtOnce = `package main
import ("fmt";"os")
func main() { if len(os.Args) > 1 && os.Args[1] == "--version" { fmt.Println("bad"); return }; os.Exit(7) }`
	// hangs does nothing, not even at SIGTERM.
	hangs = `package main
import ("fmt";"os";"os/signal";"syscall";"time")
func main() { if len(os.Args) > 1 && os.Args[1] == "--version" { fmt.Println("bad"); return }; signal.Ignore(syscall.SIGTERM); for { time.Sleep(time.Hour) } }`
	// killsApps is an agent whose programs do not live.
	killsApps = `package main
import ("context";"fmt";"os";"os/signal";"path/filepath";"strings";"syscall";"time"
"github.com/skerry-dev/skerry/cmd/internal/agent";"github.com/skerry-dev/skerry/internal/sitecli")
func main() {
	if len(os.Args) > 1 && os.Args[1] == "--version" { fmt.Println("bad"); return }
	go func() { for ; ; time.Sleep(20*time.Millisecond) {
		all, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, f := range all { data, _ := os.ReadFile(f); s := string(data); i := strings.LastIndex(s, ")"); if i < 0 { continue }
			var state string; var parent, pid int; fmt.Sscan(s[i+1:], &state, &parent); fmt.Sscan(s, &pid)
			if parent == os.Getpid() { syscall.Kill(pid, syscall.SIGKILL) } }
	} }()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM); defer stop()
	if err := agent.Run(ctx, "bad", os.Stderr, sitecli.RunOptions{DataDir: os.Args[3], GatewayAddr: os.Args[5], GatewayExact: true, LogLevel: "info"}); err != nil { fmt.Fprintln(os.Stderr, err); os.Exit(1) }
}`
)

// buildAgent builds the small agent as a release of this version, for an architecture; main, if not empty, takes the
// place of its main function.
func buildAgent(t *testing.T, version, arch, main string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "skerry-site")
	args := []string{"build", "-buildvcs=false", "-ldflags=-s -w -X main.release=" + version, "-o", out}
	if main != "" {
		source, err := filepath.Abs("../../cmd/skerry-site/main.go")
		must(t, err)
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(main), 0o600))
		overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: filepath.Join(dir, "main.go")}})
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
		args = append(args, "-overlay", filepath.Join(dir, "overlay.json"))
	}
	cmd := exec.Command("go", append(args, "github.com/skerry-dev/skerry/cmd/skerry-site")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build agent %s: %v\n%s", version, err, said)
	}
	return out
}

// agentStatus is what the hub knows of a site's agent.
func agentStatus(h *fleettest.Hub, site string) (v1alpha1.SiteAgentStatus, error) {
	var s v1alpha1.Site
	out, err := h.TrySkerry("get", "site", site, "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err == nil && s.Status.Agent == nil {
		err = errors.New("nothing is known")
	}
	if err != nil {
		return v1alpha1.SiteAgentStatus{}, err
	}
	return *s.Status.Agent, nil
}

// awaitAgent waits until the hub says so of a site's agent.
func awaitAgent(t *testing.T, h *fleettest.Hub, site, version, phase, message string) {
	t.Helper()
	fleettest.Eventually(t, 2*time.Minute, fmt.Sprintf("site %s runs agent %s, %s %q", site, version, phase, message), func() string {
		s, err := agentStatus(h, site)
		if err != nil || s.Version != version || s.Phase != phase || !strings.Contains(s.Message, message) {
			return fmt.Sprintf("%+v, %v", s, err)
		}
		return ""
	})
}

// TestAgentUpgrade upgrades agents in place, to a good one and to bad ones, and kills the supervisor in the middle.
func TestAgentUpgrade(t *testing.T) {
	fleettest.Require(t)
	one := buildAgent(t, "1.0.0", runtime.GOARCH, "")
	two := buildAgent(t, "2.0.0", runtime.GOARCH, "")
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", freePort(t), "--kube-addr", "127.0.0.1:0")
	dirs, supervisors := map[string]string{}, map[string]*fleettest.Process{}
	gateway := freePort(t)
	start := func(name string, flags ...string) {
		t.Helper()
		address := "127.0.0.1:0"
		if name == "box-1" {
			address = gateway
		}
		args := append([]string{"supervise", "--data-dir", dirs[name], "--", "--gateway-addr", address}, flags...)
		supervisors[name] = fleettest.Run(t, one, args...)
	}
	for _, name := range []string{"box-1", "box-2", "box-3"} {
		dirs[name] = fleettest.NewDir(t)
		kind := map[bool]string{true: "shop", false: "spare"}[name == "box-1"] // the app's selector
		start(name, "--join", h.Token(t, name, "--label", "kind="+kind, "--label", "fleet=one"))
		fleettest.AwaitLink(t, dirs[name], fleet.LinkConnected)
	}
	site, err := fleettest.StatusIn(dirs["box-1"])
	must(t, err)
	till := newTill(t, programs, site.Gateway)
	till.release(h, "1.0.0")
	if s, err := agentStatus(h, "box-1"); err != nil || s.Version != "1.0.0" || s.Phase != "" {
		t.Errorf("before: %+v, %v", s, err)
	}

	away := till.interruption()
	h.Skerry(t, "site", "upgrade", "box-1", "--from", two, "--to", "2.0.0")
	awaitAgent(t, h, "box-1", "2.0.0", "Running", "")
	t.Logf("the app did not answer for %s while its agent was upgraded", away().Round(time.Millisecond))
	till.serves(h, "1.0.0")
	h.Skerry(t, "site", "upgrade", "-l", "fleet=one", "--to", "2.0.0", "--max-unavailable", "2")
	for _, name := range []string{"box-2", "box-3"} {
		awaitAgent(t, h, name, "2.0.0", "Running", "")
	}

	t.Run("the machine starts again", func(t *testing.T) {
		supervisors["box-1"].Kill(t)
		start("box-1")
		awaitAgent(t, h, "box-1", "2.0.0", "Running", "")
		till.serves(h, "1.0.0")
	})
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	for _, bad := range []struct{ reason, version, arch, main, says string }{
		{"it exits at once", "3.0.0-exits", runtime.GOARCH, exitsAtOnce, "exit status 7 in each of its attempts"},
		{"it hangs", "3.0.0-hangs", runtime.GOARCH, hangs, "its local socket does not answer"},
		{"its apps do not run", "3.0.0-kills", runtime.GOARCH, killsApps, "app default/till was healthy and is not"},
		{"it is for other machines", "3.0.0-other", other, "", "there is none for " + runtime.GOARCH},
	} {
		t.Run(bad.reason, func(t *testing.T) {
			agent := buildAgent(t, bad.version, bad.arch, bad.main)
			h.Skerry(t, "site", "upgrade", "--all", "--from", agent, "--to", bad.version, "--deadline", "15")
			awaitAgent(t, h, "box-1", "2.0.0", "Failed", bad.says)
			till.serves(h, "1.0.0")
			// The first failure takes the room of all: nobody else was told.
			for _, name := range []string{"box-2", "box-3"} {
				if s, err := agentStatus(h, name); err != nil || s.Version != "2.0.0" || s.Phase != "Waiting" {
					t.Errorf("%s: %+v, %v", name, s, err)
				}
			}
			// Those that wait go first: a site that failed and is asked for something else makes room for them.
			h.Skerry(t, "site", "upgrade", "box-2", "box-3", "--to", "2.0.0")
			h.Skerry(t, "site", "upgrade", "box-1", "--to", "2.0.0")
		})
	}
	t.Run("a power cut in a trial", func(t *testing.T) {
		three := buildAgent(t, "3.0.0", runtime.GOARCH, "")
		h.Skerry(t, "site", "upgrade", "box-1", "--from", three, "--to", "3.0.0")
		fleettest.Eventually(t, time.Minute, "it is tried", func() string {
			if s, err := fleettest.StatusIn(dirs["box-1"]); err != nil || s.Version != "3.0.0" {
				return fmt.Sprint(s.Version, err)
			}
			return ""
		})
		supervisors["box-1"].Kill(t)
		start("box-1")
		awaitAgent(t, h, "box-1", "3.0.0", "Running", "")
		till.serves(h, "1.0.0")
	})
	t.Run("back to an earlier version", func(t *testing.T) {
		h.Skerry(t, "site", "upgrade", "--all", "--to", "2.0.0", "--max-unavailable", "3")
		for name := range dirs {
			awaitAgent(t, h, name, "2.0.0", "Running", "")
		}
	})
	if out, err := h.TrySkerry("site", "upgrade", "box-1", "--to", "9.9.9"); err == nil {
		t.Errorf("a version that nobody pushed: %s", out)
	}
	if out, err := h.TrySkerry("site", "upgrade", "box-1", "--from", programs.Skerry, "--to", "9.9.9"); err == nil || !strings.Contains(out, "not an agent") {
		t.Errorf("another program: %v %s", err, out)
	}
}

// interruption asks the app every 10 ms; the returned function says for how long in one piece it did not answer.
func (a *till) interruption() (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	longest := time.Duration(0)
	wg.Go(func() {
		last := time.Now()
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			if code, _, err := fleettest.Get(a.url); err == nil && code == 200 {
				longest, last = max(longest, time.Since(last)), time.Now()
			}
		}
	})
	return func() time.Duration { cancel(); wg.Wait(); return longest }
}
