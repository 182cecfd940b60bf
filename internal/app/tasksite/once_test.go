package tasksite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
)

func TestOnce(t *testing.T) {
	for name, row := range map[string]struct {
		reason string
		play   play
		edit   func(*task.Entry)
		within time.Duration
		want   task.Run // times left out
		tries  int
	}{
		"succeeds": {"it ends with 0", play{{takes: time.Second, prints: "done\n"}}, nil, time.Minute,
			task.Run{Phase: task.PhaseSucceeded, Attempt: 1, Tail: "done\n"}, 1},
		"fails": {"it is not tried again unless that is asked for", play{{exit: 3, prints: "broken"}}, nil, time.Minute,
			task.Run{Phase: task.PhaseFailed, Attempt: 1, ExitCode: 3, Message: "exited with status 3", Tail: "broken"}, 1},
		"retried": {"the second try does better", play{{exit: 3}, {}}, func(e *task.Entry) { e.Retries = 2 }, time.Minute,
			task.Run{Phase: task.PhaseSucceeded, Attempt: 2}, 2},
		"retried in vain": {"tries are counted", play{{exit: 3}}, func(e *task.Entry) { e.Retries = 2 }, time.Minute,
			task.Run{Phase: task.PhaseFailed, Attempt: 3, ExitCode: 3, Message: "exited with status 3"}, 3},
		"paused": {"the pause between tries grows: 10 s, 20 s", play{{exit: 3}}, func(e *task.Entry) { e.Retries = 2 }, 29 * time.Second,
			task.Run{Phase: task.PhaseRunning, Attempt: 2, ExitCode: 3, Message: "try 2 of 3: exited with status 3"}, 2},
		"too long": {"a run is ended at its deadline", play{{takes: time.Hour}}, nil, 2 * time.Minute,
			task.Run{Phase: task.PhaseFailed, Attempt: 1, ExitCode: -1, Message: "it took longer than the deadline of 1m0s and was ended"}, 1},
		"undeclared": {"what can never begin is a failure, and is not tried for ever", play{{err: errDeclared}}, nil, time.Minute,
			task.Run{Phase: task.PhaseFailed, Attempt: 1, ExitCode: -1, Message: errDeclared.Error()}, 1},
		"in time": {"it begins before startBy", play{{}}, func(e *task.Entry) { e.StartBy = time.Now().Add(time.Minute).Unix() }, time.Second,
			task.Run{Phase: task.PhaseSucceeded, Attempt: 1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, row.play, func(b *box) {
				b.apply(entry(row.edit))
				got := b.after(row.within)
				if got.Phase.Final() && (got.Started == 0 || got.Finished < got.Started) {
					t.Errorf("times %d to %d", got.Started, got.Finished)
				}
				got.Started, got.Finished = 0, 0
				if diff := cmp.Diff(row.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", row.reason, diff)
				}
				if n := len(b.stage.ran()); n != row.tries {
					t.Errorf("%d tries", n)
				}
			})
		})
	}
}

func TestWhatRuns(t *testing.T) {
	bubble(t, play{{}}, func(b *box) {
		b.apply(entry(func(e *task.Entry) {
			e.Bundle, e.App = nil, "shop"
			e.Command, e.Args, e.Env = []string{"bin/x"}, []string{"a"}, map[string]string{"A": "b"}
		}))
		b.after(time.Second)
		j := b.stage.jobs[0]
		j.Output = nil
		want := appsite.Job{
			Key: ref.Key(), App: fleet.AppKey{Namespace: "default", Name: "shop"}, ID: "task.u-1.run.1", Env: map[string]string{"A": "b"},
			Run: appsite.Run{Name: "clean", Command: []string{"bin/x"}, Args: []string{"a"}},
		}
		if diff := cmp.Diff(want, j); diff != "" {
			t.Errorf("job (-want +got):\n%s", diff)
		}
		if b.stage.prepared != 0 {
			t.Error("a bundle was fetched for a task of an app")
		}
	})
}

// TestInterrupted has the machine lose its power in the middle of a run.
func TestInterrupted(t *testing.T) {
	for name, row := range map[string]struct {
		reason  string
		retries int
		want    task.Run
		tries   int
	}{
		"no retries": {"a run that may have done half of its work is not begun again", 0,
			task.Run{Phase: task.PhaseFailed, Attempt: 1, ExitCode: -1, Message: "interrupted: the agent or the machine stopped while it ran"}, 1},
		"retries": {"unless it says that it may be", 1, task.Run{Phase: task.PhaseSucceeded, Attempt: 2}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, play{{kills: true, prints: "half"}, {prints: " whole"}}, func(b *box) {
				// The record of the moment at which the power goes is what the next life finds.
				var left []byte
				b.stage.lost = func() {
					var err error
					if left, err = os.ReadFile(filepath.Join(b.dir, "store.db")); err != nil {
						t.Error(err)
					}
				}
				b.apply(entry(func(e *task.Entry) { e.Retries = row.retries }))
				time.Sleep(time.Second)
				b.halt()
				if err := os.WriteFile(filepath.Join(b.dir, "store.db"), left, 0o600); err != nil {
					t.Fatal(err)
				}
				b.boot()
				got := b.after(time.Minute)
				got.Started, got.Finished, got.Tail = 0, 0, ""
				if diff := cmp.Diff(row.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", row.reason, diff)
				}
				if n := len(b.stage.ran()); n != row.tries {
					t.Errorf("%d tries", n)
				}
				out, err := b.output(task.OutputRequest{Ref: ref, UID: "u-1"})
				if err != nil || !strings.HasPrefix(out, "half") {
					t.Errorf("output %q, %v", out, err)
				}
			})
		})
	}
}

func TestDoneIsDone(t *testing.T) {
	bubble(t, play{{prints: "once\n"}}, func(b *box) {
		b.apply(entry(nil))
		b.after(time.Second)
		b.reboot(time.Hour)
		b.after(time.Hour)
		b.apply(entry(func(e *task.Entry) { e.Bundle.Release = "clean-2" })) // the site got another label
		if run := b.after(time.Hour); run.Phase != task.PhaseSucceeded || run.Tail != "once\n" {
			t.Errorf("run %+v", run)
		}
		if n := len(b.stage.ran()); n != 1 {
			t.Errorf("it ran %d times", n)
		}
	})
}

// TestToldAgain has a hub that lost what it told, and tells it anew.
func TestToldAgain(t *testing.T) {
	bubble(t, play{{prints: "once\n"}}, func(b *box) {
		b.apply(entry(nil))
		b.after(time.Second)
		b.apply()
		time.Sleep(time.Second)
		if b.module.Report() != nil {
			t.Errorf("a task that left is still reported: %+v", b.module.Report())
		}
		if _, err := os.Stat(filepath.Join(b.dir, "tasks", "output", "u-1")); err == nil {
			t.Error("its output is still there")
		}
		if _, err := b.output(task.OutputRequest{Ref: ref, UID: "u-1"}); err == nil {
			t.Error("its output is still shown")
		}
		b.reboot(time.Hour)
		b.apply(entry(nil))
		if run := b.after(time.Minute); run.Phase != task.PhaseSucceeded {
			t.Errorf("run %+v", run)
		}
		b.apply(entry(func(e *task.Entry) { e.UID = "u-9" }))
		if run := b.after(time.Minute); run.Phase != task.PhaseSucceeded {
			t.Errorf("run %+v", run)
		}
		if diff := cmp.Diff([]string{"task.u-1.run.1", "task.u-9.run.1"}, b.stage.ran()); diff != "" {
			t.Errorf("a task ran again, or another of its name did not (-want +got):\n%s", diff)
		}
	})
}

// TestAnotherMachine has a site whose disk is new told of a task that its old one ran.
func TestAnotherMachine(t *testing.T) {
	bubble(t, play{{}}, func(b *box) {
		b.apply(entry(func(e *task.Entry) { e.Done = true }))
		if run := b.after(time.Minute); run.Phase != task.PhaseMissed || len(b.stage.ran()) != 0 {
			t.Errorf("run %+v", run)
		}
	})
	bubble(t, play{{}}, func(b *box) {
		b.apply(entry(nil))
		b.after(time.Second)
		b.apply(entry(func(e *task.Entry) { e.Done = true }))
		if run := b.after(time.Second); run.Phase != task.PhaseSucceeded {
			t.Errorf("what a site knows is not changed by it: %+v", run)
		}
	})
}

func TestStartBy(t *testing.T) {
	by := func(d time.Duration) func(*task.Entry) {
		return func(e *task.Entry) { e.StartBy = time.Now().Add(d).Unix() }
	}
	t.Run("a site that hears of it too late does not run it", func(t *testing.T) {
		bubble(t, play{{}}, func(b *box) {
			b.apply(entry(by(-time.Minute)))
			if run := b.after(time.Second); run.Phase != task.PhaseMissed || len(b.stage.ran()) != 0 {
				t.Errorf("run %+v", run)
			}
			if diff := cmp.Diff([]string{"TaskMissed default/clean"}, b.events.lines); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("nor one whose network comes back too late", func(t *testing.T) {
		bubble(t, play{{}}, func(b *box) {
			b.stage.offline = true
			b.apply(entry(by(time.Minute)))
			if run := b.after(30 * time.Second); run.Phase != task.PhasePending || b.state().Message == "" {
				t.Errorf("run %+v, %+v", run, b.state())
			}
			if run := b.after(time.Minute); run.Phase != task.PhaseMissed {
				t.Errorf("run %+v", run)
			}
		})
	})
	t.Run("one that does not know the time waits for it", func(t *testing.T) {
		bubble(t, play{{}}, func(b *box) {
			b.unknown.Store(true)
			b.apply(entry(by(time.Hour)))
			if run := b.after(time.Minute); run.Phase != task.PhasePending || !strings.Contains(b.state().Message, "time is not known") {
				t.Errorf("run %+v, %+v", run, b.state())
			}
			b.unknown.Store(false)
			if run := b.after(time.Minute); run.Phase != task.PhaseSucceeded {
				t.Errorf("run %+v", run)
			}
		})
	})
	t.Run("the site's own clock has no say", func(t *testing.T) {
		bubble(t, play{{}}, func(b *box) {
			b.off = -10 * 365 * 24 * time.Hour
			b.apply(entry(by(-time.Minute - 10*365*24*time.Hour)))
			if run := b.after(time.Second); run.Phase != task.PhaseMissed {
				t.Errorf("run %+v", run)
			}
		})
	})
}

func TestCancel(t *testing.T) {
	cancelled := func(e *task.Entry) { e.Cancel = true }
	t.Run("a run under way is ended", func(t *testing.T) {
		bubble(t, play{{takes: 30 * time.Second}}, func(b *box) {
			b.apply(entry(nil))
			if run := b.after(time.Second); run.Phase != task.PhaseRunning {
				t.Fatalf("run %+v", run)
			}
			b.apply(entry(cancelled))
			if run := b.after(time.Second); run.Phase != task.PhaseCancelled || run.Attempt != 1 {
				t.Errorf("run %+v", run)
			}
		})
	})
	t.Run("one that did not begin does not", func(t *testing.T) {
		bubble(t, play{{}}, func(b *box) {
			b.apply(entry(cancelled))
			if run := b.after(time.Second); run.Phase != task.PhaseCancelled || len(b.stage.ran()) != 0 {
				t.Errorf("run %+v", run)
			}
		})
	})
	t.Run("one that is over stays as it is", func(t *testing.T) {
		bubble(t, play{{}}, func(b *box) {
			b.apply(entry(nil))
			b.after(time.Second)
			b.apply(entry(cancelled))
			if run := b.after(time.Second); run.Phase != task.PhaseSucceeded {
				t.Errorf("run %+v", run)
			}
		})
	})
	t.Run("a task that is taken away is ended", func(t *testing.T) {
		bubble(t, play{{takes: 30 * time.Second}}, func(b *box) {
			b.apply(entry(nil))
			b.after(time.Second)
			b.apply()
			time.Sleep(time.Second)
			if diff := cmp.Diff([]string{ref.Key().Name}, b.stage.forgot); diff != "" || b.module.Report() != nil {
				t.Errorf("it is still here: %+v\n%s", b.module.Report(), diff)
			}
		})
	})
}

func TestAsManyAsMayBe(t *testing.T) {
	bubble(t, play{{takes: time.Minute}}, func(b *box) {
		var entries []task.Entry
		for i := range 6 {
			entries = append(entries, entry(func(e *task.Entry) {
				e.Name, e.UID, e.DeadlineSeconds = fmt.Sprintf("t%d", i), fmt.Sprintf("u-%d", i), 600
				e.Bundle.App = e.Ref.Key()
			}))
		}
		b.apply(entries...)
		time.Sleep(time.Second)
		if n := len(b.stage.ran()); n != 4 {
			t.Errorf("%d run at once", n)
		}
		waiting := 0
		for _, s := range b.module.Report().(task.Report).Tasks {
			if strings.Contains(s.Message, "4 runs are under way") {
				waiting++
			}
		}
		if waiting != 2 {
			t.Errorf("%d say what they wait for", waiting)
		}
		time.Sleep(3 * time.Minute)
		if n := len(b.stage.ran()); n != 6 {
			t.Errorf("%d ran in all", n)
		}
	})
}

func TestOutputIsBounded(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	bubble(t, play{{prints: strings.Repeat(line, 100) + "the end\n"}}, func(b *box) {
		b.opts.OutputBytes = 4 << 10
		b.reboot(0)
		b.apply(entry(nil))
		b.after(time.Second)
		out, err := b.output(task.OutputRequest{Ref: ref, UID: "u-1"})
		if err != nil {
			t.Fatal(err)
		}
		if len(out) > 4<<10 || len(out) < 2<<10 || !strings.HasSuffix(out, "x\nthe end\n") {
			t.Errorf("%d bytes are kept, which end with %q", len(out), task.Tail(out, 20))
		}
		for name, req := range map[string]task.OutputRequest{
			"another task": {Ref: task.Ref{Kind: task.KindTask, Namespace: "other", Name: "clean"}, UID: "u-1"},
			"another uid":  {Ref: ref, UID: "u-2"},
			"another run":  {Ref: ref, UID: "u-1", Run: 1},
			"a bad run":    {Ref: ref, UID: "u-1", Run: -1},
		} {
			if out, err := b.output(req); err == nil {
				t.Errorf("%s is shown: %q", name, out)
			}
		}
	})
}

func TestWipe(t *testing.T) {
	bubble(t, play{{takes: time.Hour, prints: "x"}}, func(b *box) {
		b.apply(entry(func(e *task.Entry) { e.DeadlineSeconds = 7200 }))
		b.after(time.Second)
		if err := b.module.Wipe(b.t.Context()); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(filepath.Join(b.dir, "tasks"))
		if err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
		bucket, err := b.store.Bucket("tasks")
		if err != nil {
			t.Fatal(err)
		}
		if keys, err := bucket.Keys(); err != nil || len(keys) > 0 {
			t.Errorf("records %v, %v", keys, err)
		}
	})
}
