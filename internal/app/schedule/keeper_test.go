package schedule_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/schedule"
	"github.com/skerry-dev/skerry/internal/store"
)

// bench is a site with one schedule and a clock that the test sets.
type bench struct {
	t       *testing.T
	records *schedule.Records
	rules   app.ScheduleRules
	suspend bool
	// takes is how long a run takes.
	takes time.Duration

	mu      sync.Mutex
	off     time.Duration
	unknown bool
	told    []string
	keeper  *schedule.Keeper
}

func newBench(t *testing.T, rules app.ScheduleRules) *bench {
	return &bench{t: t, rules: rules, records: &schedule.Records{}}
}

// begin is midnight of the day at which every bubble of synctest begins.
var begin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (b *bench) clock() (time.Time, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().UTC().Add(b.off), !b.unknown
}

func (b *bench) tell(what string, at time.Time) {
	now, _ := b.clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = append(b.told, fmt.Sprintf("%s %s at %s", what, at.UTC().Format("02 15:04"), now.Format("02 15:04")))
}

func (b *bench) took() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.told
	b.told = nil
	return out
}

// life runs the schedule for a while, as one life of an agent. kill leaves its runs without an end.
func (b *bench) life(length time.Duration) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	k, err := schedule.New(schedule.Options{
		Name: "test", Rules: b.rules, Suspend: b.suspend, Clock: b.clock, Store: b.records.Of("s"), Log: slog.New(slog.DiscardHandler),
		Start: func(ctx context.Context, at time.Time) {
			b.tell("start", at)
			select {
			case <-time.After(b.takes):
			case <-ctx.Done():
				b.tell("ended", at)
			}
		},
		Resume: func(_ context.Context, at time.Time) { b.tell("resume", at) },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.keeper = k
	done := make(chan struct{})
	go func() { k.Run(ctx, ctx); close(done) }()
	time.Sleep(length)
	synctest.Wait()
	cancel()
	<-done
}

func (b *bench) want(reason string, want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.took()); diff != "" {
		b.t.Errorf("%s (-want +got):\n%s", reason, diff)
	}
}

func (b *bench) record() schedule.Record {
	rec, err := b.records.Of("s").Load()
	if err != nil {
		b.t.Fatal(err)
	}
	return rec
}

func TestRunsAtItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, app.ScheduleRules{Cron: "0 */2 * * *"})
		b.life(4*time.Hour + time.Minute)
		b.want("a schedule makes up for nothing before it was made", "start 01 02:00 at 01 02:00", "start 01 04:00 at 01 04:00")
		if next := b.keeper.State().Next; !next.Equal(begin.Add(6 * time.Hour)) {
			t.Errorf("next is %s", next)
		}
	})
}

// TestMissed has a site off from half past two to half past eight.
func TestMissed(t *testing.T) {
	for name, row := range map[string]struct {
		reason   string
		missed   app.Missed
		deadline int
		want     []string
		lost     uint64
	}{
		"skip":    {"times that passed are left out", app.MissedSkip, 0, []string{"start 01 09:00 at 01 09:00"}, 6},
		"default": {"which is the default", "", 0, []string{"start 01 09:00 at 01 09:00"}, 6},
		"once":    {"one run makes up for all, that of the newest time", app.MissedRunOnce, 0, []string{"start 01 08:00 at 01 08:30", "start 01 09:00 at 01 09:00"}, 5},
		"all": {
			"each is made up for, one after the other", app.MissedRunAll, 0,
			[]string{
				"start 01 03:00 at 01 08:30", "start 01 04:00 at 01 08:30", "start 01 05:00 at 01 08:30", "start 01 06:00 at 01 08:30",
				"start 01 07:00 at 01 08:30", "start 01 08:00 at 01 08:30", "start 01 09:00 at 01 09:00",
			}, 0,
		},
		"all, in time": {
			"what is later than startingDeadline is left out", app.MissedRunAll, 2 * 60 * 60,
			[]string{"start 01 07:00 at 01 08:30", "start 01 08:00 at 01 08:30", "start 01 09:00 at 01 09:00"}, 0,
		},
		"once, too late": {"one run is late as well", app.MissedRunOnce, 10 * 60, []string{"start 01 09:00 at 01 09:00"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, app.ScheduleRules{Cron: "0 * * * *", Missed: row.missed, StartingDeadlineSeconds: row.deadline})
				b.life(150 * time.Minute)
				b.took()
				time.Sleep(6 * time.Hour)
				b.life(45 * time.Minute)
				b.want(row.reason, row.want...)
				if got := b.record().Missed; got != row.lost {
					t.Errorf("%d are told as missed, want %d", got, row.lost)
				}
			})
		})
	}
}

func TestMissedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, app.ScheduleRules{Cron: "* * * * *", Missed: app.MissedRunAll})
		b.life(time.Second)
		time.Sleep(365 * 24 * time.Hour)
		begun := time.Now()
		b.life(time.Second)
		got := b.took()
		if len(got) != app.MaxMissedRuns {
			t.Fatalf("%d runs make up for a year", len(got))
		}
		if want := "start " + begun.UTC().Format("02 15:04"); !slices.ContainsFunc(got[len(got)-2:], func(s string) bool { return s[:len(want)] == want }) {
			t.Errorf("it is not the newest that are made up for: %v", got)
		}
	})
}

func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, app.ScheduleRules{Cron: "0 * * * *", Missed: app.MissedRunAll})
		b.life(90 * time.Minute)
		b.want("an hour has passed", "start 01 01:00 at 01 01:00")
		b.off = -time.Hour // it is half past twelve again
		b.life(45 * time.Minute)
		b.want("one o'clock comes again, and was decided on")
		b.life(time.Hour)
		b.want("two o'clock comes for the first time", "start 01 02:00 at 01 02:00")
	})
}

// TestRecordFromTheFuture has a record that was made while the clock was years ahead.
func TestRecordFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, app.ScheduleRules{Cron: "0 * * * *", Missed: app.MissedRunAll})
		b.off = 40 * 365 * 24 * time.Hour
		b.life(time.Minute)
		b.took()
		b.off = 0
		b.life(2 * time.Hour)
		b.want("a schedule does not wait forty years", "start 01 01:00 at 01 01:00", "start 01 02:00 at 01 02:00")
	})
}

func TestTimeUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, app.ScheduleRules{Cron: "0 * * * *", Missed: app.MissedRunOnce})
		b.life(time.Minute)
		b.unknown = true
		b.life(5 * time.Hour)
		b.want("nothing runs while nobody knows the time")
		if b.keeper.State().Paused == "" || !b.keeper.State().Next.IsZero() {
			t.Errorf("state %+v does not say so", b.keeper.State())
		}
		b.unknown = false
		b.life(time.Minute)
		b.want("then it is as after an outage", "start 01 05:00 at 01 05:01")
		if b.keeper.State().Paused != "" {
			t.Errorf("it still says %q", b.keeper.State().Paused)
		}
	})
}

func TestConcurrency(t *testing.T) {
	for name, row := range map[string]struct {
		reason      string
		concurrency app.Concurrency
		want        []string
		skipped     uint64
	}{
		"forbid": {"a time at which the run before goes on is left out", app.ConcurrencyForbid, []string{
			"start 01 01:00 at 01 01:00", "start 01 03:00 at 01 03:00"}, 1},
		"default": {"which is the default", "", []string{"start 01 01:00 at 01 01:00", "start 01 03:00 at 01 03:00"}, 1},
		"allow": {"runs go beside each other", app.ConcurrencyAllow, []string{
			"start 01 01:00 at 01 01:00", "start 01 02:00 at 01 02:00", "start 01 03:00 at 01 03:00"}, 0},
		"replace": {"the old run is ended first", app.ConcurrencyReplace, []string{
			"start 01 01:00 at 01 01:00", "ended 01 01:00 at 01 02:00", "start 01 02:00 at 01 02:00",
			"ended 01 02:00 at 01 03:00", "start 01 03:00 at 01 03:00"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, app.ScheduleRules{Cron: "0 * * * *", Concurrency: row.concurrency})
				b.takes = 90 * time.Minute
				b.life(185 * time.Minute)
				got := b.took()
				got = slices.DeleteFunc(got, func(s string) bool { return s[:5] == "ended" && s[len(s)-5:] == "03:05" }) // at the end of its life
				if diff := cmp.Diff(row.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", row.reason, diff)
				}
				if b.record().Skipped != row.skipped {
					t.Errorf("%d are told as left out, want %d", b.record().Skipped, row.skipped)
				}
			})
		})
	}
}

// TestCrash has an agent end between the record of a run and its end: the run is resumed, once, and no time is
// decided on again.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, app.ScheduleRules{Cron: "0 * * * *", Missed: app.MissedRunAll})
		b.takes = 30 * time.Minute
		b.life(65 * time.Minute) // ends while the run of one o'clock goes on
		b.want("it began", "start 01 01:00 at 01 01:00", "ended 01 01:00 at 01 01:05")
		if rec := b.record(); len(rec.Begun) != 1 {
			t.Fatalf("record %+v", rec)
		}
		b.life(time.Minute)
		b.want("the next life looks at it, and does not start it", "resume 01 01:00 at 01 01:05")
		b.life(time.Minute)
		b.want("and once")
	})
}

func TestSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, app.ScheduleRules{Cron: "0 * * * *", Missed: app.MissedRunAll})
		b.suspend = true
		b.life(3 * time.Hour)
		b.want("nothing runs")
		b.suspend = false
		b.life(90 * time.Minute)
		b.want("what passed meanwhile is not made up for", "start 01 04:00 at 01 04:00")
	})
}

func TestChangedSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, app.ScheduleRules{Cron: "0 * * * *", Missed: app.MissedRunAll})
		b.life(30 * time.Minute)
		b.rules.Cron = "*/10 * * * *"
		time.Sleep(time.Hour)
		b.life(time.Minute)
		b.want("times of another schedule are not made up for")
	})
}

// TestOnDisk holds the record to outlive the program, and a damaged one to be as none.
func TestOnDisk(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	bucket, err := s.Bucket("schedules")
	if err != nil {
		t.Fatal(err)
	}
	want := schedule.Record{Rule: "x UTC", Last: begin, Queue: []time.Time{begin}, Begun: []time.Time{begin}, Skipped: 1, Missed: 2}
	place := (&schedule.Records{Bucket: bucket}).Of("a/b")
	if err := place.Update(func(schedule.Record) schedule.Record { return want }); err != nil {
		t.Fatal(err)
	}
	other := &schedule.Records{Bucket: bucket}
	got, err := other.Of("a/b").Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if err := bucket.Put("a/b", "no record"); err != nil {
		t.Fatal(err)
	}
	if got, err := other.Of("a/b").Load(); err != nil || got.Rule != "" {
		t.Errorf("a damaged record is %+v, %v", got, err)
	}
	if err := other.Forget("a/b"); err != nil {
		t.Fatal(err)
	}
}
