package schedule_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app/schedule"
)

// list returns the first n times after a moment, as a clock on the wall of the zone shows them.
func list(t *testing.T, expr, zone, after string, n int) []string {
	t.Helper()
	times, err := schedule.NewTimes(expr, zone)
	if err != nil {
		t.Fatal(err)
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04", after, location)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for range n {
		at = times.Next(at)
		out = append(out, at.In(location).Format("2006-01-02 15:04 MST"))
	}
	return out
}

func TestNext(t *testing.T) {
	for name, row := range map[string]struct {
		reason     string
		expr, zone string
		after      string
		want       []string
	}{
		"plain": {
			"nothing happens to the clock", "30 2 * * *", "Europe/Berlin", "2026-05-01 12:00",
			[]string{"2026-05-02 02:30 CEST", "2026-05-03 02:30 CEST"},
		},
		"forward": {
			"half past two does not come that night: the run is at the change, and once", "30 2 * * *", "Europe/Berlin", "2026-03-28 12:00",
			[]string{"2026-03-29 03:00 CEST", "2026-03-30 02:30 CEST"},
		},
		"back": {
			"half past two comes twice that night, and counts once", "30 2 * * *", "Europe/Berlin", "2026-10-24 12:00",
			[]string{"2026-10-25 02:30 CEST", "2026-10-26 02:30 CET"},
		},
		"every half hour, back": {
			"what goes by the time that passes goes on through the hour that comes twice", "*/30 * * * *", "Europe/Berlin", "2026-10-25 01:45",
			[]string{"2026-10-25 02:00 CEST", "2026-10-25 02:30 CEST", "2026-10-25 02:00 CET", "2026-10-25 02:30 CET", "2026-10-25 03:00 CET"},
		},
		"hourly, forward": {
			"there is no hour from two to three", "@hourly", "Europe/Berlin", "2026-03-29 00:30",
			[]string{"2026-03-29 01:00 CET", "2026-03-29 03:00 CEST"},
		},
		"midnight that is left out": {
			"where clocks change at midnight the day begins at one", "@daily", "America/Asuncion", "2024-10-05 12:00",
			[]string{"2024-10-06 01:00 -03", "2024-10-07 00:00 -03"},
		},
		"half an hour": {
			"Lord Howe sets its clocks back by half an hour", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00",
			[]string{"2026-04-05 01:45 +11", "2026-04-06 01:45 +1030"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, list(t, row.expr, row.zone, row.after, len(row.want))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", row.reason, diff)
			}
		})
	}
}

// TestNextWithinTheHourThatComesTwice begins after the first coming of a time whose second is ahead.
func TestNextWithinTheHourThatComesTwice(t *testing.T) {
	times, err := schedule.NewTimes("30 2 * * *", "Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	first := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC) // 02:30 CEST
	for _, after := range []time.Duration{0, time.Minute, 40 * time.Minute, 90 * time.Minute} {
		if next := times.Next(first.Add(after)); next.Sub(first) != 25*time.Hour {
			t.Errorf("%s after the first coming the next is %s later", after, next.Sub(first))
		}
	}
}

func TestUnknownZone(t *testing.T) {
	times, err := schedule.NewTimes("0 12 * * *", "Middle/Earth")
	if !errors.Is(err, schedule.ErrZone) {
		t.Fatalf("error %v", err)
	}
	if next := times.Next(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)); !next.Equal(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("it goes by another zone than UTC: %s", next)
	}
}

// FuzzTimes holds each schedule to go on: the next time is later, whatever the zone does.
func FuzzTimes(f *testing.F) {
	for _, expr := range []string{"* * * * *", "30 2 * * *", "0 0 29 2 *", "@yearly", "0 3 * * 1-5", "x", "*/7 1,2,3 */2 * ?"} {
		f.Add(expr, int64(1774744000))
	}
	f.Fuzz(func(t *testing.T, expr string, at int64) {
		times, err := schedule.NewTimes(expr, "Europe/Berlin")
		if err != nil {
			return
		}
		now := time.Unix(at%4_000_000_000, 0)
		for range 20 {
			next := times.Next(now)
			if next.IsZero() { // a day that comes too seldom
				return
			}
			if !next.After(now) {
				t.Fatalf("%q: after %s comes %s", expr, now, next)
			}
			now = next
		}
	})
}
