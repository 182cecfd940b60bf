package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/skerry-dev/skerry/internal/app"
)

// ErrZone means that a time zone is not known here. The schedule runs in UTC.
var ErrZone = errors.New("unknown time zone")

// Times are those at which a schedule is due.
type Times struct {
	when cron.Schedule
	zone *time.Location
	// fixed: the hour is given, so that each day has the time once, whatever becomes of the clock that night.
	fixed bool
}

// NewTimes reads a cron expression in a time zone, by its name in the IANA database; empty for UTC. With a
// zone that is not known it returns both times in UTC and an error that wraps ErrZone.
func NewTimes(expr, zone string) (Times, error) {
	when, err := app.ParseCron(expr)
	if err != nil {
		return Times{}, err
	}
	t := Times{when: when, zone: time.UTC, fixed: fixedHour(expr)}
	if zone == "" {
		return t, nil
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return t, fmt.Errorf("schedules run in UTC: this agent does not know the site's time zone %q: %w", zone, ErrZone)
	}
	t.zone = location
	return t, nil
}

// fixedHour reports whether an expression names hours. One that runs in every hour, or every few minutes, goes
// by the time that passes; one that names hours goes by the clock on the wall.
func fixedHour(expr string) bool {
	if strings.HasPrefix(expr, "@") {
		return expr != "@hourly"
	}
	fields := strings.Fields(expr)
	return len(fields) == 5 && !strings.HasPrefix(fields[1], "*") && fields[1] != "?"
}

// Next returns the first time after t.
//
// When clocks are set forward, a fixed time that is left out comes at the moment of the change. When they are
// set back, a fixed time that comes twice counts at its first coming.
func (s Times) Next(t time.Time) time.Time {
	if !s.fixed {
		return s.when.Next(t.In(s.zone))
	}
	for wall := asWall(t.In(s.zone)); ; {
		wall = s.when.Next(wall)
		if wall.IsZero() {
			return time.Time{}
		}
		if next := s.fromWall(wall); next.After(t) {
			return next
		}
	}
}

// asWall is what a clock on the wall shows, as a time that knows no changes.
func asWall(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// fromWall returns the first moment at which a clock on the wall shows this, or has just been set over it.
func (s Times) fromWall(wall time.Time) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, s.zone)
	start, end := t.ZoneBounds()
	if !asWall(t).Equal(wall) { // left out: the change lies just before or just behind t
		if asWall(t).After(wall) {
			return start
		}
		return end
	}
	if !start.IsZero() {
		// The offset before the last change may show the same a while earlier.
		_, now := t.Zone()
		_, before := start.Add(-time.Second).Zone()
		if earlier := t.Add(time.Duration(now-before) * time.Second); earlier.Before(start) && asWall(earlier).Equal(wall) {
			return earlier
		}
	}
	return t
}

// windows are how far back the newest times before a moment are looked for: together they bound the work, since
// what is dense in the calendar is found in the first.
var windows = []time.Duration{time.Hour, 24 * time.Hour, 32 * 24 * time.Hour, 6 * 366 * 24 * time.Hour}

// newest returns the times after last until now, in order, the newest most of them.
func (s Times) newest(last, now time.Time, most int) []time.Time {
	var found []time.Time
	for _, window := range windows {
		from := now.Add(-window)
		if from.Before(last) {
			from = last
		}
		found = found[:0]
		for t := s.Next(from); !t.IsZero() && !t.After(now); t = s.Next(t) {
			found = append(found, t)
		}
		if len(found) >= most || from.Equal(last) {
			break
		}
	}
	return slices.Clone(found[max(0, len(found)-most):])
}
