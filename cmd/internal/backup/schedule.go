package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Scheduled backups are named by the time at which they were begun, in UTC, so that their names sort.
const (
	scheduledPrefix = "hub-"
	scheduledSuffix = ".tar.gz"
	scheduledTime   = "20060102T150405Z"
)

// retryAfter is how long after a failure the next try comes, unless the schedule is shorter.
const retryAfter = 10 * time.Minute

// Schedule saves a hub again and again into one directory.
type Schedule struct {
	// Dir is made, mode 0700, when there is none.
	Dir string
	// Every is the time between two backups, counted over restarts; Keep how many stay. Without Dir there are none.
	Every time.Duration
	Keep  int
	// Save writes one backup.
	Save func(ctx context.Context, file string) error
	Log  *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	success  prometheus.Gauge
	failures prometheus.Counter
}

// Register makes the schedule's metrics visible, also those of one without Dir: an interval of zero says that none is
// asked for. It is called once, before Run.
func (s *Schedule) Register(metrics prometheus.Registerer) error {
	s.success = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "skerry_hub_backup_last_success_timestamp_seconds",
		Help: "When the newest backup of the hub was begun, in seconds since 1970; zero when there is none.",
	})
	s.failures = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "skerry_hub_backup_failures_total", Help: "Scheduled backups of the hub that failed.",
	})
	every := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "skerry_hub_backup_interval_seconds", Help: "Time between two scheduled backups of the hub; zero when none is asked for.",
	})
	if s.Dir != "" {
		every.Set(s.Every.Seconds())
	}
	if err := errors.Join(metrics.Register(s.success), metrics.Register(s.failures), metrics.Register(every)); err != nil {
		return fmt.Errorf("metrics of backups: %w", err)
	}
	return nil
}

// Run saves until ctx ends. Failures are logged, counted and tried again.
func (s *Schedule) Run(ctx context.Context) {
	if s.Now == nil {
		s.Now = time.Now
	}
	s.clean()
	wait := s.untilDue()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = s.Every
		if err := s.once(ctx); err != nil && ctx.Err() == nil {
			s.failures.Inc()
			wait = min(s.Every, retryAfter)
			s.Log.Error("the hub was not backed up", "dir", s.Dir, "error", err, "again", wait)
		}
	}
}

// untilDue is how long after the newest backup the next one comes. One whose time is yet to come was written
// under a wrong clock and counts as old.
func (s *Schedule) untilDue() time.Duration {
	names, err := s.list()
	if err != nil || len(names) == 0 {
		return 0
	}
	newest, _ := timeOf(names[len(names)-1])
	s.success.Set(float64(newest.Unix()))
	age := s.Now().Sub(newest)
	if age < 0 {
		return 0
	}
	return max(0, s.Every-age)
}

func (s *Schedule) once(ctx context.Context) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	began := s.Now().UTC()
	name := scheduledPrefix + began.Format(scheduledTime) + scheduledSuffix
	if err := s.Save(ctx, filepath.Join(s.Dir, name)); err != nil {
		return err
	}
	s.success.Set(float64(began.Unix()))
	s.Log.Info("the hub was backed up", "file", filepath.Join(s.Dir, name))
	return s.prune(name)
}

// clean removes what a kill left unfinished.
func (s *Schedule) clean() {
	unfinished, err := filepath.Glob(filepath.Join(s.Dir, tempPrefix+"*"))
	for _, file := range unfinished {
		err = errors.Join(err, os.Remove(file))
	}
	if err != nil {
		s.Log.Warn("unfinished backups are left", "error", err)
	}
}

// prune removes the oldest beyond Keep, never the one that was just written.
func (s *Schedule) prune(newest string) error {
	names, err := s.list()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == newest })
	var all error
	for _, name := range names[:max(0, len(names)-(s.Keep-1))] {
		all = errors.Join(all, os.Remove(filepath.Join(s.Dir, name)))
	}
	return all
}

// list returns the scheduled backups, the oldest first.
func (s *Schedule) list() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if _, ok := timeOf(e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// timeOf reads the time in the name of a scheduled backup; false when the name is no such.
func timeOf(name string) (time.Time, bool) {
	rest, ok := strings.CutPrefix(name, scheduledPrefix)
	if !ok {
		return time.Time{}, false
	}
	rest, ok = strings.CutSuffix(rest, scheduledSuffix)
	t, err := time.Parse(scheduledTime, rest)
	return t, ok && err == nil
}
