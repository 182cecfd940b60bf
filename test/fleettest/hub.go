package fleettest

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
)

// Process is a program that a test runs.
type Process struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when its output ended
	said   lockedBuffer
	killed bool
}

// Run runs a program until the test ends, when it is asked to stop and must do so in order. What it says on
// standard error is logged.
func Run(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	logs, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			t.Log(lines.Text())
			_, _ = p.said.Write(append(lines.Bytes(), '\n'))
		}
	}()
	t.Cleanup(func() {
		if p.killed {
			return
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		<-p.done
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%s %s: %v", filepath.Base(name), args[0], err)
		}
	})
	return p
}

// Said is what the program said on standard error so far.
func (p *Process) Said() string { return p.said.String() }

// Kill ends the program with SIGKILL.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.done
	_ = p.cmd.Wait()
	p.killed = true
}

// Hub is a hub without sites of its own, as `skerry hub run` runs it.
type Hub struct {
	Dir, Kubeconfig string
	*Process
	bin Binaries
}

// StartHub runs a hub on a data directory until the test ends.
func StartHub(t testing.TB, bin Binaries, dir string, args ...string) *Hub {
	t.Helper()
	p := Run(t, bin.Skerry, append([]string{"hub", "run", "--data-dir", dir}, args...)...)
	return &Hub{Dir: dir, Kubeconfig: filepath.Join(dir, "kubeconfig"), Process: p, bin: bin}
}

// TrySkerry runs the command line against the hub.
func (h *Hub) TrySkerry(args ...string) (string, error) {
	cmd := exec.Command(h.bin.Skerry, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.Kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Skerry is TrySkerry for a command that must not fail.
func (h *Hub) Skerry(t testing.TB, args ...string) string {
	t.Helper()
	out, err := h.TrySkerry(args...)
	if err != nil {
		t.Fatalf("skerry %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Token waits until the hub gives a join token for a site; flags are those of `skerry site token`.
func (h *Hub) Token(t testing.TB, site string, flags ...string) string {
	t.Helper()
	token := ""
	Eventually(t, time.Minute, "the hub gives a token", func() string {
		out, err := h.TrySkerry(append([]string{"site", "token", site}, flags...)...)
		if err != nil {
			return out
		}
		token = strings.TrimSpace(out)
		return ""
	})
	return token
}

// Join lets a machine join as a site and returns its data directory once both sides say that it is connected.
func (h *Hub) Join(t testing.TB, site string) string {
	t.Helper()
	token, dir := h.Token(t, site), NewDir(t)
	Run(t, h.bin.Site, "run", "--join", token, "--data-dir", dir, "--gateway-addr", "127.0.0.1:0")
	AwaitLink(t, dir, fleet.LinkConnected)
	h.Skerry(t, "wait", "site/"+site, "--for=condition=Ready", "--timeout=30s")
	return dir
}

// AwaitLink waits until the agent of a data directory says how it stands to the hub.
func AwaitLink(t testing.TB, dir string, want fleet.Link) {
	t.Helper()
	Eventually(t, 2*time.Minute, "the site's link is "+string(want), func() string {
		s, err := StatusIn(dir)
		if err != nil || s.Link != want {
			return fmt.Sprint(s.Link, err)
		}
		return ""
	})
}
