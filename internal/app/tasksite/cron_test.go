package tasksite_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// A bubble begins at midnight.
var midnight = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func at(hours, minutes int) int64 {
	return midnight.Add(time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute).Unix()
}

func (b *box) times() []int64 {
	b.t.Helper()
	var out []int64
	for _, run := range b.state().Runs {
		out = append(out, run.Time)
	}
	return out
}

func TestScheduleRunsAndRemembers(t *testing.T) {
	bubble(t, play{{takes: time.Second, prints: "a"}, {exit: 2, prints: "b"}, {prints: "c"}}, func(b *box) {
		b.apply(cron("0 * * * *", func(e *task.Entry) { e.Schedule.History = 2 }))
		if next := b.state().Next; next != at(1, 0) {
			t.Errorf("next is %d", next)
		}
		time.Sleep(130 * time.Minute)
		s := b.state()
		if len(s.Runs) != 2 || s.Runs[0].Phase != task.PhaseFailed || s.Runs[0].ExitCode != 2 || s.Runs[1].Phase != task.PhaseSucceeded {
			t.Fatalf("runs %+v", s.Runs)
		}
		if diff := cmp.Diff([]string{"TaskFailed default/shop"}, b.events.lines); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		b.reboot(10 * time.Minute)
		time.Sleep(time.Hour)
		if diff := cmp.Diff([]int64{at(3, 0), at(2, 0)}, b.times()); diff != "" {
			t.Errorf("the runs that are kept (-want +got):\n%s", diff)
		}
		req := task.OutputRequest{Ref: cron("@daily", nil).Ref, UID: "u-2"}
		for n, want := range []string{"c", "b"} {
			req.Run = n
			if out, err := b.output(req); err != nil || out != want {
				t.Errorf("run %d printed %q, %v", n, out, err)
			}
		}
	})
}

func TestScheduleAfterAnOutage(t *testing.T) {
	for name, row := range map[string]struct {
		missed app.Missed
		want   []int64
	}{
		"skip": {app.MissedSkip, []int64{at(1, 0)}},
		"once": {app.MissedRunOnce, []int64{at(5, 0), at(1, 0)}},
		"all":  {app.MissedRunAll, []int64{at(5, 0), at(4, 0), at(3, 0), at(2, 0), at(1, 0)}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, play{{}}, func(b *box) {
				b.apply(cron("0 * * * *", func(e *task.Entry) { e.Schedule.Missed, e.Schedule.History = row.missed, 10 }))
				time.Sleep(90 * time.Minute)
				b.reboot(4 * time.Hour)
				time.Sleep(time.Minute)
				if diff := cmp.Diff(row.want, b.times()); diff != "" {
					t.Errorf("runs (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestScheduleInterrupted has the agent stop while a run goes on.
func TestScheduleInterrupted(t *testing.T) {
	for name, row := range map[string]struct {
		retries int
		want    task.Phase
		attempt int
	}{"no retries": {0, task.PhaseFailed, 1}, "retries": {1, task.PhaseSucceeded, 2}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, play{{takes: 5 * time.Minute}, {}}, func(b *box) {
				b.apply(cron("0 * * * *", func(e *task.Entry) { e.Retries = row.retries }))
				time.Sleep(61 * time.Minute)
				b.reboot(time.Minute)
				run := b.after(time.Minute)
				if run.Time != at(1, 0) || run.Phase != row.want || run.Attempt != row.attempt {
					t.Errorf("run %+v", run)
				}
				if n := len(b.stage.ran()); n != row.attempt {
					t.Errorf("%d tries", n)
				}
			})
		})
	}
}

// TestChangedScheduleLetsRunsEnd changes a schedule while it runs.
func TestChangedScheduleLetsRunsEnd(t *testing.T) {
	bubble(t, play{{takes: 5 * time.Minute}, {}}, func(b *box) {
		b.apply(cron("0 * * * *", nil))
		time.Sleep(61 * time.Minute)
		b.apply(cron("30 * * * *", nil))
		if run := b.after(10 * time.Minute); run.Phase != task.PhaseSucceeded || run.Time != at(1, 0) {
			t.Errorf("the run under way: %+v", run)
		}
		if next := b.state().Next; next != at(1, 30) {
			t.Errorf("next is %d", next)
		}
		b.apply(cron("30 * * * *", func(e *task.Entry) { e.Schedule.Suspend = true }))
		time.Sleep(3 * time.Hour)
		if s := b.state(); s.Message != "suspended" || s.Next != 0 || len(s.Runs) != 1 {
			t.Errorf("suspended: %+v", s)
		}
		b.apply()
		time.Sleep(time.Minute)
		if b.module.Report() != nil {
			t.Errorf("a schedule that left is still here: %+v", b.module.Report())
		}
	})
}

func TestScheduleInTheSitesTimeZone(t *testing.T) {
	bubble(t, play{{}}, func(b *box) {
		tell := func(zone string) {
			body, err := task.Section{Facts: fleet.Facts{Name: "shop-1", TimeZone: zone}, Tasks: []task.Entry{cron("0 12 * * *", nil)}}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			b.applyBody(body)
		}
		for zone, want := range map[string]int64{"Asia/Tokyo": at(3, 0), "": at(12, 0), "Middle/Earth": at(12, 0)} {
			tell(zone)
			time.Sleep(time.Second)
			if next := b.state().Next; next != want {
				t.Errorf("in %q next is %s", zone, time.Unix(next, 0).UTC())
			}
			if said := b.state().Message; (said != "") != (zone == "Middle/Earth") {
				t.Errorf("in %q it says %q", zone, said)
			}
		}
	})
}

// TestScheduleOfAnAppThatIsNotHere gives up after the deadline, so that one run does not wait for ever.
func TestScheduleOfAnAppThatIsNotHere(t *testing.T) {
	bubble(t, play{{err: appsite.ErrNotYet}}, func(b *box) {
		b.apply(cron("0 * * * *", nil))
		time.Sleep(65 * time.Minute)
		if run := b.run(); run.Phase != task.PhasePending || b.state().Message == "" {
			t.Errorf("run %+v, %+v", run, b.state())
		}
		if run := b.after(10 * time.Minute); run.Phase != task.PhaseMissed || run.Time != at(1, 0) {
			t.Errorf("run %+v", run)
		}
	})
}

func TestScheduleWithoutTime(t *testing.T) {
	bubble(t, play{{}}, func(b *box) {
		b.unknown.Store(true)
		b.apply(cron("0 * * * *", nil))
		time.Sleep(3 * time.Hour)
		if s := b.state(); len(s.Runs) != 0 || s.Message == "" || s.Next != 0 {
			t.Errorf("state %+v", s)
		}
	})
}
