package tasksite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/app/tasksite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
)

const digest = fleet.Digest("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")

var ref = task.Ref{Kind: task.KindTask, Namespace: "default", Name: "clean"}

// play is how the runs of a test go, one try after the other; the last goes on for ever.
type play []act

type act struct {
	takes  time.Duration
	exit   int
	err    error
	prints string
	// kills has the machine lose its power in the middle of the run.
	kills bool
}

// stage runs jobs as a play says: what is tested with it are the module's own steps. That real programs run is
// tested where they do.
type stage struct {
	mu       sync.Mutex
	play     play
	jobs     []appsite.Job
	prepared int
	offline  bool
	lost     func()
	forgot   []string
}

func (s *stage) Prepare(ctx context.Context, p app.Placement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offline {
		return fmt.Errorf("no network: %w", appsite.ErrNotYet)
	}
	s.prepared++
	return ctx.Err()
}

func (s *stage) Forget(key fleet.AppKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgot = append(s.forgot, key.Name)
	return nil
}

func (s *stage) RunJob(ctx context.Context, j appsite.Job, started func() error) (appsite.Outcome, error) {
	s.mu.Lock()
	a := s.play[min(len(s.jobs), len(s.play)-1)]
	s.jobs = append(s.jobs, j)
	lost := s.lost
	s.mu.Unlock()
	if a.err != nil {
		return appsite.Outcome{}, a.err
	}
	if err := started(); err != nil {
		return appsite.Outcome{}, err
	}
	_, _ = io.WriteString(j.Output, a.prints)
	if a.kills {
		lost()
		<-ctx.Done()
		return appsite.Outcome{ExitCode: -1, Reason: "stopped"}, nil
	}
	select {
	case <-time.After(a.takes):
	case <-ctx.Done():
		return appsite.Outcome{ExitCode: -1, Reason: "stopped"}, nil
	}
	if a.exit != 0 {
		return appsite.Outcome{ExitCode: a.exit, Reason: fmt.Sprintf("exited with status %d", a.exit)}, nil
	}
	return appsite.Outcome{}, nil
}

func (s *stage) ran() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, j := range s.jobs {
		out = append(out, j.ID)
	}
	return out
}

// calls takes what a module offers to the hub.
type calls map[string]func(context.Context, json.RawMessage, site.Stream) error

func (c calls) Handle(string, func(context.Context, json.RawMessage) (any, error)) {}
func (c calls) HandleStream(method string, fn func(context.Context, json.RawMessage, site.Stream) error) {
	c[method] = fn
}

type events struct {
	mu    sync.Mutex
	lines []string
}

func (e *events) Add(ev fleet.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, ev.Reason+" "+ev.App.String())
}

// box is a site's disk with the module in its newest life.
type box struct {
	t       *testing.T
	dir     string
	stage   *stage
	module  *tasksite.Module
	store   *store.Store
	calls   calls
	events  events
	unknown atomic.Bool
	off     time.Duration
	opts    tasksite.Options
	body    []byte
}

// bubble runs fn with a box in a bubble of its own time.
func bubble(t *testing.T, p play, fn func(*box)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &box{t: t, dir: dir, stage: &stage{play: p}}
		b.boot()
		defer func() { b.halt() }()
		fn(b)
	})
}

func (b *box) boot() {
	b.t.Helper()
	st, err := store.Open(filepath.Join(b.dir, "store.db"))
	if err != nil {
		b.t.Fatal(err)
	}
	bucket, err := st.Bucket("tasks")
	if err != nil {
		b.t.Fatal(err)
	}
	b.store, b.calls = st, calls{}
	own := filepath.Join(b.dir, "tasks")
	if err := os.MkdirAll(own, 0o700); err != nil {
		b.t.Fatal(err)
	}
	opts := b.opts
	opts.Clock = func() (time.Time, bool) { return time.Now().Add(b.off), !b.unknown.Load() }
	b.module = tasksite.New(&site.Host{
		Name: "shop-1", Dir: own, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Bucket: bucket,
		Changed: func() {}, Calls: b.calls, Events: &b.events,
	}, b.stage, opts)
	if err := b.module.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	if b.body != nil {
		b.applyBody(b.body)
	}
}

func (b *box) halt() {
	b.t.Helper()
	if err := b.module.Stop(context.Background()); err != nil {
		b.t.Error(err)
	}
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
}

// reboot ends the life and begins another, some time later.
func (b *box) reboot(later time.Duration) {
	b.t.Helper()
	b.halt()
	time.Sleep(later)
	b.boot()
}

func (b *box) applyBody(body []byte) {
	b.t.Helper()
	if err := b.module.Apply(b.t.Context(), body, fleet.Facts{}); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

func (b *box) apply(entries ...task.Entry) {
	b.t.Helper()
	body, err := task.Section{Facts: fleet.Facts{Name: "shop-1"}, Tasks: entries}.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	b.body = body
	b.applyBody(body)
}

// entry is a task of a bundle.
func entry(edit func(*task.Entry)) task.Entry {
	e := task.Entry{
		Ref: ref, UID: "u-1", DeadlineSeconds: 60,
		Bundle: &app.Placement{App: ref.Key(), Release: "clean-1", Digest: digest, Bundle: app.Bundle{Repository: "default/clean", Digest: digest, Size: 1}},
	}
	if edit != nil {
		edit(&e)
	}
	return e
}

// cron is a schedule in an app.
func cron(rule string, edit func(*task.Entry)) task.Entry {
	e := task.Entry{
		Ref: task.Ref{Kind: task.KindCronTask, Namespace: "default", Name: "backup"}, UID: "u-2", App: "shop", DeadlineSeconds: 600,
		Schedule: &task.Schedule{ScheduleRules: app.ScheduleRules{Cron: rule}, History: 3},
	}
	if edit != nil {
		edit(&e)
	}
	return e
}

// state is the only task's part of the report.
func (b *box) state() task.State {
	b.t.Helper()
	synctest.Wait()
	r, ok := b.module.Report().(task.Report)
	if !ok || len(r.Tasks) != 1 {
		b.t.Fatalf("want one task, report is %+v", b.module.Report())
	}
	return r.Tasks[0]
}

func (b *box) run() task.Run {
	b.t.Helper()
	s := b.state()
	if len(s.Runs) == 0 {
		b.t.Fatalf("no run in %+v", s)
	}
	return s.Runs[0]
}

// after waits and returns the newest run.
func (b *box) after(d time.Duration) task.Run {
	b.t.Helper()
	time.Sleep(d)
	return b.run()
}

func (b *box) output(req task.OutputRequest) (string, error) {
	var out strings.Builder
	body, err := json.Marshal(req)
	if err != nil {
		b.t.Fatal(err)
	}
	err = b.calls[task.MethodOutput](b.t.Context(), body, &out)
	return out.String(), err
}

var errDeclared = errors.New("cannot run as declared")
