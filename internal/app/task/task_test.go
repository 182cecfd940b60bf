package task_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

func TestSectionTravels(t *testing.T) {
	want := task.Section{Facts: fleet.Facts{Name: "shop-1"}, Tasks: []task.Entry{ofBundle(), ofApp()}}
	body, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := task.DecodeSection(body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("section (-want +got):\n%s", diff)
	}
}

func TestRefusedSections(t *testing.T) {
	for name, row := range map[string]struct {
		reason string
		breaks func(*task.Entry)
		want   string
	}{
		"kind":        {"a kind that nobody knows", func(e *task.Entry) { e.Kind = "Job" }, `kind "Job"`},
		"name":        {"names are directories at the site", func(e *task.Entry) { e.Name = "../x" }, `app "../x"`},
		"uid":         {"so are uids", func(e *task.Entry) { e.UID = "../x" }, "uid"},
		"no uid":      {"what became of it is known by its uid", func(e *task.Entry) { e.UID = "" }, "uid"},
		"nothing":     {"there is nothing to run", func(e *task.Entry) { e.Bundle = nil }, "one of bundle and app"},
		"both":        {"nobody can say what to run", func(e *task.Entry) { e.App = "shop" }, "one of bundle and app"},
		"another key": {"a task must not have the data of an app", func(e *task.Entry) { e.Bundle.App.Name = "shop" }, "not the task's own key"},
		"bundle":      {"a bundle without a digest", func(e *task.Entry) { e.Bundle.Bundle.Digest = "x" }, "bundle.digest"},
		"command":     {"a program of the machine is none of the bundle", func(e *task.Entry) { e.Command = []string{"/bin/sh"} }, "command[0]"},
		"argument":    {"no program can be given a zero byte", func(e *task.Entry) { e.Args = []string{"a\x00b"} }, "zero byte"},
		"variable":    {"the agent's own variables", func(e *task.Entry) { e.Env = map[string]string{"SKERRY_SITE": "x"} }, "SKERRY_SITE"},
		"deadline":    {"every run ends", func(e *task.Entry) { e.DeadlineSeconds = 0 }, "deadlineSeconds 0"},
		"retries":     {"and is tried a bounded number of times", func(e *task.Entry) { e.Retries = 11 }, "retries 11"},
		"no schedule": {"a CronTask without times", func(e *task.Entry) { e.Ref = often; e.Bundle.App = often.Key() }, "a CronTask has a schedule"},
		"cron": {"a time that never comes", func(e *task.Entry) {
			e.Ref, e.Schedule = often, &task.Schedule{ScheduleRules: app.ScheduleRules{Cron: "0 0 31 2 *"}, History: 1}
			e.Bundle.App = often.Key()
		}, "never comes"},
		"history": {"history is bounded", func(e *task.Entry) {
			e.Ref, e.Schedule = often, &task.Schedule{ScheduleRules: app.ScheduleRules{Cron: "@daily"}, History: 11}
			e.Bundle.App = often.Key()
		}, "schedule.history"},
	} {
		t.Run(name, func(t *testing.T) {
			e := ofBundle()
			row.breaks(&e)
			body, err := task.Section{Tasks: []task.Entry{e}}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			_, err = task.DecodeSection(body)
			if !errors.Is(err, wire.ErrMessage) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: error %v, want one that says %q", row.reason, err, row.want)
			}
		})
	}
	twice, err := task.Section{Tasks: []task.Entry{ofBundle(), ofBundle()}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := task.DecodeSection(twice); !errors.Is(err, wire.ErrMessage) {
		t.Errorf("a task that is named twice: %v", err)
	}
}

func TestTooMany(t *testing.T) {
	var s task.Section
	for i := range task.MaxTasks + 1 {
		e := ofApp()
		e.Name = fmt.Sprintf("t%d", i)
		s.Tasks = append(s.Tasks, e)
	}
	if _, err := s.Encode(); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("error %v", err)
	}
}

// TestReportIsBounded has as many tasks as may be, each with as much to say as can be.
func TestReportIsBounded(t *testing.T) {
	var full task.Report
	for i := range task.MaxTasks {
		s := task.State{Ref: often, UID: fmt.Sprintf("%036d", i), Message: strings.Repeat("ä", 1000), Digest: string(digest)}
		for range task.MaxHistory {
			s.Runs = append(s.Runs, task.Run{Phase: task.PhaseFailed, Message: strings.Repeat("\x01", 1000), Tail: strings.Repeat("\"€", 2000)})
		}
		full.Tasks = append(full.Tasks, s)
	}
	data, err := wire.EncodeJSON("report", full.Bounded())
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 128<<10 {
		t.Errorf("the report has %d bytes", len(data))
	}
	small := task.Report{Tasks: full.Tasks[:2]}
	for _, s := range small.Bounded().Tasks {
		if len(s.Runs) != task.MaxHistory || s.Runs[0].Tail == "" || len(s.Runs[0].Tail) > task.MaxTail || !utf8.ValidString(s.Runs[0].Tail) {
			t.Errorf("a small report lost something: %d runs, tail of %d bytes", len(s.Runs), len(s.Runs[0].Tail))
		}
	}
	if len(full.Tasks[0].Runs) != task.MaxHistory || len(full.Tasks[0].Runs[0].Tail) == 0 {
		t.Error("the report itself was changed")
	}
}

var now = time.Unix(1700000000, 0)

func said(phase task.Phase) *task.State { return &task.State{Runs: []task.Run{{Phase: phase}}} }

func TestStanding(t *testing.T) {
	for name, row := range map[string]struct {
		reason string
		state  task.SiteState
		want   task.Standing
	}{
		"new":        {"its turn has not come", task.SiteState{Link: fleet.LinkConnected}, task.StandingWaiting},
		"told":       {"it was told and has said nothing yet", task.SiteState{Link: fleet.LinkConnected, Told: true}, task.StandingWaiting},
		"away":       {"nothing is known of it", task.SiteState{Link: fleet.LinkAway, Told: true}, task.StandingAway},
		"runs":       {"it is at it", task.SiteState{Link: fleet.LinkConnected, Told: true, State: said(task.PhaseRunning)}, "Running"},
		"ran, away":  {"it was at it when it was heard of last", task.SiteState{Link: fleet.LinkAway, Told: true, State: said(task.PhaseRunning)}, task.StandingAway},
		"done, away": {"what it said last stands", task.SiteState{Link: fleet.LinkAway, Told: true, State: said(task.PhaseSucceeded)}, "Succeeded"},
		"cannot":     {"it cannot be told", task.SiteState{Link: fleet.LinkConnected, Blocked: "x"}, "Failed"},
		"cancelled":  {"it was never told, and will not be", task.SiteState{Link: fleet.LinkConnected, Cancel: true}, "Cancelled"},
		"cancelling": {"it was told to end, and has not said that it did", task.SiteState{Link: fleet.LinkConnected, Told: true, Cancel: true}, task.StandingWaiting},
		"late":       {"its turn did not come in time", task.SiteState{Link: fleet.LinkConnected, StartBy: now.Add(-time.Hour), Now: now}, "Missed"},
		"late, away": {"it did not return in time", task.SiteState{Link: fleet.LinkAway, Told: true, StartBy: now.Add(-time.Hour), Now: now}, "Missed"},
		"late, told": {"it says by itself what became of it", task.SiteState{Link: fleet.LinkConnected, Told: true, StartBy: now.Add(-time.Hour), Now: now}, task.StandingWaiting},
		"just late":  {"its word may be on its way", task.SiteState{Link: fleet.LinkAway, Told: true, StartBy: now.Add(-time.Second), Now: now}, task.StandingAway},
		"began in time": {"it was away when it was over, and returned", task.SiteState{
			Link: fleet.LinkConnected, Told: true, StartBy: now.Add(-time.Hour), Now: now, State: said(task.PhaseSucceeded)}, "Succeeded"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := row.state.Standing(); got != row.want {
				t.Errorf("%s: %s, want %s", row.reason, got, row.want)
			}
		})
	}
}

func TestNext(t *testing.T) {
	waiting := func(name fleet.SiteName, link fleet.Link) task.SiteState {
		return task.SiteState{Site: name, Link: link}
	}
	busy := task.SiteState{Site: "busy", Link: fleet.LinkConnected, Told: true, State: said(task.PhaseRunning)}
	done := task.SiteState{Site: "done", Link: fleet.LinkConnected, Told: true, State: said(task.PhaseFailed)}
	gone := task.SiteState{Site: "gone", Link: fleet.LinkAway, Told: true}
	for name, row := range map[string]struct {
		reason string
		most   int
		states []task.SiteState
		want   []fleet.SiteName
	}{
		"all":       {"without a bound all begin", 0, []task.SiteState{waiting("b", fleet.LinkConnected), waiting("a", fleet.LinkUnknown)}, []fleet.SiteName{"a", "b"}},
		"one":       {"one at once", 1, []task.SiteState{waiting("b", fleet.LinkConnected), waiting("a", fleet.LinkConnected)}, []fleet.SiteName{"a"}},
		"full":      {"a site that is at it takes the room", 1, []task.SiteState{busy, waiting("a", fleet.LinkConnected)}, nil},
		"done":      {"one that failed gives it back", 1, []task.SiteState{done, waiting("a", fleet.LinkConnected)}, []fleet.SiteName{"a"}},
		"offline":   {"one that is away takes none", 1, []task.SiteState{gone, waiting("a", fleet.LinkConnected)}, []fleet.SiteName{"a"}},
		"away":      {"those that are away are all told: they hold up nobody", 1, []task.SiteState{busy, waiting("x", fleet.LinkAway), waiting("y", fleet.LinkAway)}, []fleet.SiteName{"x", "y"}},
		"unknown":   {"a hub that just started does not guess", 1, []task.SiteState{waiting("a", fleet.LinkUnknown)}, nil},
		"cancelled": {"nobody begins any more", 0, []task.SiteState{{Site: "a", Link: fleet.LinkConnected, Cancel: true}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, task.Next(row.states, row.most)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", row.reason, diff)
			}
		})
	}
}

func TestTextIsCutInWholeCharacters(t *testing.T) {
	for n := range 12 {
		for _, text := range []string{task.Cut("äöüßé", n), task.Tail("äöüßé", n)} {
			if len(text) > n || !utf8.ValidString(text) {
				t.Errorf("of %d bytes: %q", n, text)
			}
		}
	}
}

func FuzzDecodeSection(f *testing.F) {
	body, err := task.Section{Tasks: []task.Entry{ofBundle(), ofApp()}}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := task.DecodeSection(data)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("a section that was taken cannot be written: %v", err)
		}
		if _, err := task.DecodeSection(again); err != nil && !errors.Is(err, wire.ErrTooLarge) {
			t.Fatalf("a section that was taken is refused when it is written again: %v", err)
		}
	})
}

func FuzzDecodeOutputRequest(f *testing.F) {
	f.Add([]byte(`{"kind":"Task","namespace":"default","name":"clean","uid":"u","run":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := task.DecodeOutputRequest(data); err == nil && (r.Run < 0 || r.Run >= task.MaxHistory || r.Ref.Validate() != nil) {
			t.Fatalf("taken: %+v", r)
		}
	})
}
