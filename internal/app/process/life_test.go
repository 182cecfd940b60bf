package process

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
)

func TestReadinessGate(t *testing.T) {
	e := newEnv(t)
	ready := filepath.Join(e.state, "ready")
	i := e.start(e.spec("serve", func(s *appsite.Spec, c *app.ProcessConfig) {
		s.Env["READY_FILE"] = ready
		c.Readiness = &app.Probe{Path: "/ready", PeriodSeconds: 1, FailureThreshold: 1}
	}))
	waiting := e.await(i, "a readiness answer", func(s appsite.Status) bool { return strings.Contains(s.Message, "status 503") })
	if waiting.Phase != fleet.PhaseStarting || waiting.Target != "" {
		t.Errorf("an app that is not ready is %+v", waiting)
	}
	port := instancePort(t, i)
	e.get("http://"+loopback(port), "/set", "ready", "yes")
	running := e.awaitRunning(i)
	e.get(running.Target, "/set", "ready", "no")
	lost := e.await(i, "lost readiness", func(s appsite.Status) bool { return s.Phase == fleet.PhaseStarting })
	if lost.Restarts != 0 || lost.Target != "" {
		t.Errorf("lost readiness must not restart, and takes the target away: %+v", lost)
	}
}

// instancePort is the port of an instance that has no target yet.
func instancePort(t *testing.T, i appsite.Instance) int {
	t.Helper()
	p := i.(*instance).rt.ports
	p.mu.Lock()
	defer p.mu.Unlock()
	for port := range p.used {
		return port
	}
	t.Fatal("no port in use")
	return 0
}

func TestCrashBacksOff(t *testing.T) {
	e := newEnv(t)
	e.rt = e.newRuntime(Options{BackOff: 20 * time.Millisecond})
	i := e.start(e.spec("exit3", nil))
	s := e.await(i, "three restarts", func(s appsite.Status) bool { return s.Restarts >= 3 && s.Phase == fleet.PhaseBackOff })
	if !strings.HasPrefix(s.Message, "exited with status 3; next start in ") {
		t.Errorf("message %q does not say how it ended and what is next", s.Message)
	}
	if out := e.out.String(); !strings.Contains(out, "to stdout") || !strings.Contains(out, "to stderr") {
		t.Errorf("output was lost: %q", out)
	}
}

func TestBackOffDoublesToItsCap(t *testing.T) {
	b := backOff{first: 100 * time.Millisecond, max: time.Second}
	var got []time.Duration
	for range 6 {
		got = append(got, b.next())
	}
	b.reset()
	got = append(got, b.next())
	ms := time.Millisecond
	want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1000 * ms, 1000 * ms, 100 * ms}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCrashAfterServingRestarts(t *testing.T) {
	e := newEnv(t)
	i := e.start(e.spec("serve", nil))
	first := e.awaitRunning(i)
	c, err := net.Dial("tcp", strings.TrimPrefix(first.Target, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET /exit HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	s := e.await(i, "a second life", func(s appsite.Status) bool { return s.Restarts == 1 && s.Phase == fleet.PhaseRunning })
	if d := e.describe(s.Target); d.PID == 0 {
		t.Error("restarted app does not answer")
	}
}

func TestLivenessRestarts(t *testing.T) {
	e := newEnv(t)
	stopped := filepath.Join(e.state, "stopped")
	i := e.start(e.spec("serve", func(s *appsite.Spec, c *app.ProcessConfig) {
		s.AllowRoot = true // to write outside of its scratch
		s.Env["STOPPED_FILE"] = stopped
		c.Liveness = &app.Probe{Path: "/live", PeriodSeconds: 1, FailureThreshold: 1}
	}))
	e.get(e.awaitRunning(i).Target, "/set", "live", "no")
	s := e.await(i, "back-off", func(s appsite.Status) bool { return s.Phase == fleet.PhaseBackOff && s.Restarts == 1 })
	if !strings.Contains(s.Message, "liveness probe failed 1 times: GET /live: status 503") {
		t.Errorf("message %q does not say why", s.Message)
	}
	if _, err := os.Stat(stopped); err != nil {
		t.Errorf("it was not stopped gracefully: %v", err)
	}
	e.awaitRunning(i)
}

func TestStopIsGracefulFirst(t *testing.T) {
	e := newEnv(t)
	stopped := filepath.Join(e.state, "stopped")
	i := e.start(e.spec("serve", func(s *appsite.Spec, _ *app.ProcessConfig) {
		s.AllowRoot = true
		s.Env["STOPPED_FILE"] = stopped
	}))
	e.awaitRunning(i)
	if err := i.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stopped); err != nil {
		t.Errorf("the app saw no SIGTERM: %v", err)
	}
	if err := i.Stop(t.Context()); err != nil {
		t.Errorf("second stop: %v", err)
	}
}

func TestStubbornAppIsKilledWithAllItStarted(t *testing.T) {
	e := newEnv(t)
	for name, row := range map[string]struct {
		reason string
		grace  int
		ctx    time.Duration
	}{
		"grace ends":   {"SIGTERM is ignored, the declared second passes", 1, time.Minute},
		"caller hurry": {"the caller's context ends long before the grace", 600, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			spec := e.spec("stubborn", func(s *appsite.Spec, c *app.ProcessConfig) {
				s.ID += strings.ReplaceAll(name, " ", "-")
				c.StopGraceSeconds = row.grace
			})
			i := e.start(spec)
			e.awaitRunning(i)
			rec := readRecord(t, e, spec.ID)
			if n := len(rec.leftovers()); n < 3 {
				t.Fatalf("%d processes run, want the app and two of its own", n)
			}
			ctx, cancel := context.WithTimeout(t.Context(), row.ctx)
			defer cancel()
			if err := i.Stop(ctx); err != nil {
				t.Fatal(err)
			}
			if left := rec.leftovers(); len(left) != 0 {
				t.Errorf("%s: processes %v outlived Stop", row.reason, left)
			}
			for _, dir := range rec.Groups {
				if _, err := os.Stat(dir); err == nil {
					t.Errorf("control group %s stays behind", dir)
				}
			}
		})
	}
}

func readRecord(t *testing.T, e *env, id string) record {
	t.Helper()
	var rec record
	if err := e.bucket.Get(recordKey+id, &rec); err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestSecondInstanceOfOneIDIsRefused(t *testing.T) {
	e := newEnv(t)
	spec := e.spec("serve", nil)
	e.start(spec)
	if _, err := e.rt.Start(t.Context(), spec); err == nil {
		t.Error("two instances share a scratch directory")
	}
}

func TestUnrunnableProgramFails(t *testing.T) {
	e := newEnv(t)
	bad := filepath.Join(e.state, "bundle", "bin", "bad")
	if err := os.WriteFile(bad, []byte("\x7fELF of another machine"), 0o755); err != nil {
		t.Fatal(err)
	}
	i := e.start(e.spec("serve", func(_ *appsite.Spec, c *app.ProcessConfig) { c.Command = []string{"bin/bad"} }))
	s := e.await(i, "failure", func(s appsite.Status) bool { return s.Phase == fleet.PhaseFailed })
	if !strings.Contains(s.Message, "exec format error") {
		t.Errorf("message %q", s.Message)
	}
}

func TestPortTakenMeanwhileIsRetriedAtOnce(t *testing.T) {
	e := newEnv(t)
	e.rt = e.newRuntime(Options{BackOff: time.Hour, MaxBackOff: time.Hour})
	gate := filepath.Join(e.state, "bind-now")
	i := e.start(e.spec("late", func(s *appsite.Spec, c *app.ProcessConfig) {
		s.Env["BIND_FILE"] = gate
		c.Readiness = &app.Probe{Path: "/ready"}
	}))
	// The program has its port and has not bound it: another does.
	e.await(i, "the first question", func(s appsite.Status) bool { return strings.Contains(s.Message, "not ready yet") })
	thief, err := net.Listen("tcp", loopback(instancePort(t, i)))
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := e.await(i, "running in spite of an hour of back-off", func(s appsite.Status) bool { return s.Phase == fleet.PhaseRunning })
	if s.Target == "http://"+thief.Addr().String() || s.Restarts != 1 {
		t.Errorf("want one restart on another port, got %+v", s)
	}
}
