package upkeephub

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/upkeep"
)

// where one site stands: a letter of told (t) or not (n), then one of its link, then its phase.
func fleetOf(limit int32, states ...string) []*site {
	wanted := upkeep.Section{ID: "v2", Version: "2.0.0"}
	var out []*site
	for i, state := range states {
		name := string(rune('a' + i))
		s := &site{name: fleet.SiteName(name), wanted: &wanted, link: fleet.LinkConnected, obj: &v1alpha1.Site{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SiteSpec{Agent: &v1alpha1.SiteAgent{Version: "2.0.0", MaxUnavailable: limit}},
		}}
		told, phase, _ := strings.Cut(state, " ")
		switch told {
		case "told":
			s.told = wanted
			s.report = upkeep.Report{ID: "v2", Phase: phase}
		case "silent":
			s.told = wanted
			s.report = upkeep.Report{ID: "v1", Phase: upkeep.PhaseRunning}
		case "away":
			s.link = fleet.LinkAway
		case "nothing":
			s.wanted, s.obj.Spec.Agent = nil, nil
		}
		out = append(out, s)
	}
	return out
}

func TestNext(t *testing.T) {
	tests := []struct {
		reason string
		limit  int32
		states []string
		want   string
	}{
		{"the first by name", 1, []string{"new", "new", "new"}, "a"},
		{"as many as may be unavailable", 2, []string{"new", "new", "new"}, "a b"},
		{"no limit means one", 0, []string{"new", "new"}, "a"},
		{"one that tries takes the room", 1, []string{"told Trying", "new"}, ""},
		{"one that fetches too", 1, []string{"told Fetching", "new"}, ""},
		{"one that was told and has not said so", 1, []string{"silent", "new"}, ""},
		{"one that failed stops the rest", 1, []string{"told Failed", "new", "new"}, ""},
		{"unless there is more room", 2, []string{"told Failed", "new", "new"}, "b"},
		{"one that runs makes room", 1, []string{"told Running", "new", "new"}, "b"},
		{"one that cannot be upgraded at all takes none", 1, []string{"told Unsupported", "new"}, "b"},
		{"who is away is told later", 2, []string{"away", "new"}, "b"},
		{"nobody asked for anything", 1, []string{"nothing", "nothing"}, ""},
		{"all run it", 3, []string{"told Running", "told Running"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			var got []string
			for _, s := range next(fleetOf(tt.limit, tt.states...)) {
				got = append(got, string(s.name))
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("told are %v, want %s", got, tt.want)
			}
		})
	}
}

// TestNextTakesTheLeast: of two limits for one agent the careful one holds; another agent has a limit of its own.
func TestNextTakesTheLeast(t *testing.T) {
	sites := fleetOf(5, "new", "new", "new")
	sites[1].obj.Spec.Agent.MaxUnavailable = 1
	other := upkeep.Section{ID: "v3"}
	sites[2].wanted = &other
	var got []string
	for _, s := range next(sites) {
		got = append(got, string(s.name))
	}
	if strings.Join(got, " ") != "a c" {
		t.Errorf("told are %v", got)
	}
}

func TestStatus(t *testing.T) {
	for state, want := range map[string]string{
		"new": "Waiting it waits for its turn", "away": "Waiting the site is away", "silent": "Waiting the site was told",
		"told Trying": "Trying ", "told Running": "Running ",
	} {
		if got := status(fleetOf(1, state)[0]); got.Phase+" "+got.Message != want {
			t.Errorf("%s: %s %s, want %s", state, got.Phase, got.Message, want)
		}
	}
	if got := status(fleetOf(1, "nothing")[0]); got != nil {
		t.Errorf("of a site of which nothing is known: %+v", got)
	}
	blocked := fleetOf(1, "new")[0]
	blocked.wanted, blocked.blocked = nil, strings.Repeat("x", 2000)
	if got := status(blocked); got.Phase != v1alpha1.AgentFailed || len(got.Message) != 1024 {
		t.Errorf("what cannot be found: %s, %d bytes", got.Phase, len(got.Message))
	}
}
