package wasm

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
)

func TestRunToEnd(t *testing.T) {
	k := newKitchen(t, nil)
	for name, row := range map[string]struct {
		reason string
		task   string
		within time.Duration
		want   appsite.Outcome
		prints string
	}{
		"succeeds": {"a module that ends with 0", "cleans", time.Minute, appsite.Outcome{}, "task cleans a,b c\n"},
		"fails":    {"its exit code is told", "fails", time.Minute, appsite.Outcome{ExitCode: 4, Reason: "The app failed. It ended with exit code 4."}, "task fails a,b c\n"},
		"ended":    {"one that does not end is ended", "stays", time.Second, appsite.Outcome{ExitCode: -1, Reason: "stopped"}, "task stays a,b c\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out := &buffer{}
			spec := k.spec(name, goGuest(t, "kitchen"), nil)
			spec.Stdout, spec.Stderr = out, out
			ctx, cancel := context.WithTimeout(t.Context(), row.within)
			defer cancel()
			got, err := k.rt.RunToEnd(ctx, spec, appsite.Run{Name: row.task, Args: []string{"a", "b c"}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" || out.String() != row.prints {
				t.Errorf("%s (-want +got):\n%s\nit printed:\n%s", row.reason, diff, out)
			}
		})
	}
	if n := k.rt.guests.Load(); n != 0 {
		t.Errorf("%d instances are left", n)
	}
}

func TestRunToEndOfAnotherModule(t *testing.T) {
	k := newKitchen(t, nil)
	spec := k.spec("two", goGuest(t, "kitchen"), nil)
	data, err := os.ReadFile(spec.Dir + "/app.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(spec.Dir+"/second.wasm", data, 0o644); err != nil {
		t.Fatal(err)
	}
	out := &buffer{}
	spec.Stdout, spec.Stderr = out, out
	if _, err := k.rt.RunToEnd(t.Context(), spec, appsite.Run{Name: "x", Command: []string{"second.wasm", "a"}, Args: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "task x a,b\n" {
		t.Errorf("it printed %q", out)
	}
	if spec.Config.Wasm.Module != "app.wasm" {
		t.Error("the caller's configuration was changed")
	}
	_, err = k.rt.RunToEnd(t.Context(), spec, appsite.Run{Name: "x", Command: []string{"third.wasm"}})
	if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), "third.wasm") {
		t.Errorf("a module that is not there: %v", err)
	}
}

// TestSchedulesOutliveTheAgent has the machine off over two times of a schedule that makes up for one.
func TestSchedulesOutliveTheAgent(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)
	k := newKitchen(t, func(o *Options) { o.Clock = func() (time.Time, bool) { return now, true } })
	run := func() *dish {
		return k.start(k.spec("night", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) {
			c.Schedules = []app.WasmSchedule{{Name: "tidy", ScheduleRules: app.ScheduleRules{Cron: "0 * * * *", Missed: app.MissedRunOnce}}}
		}))
	}
	look := func() schedulesRecord {
		rec, err := k.rt.schedules.Of("default/night/tidy").Load()
		if err != nil {
			t.Fatal(err)
		}
		return schedulesRecord{rec.Last, rec.Missed}
	}
	first := run()
	eventually(t, "the first look", func() bool { return !look().last.IsZero() })
	first.end()
	if strings.Contains(first.out.String(), "task tidy") {
		t.Errorf("a new schedule ran:\n%s", first.out)
	}
	now = now.Add(135 * time.Minute)
	second := run()
	eventually(t, "the run that makes up", func() bool { return strings.Contains(second.out.String(), "task tidy") })
	if got := look(); !got.last.Equal(time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)) || got.missed != 1 {
		t.Errorf("record %+v", got)
	}
}

type schedulesRecord struct {
	last   time.Time
	missed uint64
}
