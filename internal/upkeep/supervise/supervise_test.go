package supervise

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/upkeep/slots"
)

// TestMain is the test, or an agent when the first argument says how it behaves; a program in a slot has it written
// behind its end.
func TestMain(m *testing.M) {
	if os.Getenv(Env) == "" {
		os.Exit(m.Run())
	}
	os.Exit(agent())
}

// marker ends the program; what stands after it is how a copy behaves.
const marker = "\n#behaves:"

func behaviour() string {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "installed"
	}
	_, after, ok := strings.Cut(string(data[max(0, len(data)-200):]), marker)
	if !ok {
		return "installed"
	}
	return after
}

// agent serves the local socket of the directory in its first argument, as it was told to behave.
func agent() int {
	dir, how := os.Args[1], behaviour()
	log, err := os.OpenFile(filepath.Join(dir, "starts"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 9
	}
	fmt.Fprintln(log, how)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	link, phase := string(fleet.LinkConnected), "Running"
	switch how {
	case "exits":
		return 3
	case "hangs":
		select {} // not even for SIGTERM
	case "loses the hub":
		link = string(fleet.LinkAway)
	case "apps fail":
		phase = "Failed"
	}
	socket := filepath.Join(dir, "agent.sock")
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return 8
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"pid":%d,"link":%q}`, os.Getpid(), link)
	})
	mux.HandleFunc("/apps", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"apps":[{"app":"shop/till","phase":%q,"desired":{"digest":"x"},"running":{"digest":"x"}}]}`, phase)
	})
	go http.Serve(l, mux)
	if how == "ends soon" {
		time.Sleep(time.Second)
		return 4
	}
	<-ctx.Done()
	if _, err := os.Stat(filepath.Join(dir, "end-with-5")); err == nil {
		return 5
	}
	return 0
}

// world is a supervisor over a directory.
type world struct {
	t   *testing.T
	dir string
	o   Options
}

func newWorld(t *testing.T) *world {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv(Env, "") // of this process; agents get their own
	return &world{t: t, dir: dir, o: Options{
		DataDir: dir, Base: self, Args: []string{dir}, BaseArgs: []string{dir}, Log: slog.New(slog.DiscardHandler),
		Steady: 200 * time.Millisecond, Poll: 20 * time.Millisecond, Grace: 300 * time.Millisecond,
	}}
}

// ask makes a program that behaves so, and asks for its trial as an agent does.
func (w *world) ask(how string, attempts int) {
	w.t.Helper()
	program := filepath.Join(w.t.TempDir(), "program")
	data, err := os.ReadFile(w.o.Base)
	if err != nil {
		w.t.Fatal(err)
	}
	data = append(data, marker+how...)
	if how == "no program" {
		data = []byte("\x7fELF, but of another machine")
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	s := slots.Open(w.dir)
	slot, err := s.Stage(program, digest)
	if err == nil {
		err = s.Begin(slots.Record{ID: how, Version: how, Digest: digest, To: slot, Attempts: attempts, DeadlineSeconds: 2, Healthy: []string{"shop/till"}, Linked: true})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// run runs the supervisor until stop is called, which returns how it ended.
func (w *world) run() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, w.o) }()
	return func() error { cancel(); return <-done }
}

func (w *world) record() slots.Record {
	w.t.Helper()
	r, _, err := slots.Open(w.dir).Record()
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) starts() string {
	data, _ := os.ReadFile(filepath.Join(w.dir, "starts"))
	return strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", ", ")
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not yet; starts were %s, record is %+v", what, w.starts(), w.record())
		}
	}
}

func TestTrials(t *testing.T) {
	tests := []struct {
		how, state, reason string
		starts             string
	}{
		{"good", slots.Done, "", "good"},
		{"exits", slots.Failed, "exit status 3 in each", "exits, exits, installed"},
		{"ends soon", slots.Done, "", "ends soon"}, // it was healthy for as long as was asked
		{"hangs", slots.Failed, "local socket does not answer", "hangs, installed"},
		{"loses the hub", slots.Failed, "the hub was reached and is not", "loses the hub, installed"},
		{"apps fail", slots.Failed, "app shop/till was healthy and is not", "apps fail, installed"},
		{"no program", slots.Failed, "cannot be started", "installed"},
	}
	for _, tt := range tests {
		t.Run(tt.how, func(t *testing.T) {
			w := newWorld(t)
			w.ask(tt.how, 2)
			stop := w.run()
			w.eventually("judged", func() bool { return w.record().State == tt.state && w.starts() == tt.starts })
			if r := w.record(); !strings.Contains(r.Reason, tt.reason) {
				t.Errorf("the reason is %q, want %q", r.Reason, tt.reason)
			}
			if err := stop(); err != nil && tt.how != "ends soon" {
				t.Errorf("the supervisor ended with %v", err)
			}
		})
	}
}

// TestAsked: an agent that runs asks for a trial and ends.
func TestAsked(t *testing.T) {
	w := newWorld(t)
	stop := w.run()
	w.eventually("the installed agent runs", func() bool { _, err := Ask(t.Context(), w.dir); return err == nil })
	h, err := Ask(t.Context(), w.dir)
	if err != nil || !h.Linked || strings.Join(h.Healthy(), " ") != "shop/till" {
		t.Fatalf("it says %+v, %v", h, err)
	}
	w.ask("good", 2)
	if err := syscall.Kill(h.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.eventually("the new one is judged", func() bool { return w.record().State == slots.Done })
	if err := stop(); err != nil {
		t.Errorf("the supervisor ended with %v", err)
	}
	stop = w.run()
	w.eventually("it is started again", func() bool { return w.starts() == "installed, good, good" })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestInterrupted kills the supervisor in a trial, as a power cut would, as many times as there are attempts.
func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	w.o.Steady = time.Hour
	w.ask("good", 2)
	for range 2 {
		s := slots.Open(w.dir)
		if _, _, trial, err := s.Next(w.o.Base); err != nil || !trial {
			t.Fatalf("a trial that was interrupted is not tried again: %v, %v", trial, err)
		}
	}
	stop := w.run()
	w.eventually("the one before runs", func() bool { return w.starts() == "installed" })
	if r := w.record(); r.State != slots.Failed || !strings.Contains(r.Reason, "interrupted") {
		t.Errorf("the record is %+v", r)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestEndsWithItsAgent: outside of a trial the service manager decides.
func TestEndsWithItsAgent(t *testing.T) {
	w := newWorld(t)
	done := make(chan error, 1)
	go func() { done <- Run(context.Background(), w.o) }()
	var h Health
	w.eventually("it runs", func() bool { var err error; h, err = Ask(t.Context(), w.dir); return err == nil })
	if err := os.WriteFile(filepath.Join(w.dir, "end-with-5"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(h.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := <-done; !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("it ended with %v", err)
	}
}

// TestKilledSupervisor: an agent must not outlive it, or the next could not have the data directory.
func TestKilledSupervisor(t *testing.T) {
	w := newWorld(t)
	cmd := exec.Command(w.o.Base, "-test.run", "^TestSupervisorProcess$")
	cmd.Env = append(os.Environ(), "SUPERVISE_DIR="+w.dir)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var h Health
	w.eventually("it runs", func() bool { var err error; h, err = Ask(t.Context(), w.dir); return err == nil })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	w.eventually("the agent is gone too", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.PID))
		return err != nil || strings.Contains(string(state), ") Z ")
	})
}

// TestSupervisorProcess is the process of TestKilledSupervisor.
func TestSupervisorProcess(t *testing.T) {
	dir := os.Getenv("SUPERVISE_DIR")
	if dir == "" {
		t.Skip("not a test of its own")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_ = Run(context.Background(), Options{DataDir: dir, Base: self, BaseArgs: []string{dir}, Args: []string{dir}, Log: slog.New(slog.DiscardHandler)})
}

func TestUnifiedPath(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/skerry-site.service\n": "/system.slice/skerry-site.service",
		"0::/\n":                                 "/",
		"12:pids:/x\n0::/x\n":                    "",
		"":                                       "",
	} {
		path, ok := unifiedPath(text)
		if ok != (want != "") || ok && path != want {
			t.Errorf("%q: %q, %v", text, path, ok)
		}
	}
}
