package app_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

const (
	older = fleet.Digest("sha256:00")
	newer = fleet.Digest("sha256:11")
)

// says is a report of a site that works towards desired and serves running.
func says(desired, running fleet.Digest, phase fleet.Phase) *app.AppReport {
	return &app.AppReport{Desired: app.ReleaseRef{Digest: desired}, Running: app.ReleaseRef{Digest: running}, Phase: phase}
}

func TestStanding(t *testing.T) {
	tests := []struct {
		state  app.SiteState
		want   app.Standing
		reason string
	}{
		{app.SiteState{Link: fleet.LinkConnected, Target: newer, Told: newer, Report: says(newer, newer, fleet.PhaseRunning)}, app.StandingHealthy,
			"it serves what it was told"},
		{app.SiteState{Link: fleet.LinkConnected, Target: newer, Told: older, Report: says(older, older, fleet.PhaseRunning)}, app.StandingProgressing,
			"its turn has not come"},
		{app.SiteState{Link: fleet.LinkConnected, Target: newer}, app.StandingProgressing, "it was told nothing yet"},
		{app.SiteState{Link: fleet.LinkConnected, Target: newer, Told: newer}, app.StandingProgressing, "it has not answered yet"},
		{app.SiteState{Link: fleet.LinkConnected, Target: newer, Told: newer, Report: says(older, older, fleet.PhaseRunning)}, app.StandingProgressing,
			"its last report is of before it was told"},
		{app.SiteState{Link: fleet.LinkConnected, Target: newer, Told: newer, Report: says(newer, older, fleet.PhaseRunning)}, app.StandingProgressing,
			"the older release still answers"},
		{app.SiteState{Link: fleet.LinkConnected, Target: newer, Told: newer, Report: says(newer, older, fleet.PhaseBackOff)}, app.StandingProgressing,
			"it tries again by itself"},
		{app.SiteState{Link: fleet.LinkConnected, Target: newer, Told: newer, Report: says(newer, older, fleet.PhaseFailed)}, app.StandingFailed,
			"it cannot run the target"},
		{app.SiteState{Link: fleet.LinkConnected, Target: newer, Told: older, Report: says(older, "", fleet.PhaseFailed)}, app.StandingProgressing,
			"the older release failed, the target may not"},
		{app.SiteState{Link: fleet.LinkAway, Target: newer, Told: newer, Report: says(newer, newer, fleet.PhaseRunning)}, app.StandingWaiting,
			"what was true when it left may not be now"},
		{app.SiteState{Link: fleet.LinkUnknown, Target: newer, Told: newer, Report: says(newer, newer, fleet.PhaseRunning)}, app.StandingProgressing,
			"a hub that just started waits for a sign of life"},
		{app.SiteState{Link: fleet.LinkConnected, Target: newer, Told: older, Report: says(older, older, fleet.PhaseRunning), Blocked: "taken"}, app.StandingFailed,
			"it cannot be told of the target"},
		{app.SiteState{Link: fleet.LinkAway, Target: newer, Blocked: "taken"}, app.StandingFailed, "its return would change nothing"},
	}
	for _, tt := range tests {
		if got := tt.state.Standing(); got != tt.want {
			t.Errorf("%+v stands %s, want %s: %s", tt.state, got, tt.want, tt.reason)
		}
	}
}

func TestNextSites(t *testing.T) {
	serving := func(name fleet.SiteName) app.SiteState {
		return app.SiteState{Site: name, Link: fleet.LinkConnected, Target: newer, Told: older, Report: says(older, older, fleet.PhaseRunning)}
	}
	starting := func(name fleet.SiteName, link fleet.Link) app.SiteState {
		return app.SiteState{Site: name, Link: link, Target: newer, Told: newer, Report: says(newer, older, fleet.PhaseStarting)}
	}
	done := func(name fleet.SiteName, link fleet.Link) app.SiteState {
		return app.SiteState{Site: name, Link: link, Target: newer, Told: newer, Report: says(newer, newer, fleet.PhaseRunning)}
	}
	with := func(s app.SiteState, change func(*app.SiteState)) app.SiteState { change(&s); return s }
	tests := []struct {
		reason string
		states []app.SiteState
		max    int
		want   []fleet.SiteName
	}{
		{"nothing is placed", nil, 1, nil},
		{"one at a time, in order", []app.SiteState{serving("c"), serving("a"), serving("b")}, 1, []fleet.SiteName{"a"}},
		{"two at a time", []app.SiteState{serving("c"), serving("a"), serving("b")}, 2, []fleet.SiteName{"a", "b"}},
		{"all may go at once", []app.SiteState{serving("b"), serving("a")}, 5, []fleet.SiteName{"a", "b"}},
		{"everything is done", []app.SiteState{done("a", fleet.LinkConnected), done("b", fleet.LinkAway)}, 1, nil},
		{"one is on its way", []app.SiteState{starting("a", fleet.LinkConnected), serving("b")}, 1, nil},
		{"one is on its way, two may be", []app.SiteState{starting("a", fleet.LinkConnected), serving("b"), serving("c")}, 2, []fleet.SiteName{"b"}},
		{"one is on its way and was not heard of since this hub started", []app.SiteState{starting("a", fleet.LinkUnknown), serving("b")}, 1, nil},
		{"one is done and was not heard of since this hub started", []app.SiteState{done("a", fleet.LinkUnknown), serving("b")}, 1, []fleet.SiteName{"b"}},
		{"one is away on its way: it does not hold up the others", []app.SiteState{starting("a", fleet.LinkAway), serving("b")}, 1, []fleet.SiteName{"b"}},
		{"one failed: the rest keep what they have", []app.SiteState{
			with(starting("a", fleet.LinkConnected), func(s *app.SiteState) { s.Report.Phase = fleet.PhaseFailed }), serving("b")}, 1, nil},
		{"sites that never had the app lose nothing", []app.SiteState{
			{Site: "b", Link: fleet.LinkConnected, Target: newer}, {Site: "a", Link: fleet.LinkUnknown, Target: newer}}, 1, []fleet.SiteName{"a", "b"}},
		{"a site that is away takes the newest when it returns", []app.SiteState{
			with(serving("a"), func(s *app.SiteState) { s.Link = fleet.LinkAway }), serving("b"), serving("c")}, 1, []fleet.SiteName{"a", "b"}},
		{"a site of which nothing is known yet waits, and counts", []app.SiteState{
			with(serving("a"), func(s *app.SiteState) { s.Link = fleet.LinkUnknown }), serving("b")}, 1, nil},
		{"a site whose older release does not run is told at once, and counts", []app.SiteState{
			with(serving("a"), func(s *app.SiteState) { s.Report.Phase = fleet.PhaseBackOff }), serving("b")}, 1, []fleet.SiteName{"a"}},
		{"a site that said nothing yet of what it was told is told at once", []app.SiteState{
			with(serving("a"), func(s *app.SiteState) { s.Report = nil })}, 1, []fleet.SiteName{"a"}},
		{"a blocked site is not told, and takes no place of another", []app.SiteState{
			with(serving("a"), func(s *app.SiteState) { s.Blocked = "taken" }), serving("b")}, 1, []fleet.SiteName{"b"}},
		{"a blocked site that never had the app", []app.SiteState{{Site: "a", Link: fleet.LinkConnected, Target: newer, Blocked: "taken"}}, 1, nil},
		{"none may be unavailable", []app.SiteState{serving("a")}, 0, nil},
	}
	for _, tt := range tests {
		got := app.NextSites(tt.states, tt.max)
		if diff := cmp.Diff(tt.want, got); diff != "" && len(tt.want)+len(got) > 0 {
			t.Errorf("%s (-want +got):\n%s", tt.reason, diff)
		}
	}
}

// model is a fleet that a test rolls a release out over: what the hub knows of each site, and which of the
// sites that were told would become healthy.
type model struct {
	rng    *rand.Rand
	states []app.SiteState
}

func newModel(seed uint64) *model {
	m := &model{rng: rand.New(rand.NewPCG(seed, 1))}
	links := []fleet.Link{fleet.LinkConnected, fleet.LinkConnected, fleet.LinkConnected, fleet.LinkAway, fleet.LinkUnknown}
	phases := []fleet.Phase{fleet.PhaseRunning, fleet.PhaseRunning, fleet.PhaseRunning, fleet.PhaseStarting, fleet.PhaseBackOff, fleet.PhaseFailed}
	for i := range 1 + m.rng.IntN(30) {
		s := app.SiteState{Site: fleet.SiteName(fmt.Sprintf("s%02d", i)), Target: newer, Link: links[m.rng.IntN(len(links))]}
		switch m.rng.IntN(6) {
		case 0: // never told
		case 1:
			s.Told = newer
			s.Report = says(newer, older, phases[m.rng.IntN(len(phases))])
		case 2:
			s.Told = older // told, nothing reported
		default:
			s.Told = older
			s.Report = says(older, older, phases[m.rng.IntN(len(phases))])
		}
		m.states = append(m.states, s)
	}
	return m
}

// serves reports whether callers are answered there by what the site was told last.
func serves(s app.SiteState) bool {
	return s.Report != nil && s.Report.Desired.Digest == s.Told && s.Report.Healthy()
}

// step tells the next sites and returns those of them that served, were connected, and may stop serving now.
func (m *model) step(limit int) (taken, without int, told []fleet.SiteName) {
	for _, s := range m.states {
		if s.Link == fleet.LinkConnected && !serves(s) && s.Told != "" {
			without++
		}
	}
	told = app.NextSites(m.states, limit)
	for i := range m.states {
		s := &m.states[i]
		if !slices.Contains(told, s.Site) {
			continue
		}
		if s.Link == fleet.LinkConnected && serves(*s) {
			taken++
		}
		s.Told = newer
	}
	return taken, without, told
}

// settle lets some of the sites that were told become healthy, and links change.
func (m *model) settle(everything bool) {
	for i := range m.states {
		s := &m.states[i]
		if everything {
			s.Link = fleet.LinkConnected
		} else if m.rng.IntN(10) == 0 {
			s.Link = []fleet.Link{fleet.LinkConnected, fleet.LinkAway, fleet.LinkUnknown}[m.rng.IntN(3)]
		}
		if s.Told != "" && s.Link == fleet.LinkConnected && (everything || m.rng.IntN(2) == 0) {
			s.Report = says(s.Told, s.Told, fleet.PhaseRunning)
		}
	}
}

// TestNextSitesProperties rolls out over random fleets whose links and health change at random: no step
// takes a connected site that serves when that many are without already, and once sites become healthy
// each of them is reached.
func TestNextSitesProperties(t *testing.T) {
	for seed := range uint64(500) {
		m := newModel(seed)
		limit := 1 + m.rng.IntN(4)
		for range 20 {
			taken, without, told := m.step(limit)
			if taken > max(0, limit-without) {
				t.Fatalf("seed %d: %d serving sites are taken while %d are without and %d may be: %v", seed, taken, without, limit, told)
			}
			if !slices.IsSorted(told) || len(slices.Compact(slices.Clone(told))) != len(told) {
				t.Fatalf("seed %d: %v is not in order, once each", seed, told)
			}
			m.settle(false)
		}
		for range len(m.states) + 2 {
			m.settle(true)
			m.step(limit)
		}
		m.settle(true)
		for _, s := range m.states {
			if s.Standing() != app.StandingHealthy {
				t.Fatalf("seed %d: site %s was never reached: %+v", seed, s.Site, s)
			}
		}
	}
}
