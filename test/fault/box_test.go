package fault

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fault/link"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// box is a machine at a site: a data directory, and an agent that is started, killed and started again. Its
// fields are set before the first start.
type box struct {
	t       *testing.T
	name    string
	program string
	dir     string
	env     []string
	// ns is the host that it is; nil for this one.
	ns      *link.Namespace
	gateway string
	// neighbour is where it answers its neighbours; empty: nowhere.
	neighbour string
	// machine gives its programs a process number space of their own: who kills the agent kills all of them.
	machine bool

	cmd   *exec.Cmd
	ended chan struct{}
	said  output
}

// output is what a process printed, which a test may read meanwhile.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns what was printed so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// newBox returns a box on this host, whose agent is stopped when the test ends.
func newBox(t *testing.T, name string) *box {
	b := &box{t: t, name: name, program: programs.Site, dir: fleettest.NewDir(t), gateway: "127.0.0.1:0"}
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			said := b.said.String()
			t.Logf("%s said:\n%s", name, said[max(0, len(said)-20_000):])
		}
	})
	return b
}

// start starts the agent, with a join token or without.
func (b *box) start(token string) {
	b.t.Helper()
	args := []string{"run", "--data-dir", b.dir, "--gateway-addr", b.gateway, "--log-format", "text"}
	if b.neighbour != "" {
		args = append(args, "--neighbour-addr", b.neighbour)
	}
	if token != "" {
		args = append(args, "--join", token)
	}
	line := append([]string{b.program}, args...)
	if b.machine {
		line = append([]string{"unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"}, line...)
	}
	if b.ns != nil {
		line = append([]string{"nsenter"}, b.ns.Args(line...)...)
	}
	b.cmd = exec.Command(line[0], line[1:]...)
	b.cmd.Env = append(os.Environ(), b.env...)
	b.cmd.Stdout, b.cmd.Stderr = &b.said, &b.said
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	cmd, ended := b.cmd, make(chan struct{})
	b.ended = ended
	go func() { _ = cmd.Wait(); close(ended) }()
}

// kill ends the agent with SIGKILL; nsenter became the agent, so it has its number.
func (b *box) kill() { b.end(syscall.SIGKILL) }

// stop asks the agent to stop and waits; it does nothing when it does not run. A machine of its own is
// switched off.
func (b *box) stop() {
	b.t.Helper()
	if b.machine {
		b.kill()
		return
	}
	b.end(syscall.SIGTERM)
}

func (b *box) end(signal syscall.Signal) {
	b.t.Helper()
	if b.ended == nil {
		return
	}
	_ = b.cmd.Process.Signal(signal) // it may have ended by itself
	select {
	case <-b.ended:
	case <-time.After(time.Minute):
		_ = b.cmd.Process.Kill()
		<-b.ended
		b.t.Errorf("%s did not end within a minute of %s", b.name, signal)
	}
	b.ended = nil
}

// awaitConnected waits until the agent says that it is connected.
func (b *box) awaitConnected() {
	b.t.Helper()
	fleettest.AwaitLink(b.t, b.dir, fleet.LinkConnected)
}

// awaitServes waits until a path of the box's gateway answers with want in it; for boxes on this host.
func (b *box) awaitServes(path, want string) {
	b.t.Helper()
	fleettest.Eventually(b.t, 90*time.Second, b.name+" serves "+want, func() string {
		s, err := fleettest.StatusIn(b.dir)
		if err != nil {
			return err.Error()
		}
		code, body, err := fleettest.Get(s.Gateway + path)
		if err != nil || code != 200 || !strings.Contains(body, want) {
			return fmt.Sprint(code, err, body)
		}
		return ""
	})
}
