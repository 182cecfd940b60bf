package task

import (
	"slices"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Standing is where a site stands with a Task, as the hub sees it: one of the phases, or one of these.
type Standing string

// Standings beside the phases.
const (
	// StandingWaiting: connected, and its turn has not come, or nothing was heard of it yet.
	StandingWaiting Standing = "Waiting"
	// StandingAway: not connected, and nothing final is known.
	StandingAway Standing = "Away"
)

// Final reports whether nothing more is awaited of the site.
func (s Standing) Final() bool { return Phase(s).Final() }

// SiteState is what is known of one site of a Task.
type SiteState struct {
	Site fleet.SiteName
	Link fleet.Link
	// Told says that the site is told of it.
	Told bool
	// Blocked says why the site cannot be told; empty when it can.
	Blocked string
	// State is the site's own word of this task, nil when there is none.
	State *State
	// Cancel and StartBy are those of the task; Now the hub's time.
	Cancel  bool
	StartBy time.Time
	Now     time.Time
}

// reportGrace is how long after StartBy a connected site may take to say that it began in time.
const reportGrace = 30 * time.Second

// Run returns the newest run; the zero Run when there is none.
func (s SiteState) Run() Run {
	if s.State == nil || len(s.State.Runs) == 0 {
		return Run{Phase: PhasePending}
	}
	return s.State.Runs[0]
}

// Standing works out where the site stands.
func (s SiteState) Standing() Standing {
	run := s.Run()
	late := !s.StartBy.IsZero() && s.Now.After(s.StartBy.Add(reportGrace))
	switch {
	case run.Phase.Final():
		return Standing(run.Phase)
	case s.Blocked != "":
		return Standing(PhaseFailed)
	case run.Phase == PhaseRunning && s.Link != fleet.LinkAway:
		return Standing(PhaseRunning)
	case run.Phase == PhaseRunning: // it goes on there, and tells of its end when it returns
		return StandingAway
	case s.Cancel && !s.Told:
		return Standing(PhaseCancelled)
	case late && (!s.Told || s.Link == fleet.LinkAway):
		// A site that is away may have begun before: then it corrects this when it returns.
		return Standing(PhaseMissed)
	case s.Link == fleet.LinkAway:
		return StandingAway
	}
	return StandingWaiting
}

// Next returns the sites that are to be told now, of those that are not, in order: all that are away, since
// they hold up nobody, and of the connected ones as many as most leaves room for; zero is no bound. A site
// of which it is not known whether it is there takes room and waits.
func Next(states []SiteState, most int) []fleet.SiteName {
	busy := 0
	var out, waiting []fleet.SiteName
	for _, s := range states {
		standing := s.Standing()
		switch {
		case standing.Final():
		case s.Told && s.Link != fleet.LinkAway:
			busy++
		case s.Told, s.Cancel:
		case s.Link == fleet.LinkAway:
			out = append(out, s.Site)
		case most == 0 || s.Link == fleet.LinkConnected:
			waiting = append(waiting, s.Site)
		}
	}
	slices.Sort(waiting)
	if most > 0 {
		waiting = waiting[:min(len(waiting), max(0, most-busy))]
	}
	out = append(out, waiting...)
	slices.Sort(out)
	return out
}
