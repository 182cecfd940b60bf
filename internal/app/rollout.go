package app

import (
	"sort"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// SiteState is what the hub knows of one app at one site that it is placed on.
type SiteState struct {
	Site fleet.SiteName
	Link fleet.Link
	// Target is the digest of what the site should run in the end; Told of what it was told last, empty
	// when it was told nothing of this app.
	Target fleet.Digest
	Told   fleet.Digest
	// Report is what the site said last; nil when it said nothing of this app.
	Report *AppReport
	// Blocked is why the site cannot be told of its target; empty when it can. What it was told before
	// stays.
	Blocked string
}

// Standing is where one app stands at one site, seen from the hub.
type Standing string

// The standings. A placed site has exactly one of them.
const (
	StandingHealthy     Standing = "Healthy"     // serves the target
	StandingProgressing Standing = "Progressing" // on its way, or not told yet
	StandingWaiting     Standing = "Waiting"     // away, nothing is known
	StandingFailed      Standing = "Failed"      // cannot run the target
)

// Standing returns where the app stands at this site.
func (s SiteState) Standing() Standing {
	switch {
	case s.Blocked != "":
		return StandingFailed
	case s.Link == fleet.LinkAway:
		return StandingWaiting
	case s.Told != s.Target || s.Report == nil || s.Report.Desired.Digest != s.Target:
		return StandingProgressing
	case s.Report.Phase == fleet.PhaseFailed:
		return StandingFailed
	case s.Report.Healthy() && s.Link == fleet.LinkConnected:
		return StandingHealthy
	}
	return StandingProgressing
}

// Failure is why the app cannot run at this site, when Standing is StandingFailed.
func (s SiteState) Failure() string {
	if s.Blocked == "" && s.Report != nil {
		return s.Report.Message
	}
	return s.Blocked
}

// available reports whether the site serves what it was told last, whichever release that is.
func (s SiteState) available() bool {
	return s.Report != nil && s.Report.Desired.Digest == s.Told && s.Report.Healthy()
}

// NextSites returns the sites to tell of their target now, in order, so that at most maxUnavailable of the
// connected sites are without a healthy release because of it.
//
// A site that has nothing to lose is told at once: one that never had the app, one that is away (it takes
// the newest when it returns), and one that does not serve what it was told before. A site of which
// nothing is known yet, because this hub started moments ago, is told later. One that is blocked is not told
// and takes no place of another.
func NextSites(states []SiteState, maxUnavailable int) []fleet.SiteName {
	var next, serving []fleet.SiteName
	unavailable := 0
	for _, s := range states {
		outdated := s.Told != s.Target
		switch {
		case s.Blocked != "":
		case !outdated:
			if s.Link != fleet.LinkAway && !s.available() {
				unavailable++ // one of which nothing was heard yet may be starting right now
			}
		case s.Told == "" || s.Link == fleet.LinkAway:
			next = append(next, s.Site)
		case s.Link == fleet.LinkUnknown:
			unavailable++
		case !s.available():
			unavailable++
			next = append(next, s.Site)
		default:
			serving = append(serving, s.Site)
		}
	}
	sort.Slice(serving, func(i, j int) bool { return serving[i] < serving[j] })
	next = append(next, serving[:max(0, min(len(serving), maxUnavailable-unavailable))]...)
	sort.Slice(next, func(i, j int) bool { return next[i] < next[j] })
	return next
}
