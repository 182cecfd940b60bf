package schedule

import (
	"time"

	"github.com/skerry-dev/skerry/internal/app"
)

// onTime is how late a run may begin and still be none that was missed: a look at the clock, a restart of the
// agent.
const onTime = time.Minute

// tooFar is how far ahead of the present a record may be. One that lies further ahead was made while the time
// was wrong, and would keep the schedule from running until then.
const tooFar = 24 * time.Hour

// Record is what a site must not forget of a schedule. The zero Record is one that was never looked at.
type Record struct {
	// Rule is the cron expression and the time zone that Last is of.
	Rule string `json:"rule"`
	// Last is the newest time that was decided on.
	Last time.Time `json:"last"`
	// Queue are times that were decided to run and did not begin, in order.
	Queue []time.Time `json:"queue,omitempty"`
	// Begun are the times whose runs began, and whose end is not known yet.
	Begun []time.Time `json:"begun,omitempty"`
	// Skipped counts times that were left out since another run was under way, or by StartingDeadline; Missed
	// those that passed while the site was off and that no run made up for.
	Skipped uint64 `json:"skipped,omitempty"`
	Missed  uint64 `json:"missed,omitempty"`
}

// decide takes up the times that came since the record, and returns it with those that are to run in its
// queue. It is a function of its arguments alone.
func decide(rec Record, rule string, times Times, rules app.ScheduleRules, now time.Time) Record {
	if rec.Rule != rule || rec.Last.IsZero() || rec.Last.After(now.Add(tooFar)) {
		// A new schedule makes up for nothing.
		return Record{Rule: rule, Last: now, Begun: rec.Begun, Skipped: rec.Skipped, Missed: rec.Missed}
	}
	deadline := time.Duration(rules.StartingDeadlineSeconds) * time.Second
	queue := rec.Queue[:0:0]
	for _, t := range rec.Queue {
		if deadline > 0 && now.Sub(t) > deadline {
			rec.Skipped++
			continue
		}
		queue = append(queue, t)
	}
	rec.Queue = queue
	found := times.newest(rec.Last, now, app.MaxMissedRuns+1)
	if len(found) == 0 {
		return rec
	}
	rec.Last = found[len(found)-1]
	var late, fresh []time.Time
	for _, t := range found {
		switch {
		case deadline > 0 && now.Sub(t) > deadline:
			rec.Skipped++
		case now.Sub(t) > onTime:
			late = append(late, t)
		default:
			fresh = append(fresh, t)
		}
	}
	switch rules.Missed {
	case app.MissedRunAll:
		fresh = append(late, fresh...)
		late = nil
	case app.MissedRunOnce:
		if n := len(late); n > 0 && len(fresh) == 0 {
			fresh, late = late[n-1:], late[:n-1]
		}
	}
	rec.Missed += uint64(len(late))
	if rules.Missed != app.MissedRunAll && len(fresh) > 1 { // the newest stands for those just before it
		rec.Skipped += uint64(len(fresh) - 1)
		fresh = fresh[len(fresh)-1:]
	}
	rec.Queue = append(rec.Queue, fresh...)
	if over := len(rec.Queue) - app.MaxMissedRuns; over > 0 {
		rec.Skipped += uint64(over)
		rec.Queue = append([]time.Time(nil), rec.Queue[over:]...)
	}
	return rec
}
