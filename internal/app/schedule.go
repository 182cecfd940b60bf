package app

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// ScheduleRules say when something runs at a site, in the site's time zone.
type ScheduleRules struct {
	// Cron is five fields (minute, hour, day of month, month, day of week) or @hourly, @daily, @weekly,
	// @monthly or @yearly.
	Cron string `json:"cron"`
	// Concurrency says what happens when an earlier run is still under way; empty stands for Forbid.
	Concurrency Concurrency `json:"concurrency,omitempty"`
	// Missed says what becomes of times that passed while the site was off; empty stands for Skip.
	Missed Missed `json:"missed,omitempty"`
	// StartingDeadlineSeconds is how late a run may begin; zero for no bound.
	StartingDeadlineSeconds int `json:"startingDeadlineSeconds,omitempty"`
}

// Concurrency says what happens at a time at which an earlier run is still under way.
type Concurrency string

// The concurrency rules: beside it, not at all, or in place of it.
const (
	ConcurrencyAllow   Concurrency = "Allow"
	ConcurrencyForbid  Concurrency = "Forbid"
	ConcurrencyReplace Concurrency = "Replace"
)

// Missed says what becomes of times that passed.
type Missed string

// The rules for missed times: none is made up for, all by one run, or each by its own up to MaxMissedRuns.
const (
	MissedSkip    Missed = "Skip"
	MissedRunOnce Missed = "RunOnce"
	MissedRunAll  Missed = "RunAll"
)

// MaxMissedRuns bounds how many missed times MissedRunAll makes up for: the newest.
const MaxMissedRuns = 20

// Validate reports the first field that cannot be used, by its name.
func (r ScheduleRules) Validate() error {
	if _, err := ParseCron(r.Cron); err != nil {
		return fmt.Errorf("cron: %w", err)
	}
	switch r.Concurrency {
	case "", ConcurrencyAllow, ConcurrencyForbid, ConcurrencyReplace:
	default:
		return fmt.Errorf("concurrency: %q, want Allow, Forbid or Replace", r.Concurrency)
	}
	switch r.Missed {
	case "", MissedSkip, MissedRunOnce, MissedRunAll:
	default:
		return fmt.Errorf("missed: %q, want Skip, RunOnce or RunAll", r.Missed)
	}
	if r.StartingDeadlineSeconds < 0 || r.StartingDeadlineSeconds > maxStartingDeadline {
		return fmt.Errorf("startingDeadlineSeconds: %d, want 0 to %d", r.StartingDeadlineSeconds, maxStartingDeadline)
	}
	return nil
}

// maxStartingDeadline is a year, in seconds.
const maxStartingDeadline = 366 * 24 * 60 * 60

// cronParser reads what crontab(5) describes, without seconds.
var cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// ParseCron reads the cron expression of a schedule.
func ParseCron(expr string) (cron.Schedule, error) {
	// A time zone of its own and intervals are left out: the zone is the site's, and an interval that
	// begins at the agent's start is no time that two sites share.
	if strings.Contains(expr, "=") || strings.HasPrefix(expr, "@every") || len(expr) > 256 {
		return nil, fmt.Errorf("%q: want five fields such as \"*/5 * * * *\", or @hourly, @daily, @weekly, @monthly, @yearly", expr)
	}
	s, err := cronParser.Parse(expr)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", expr, err)
	}
	if s.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("%q: this time never comes", expr)
	}
	return s, nil
}
