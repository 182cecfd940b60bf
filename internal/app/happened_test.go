package app

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
)

func TestHappened(t *testing.T) {
	one := ReleaseRef{Release: "hello-1", Version: "1.0.0", Digest: "sha256:1"}
	two := ReleaseRef{Release: "hello-2", Version: "2.0.0", Digest: "sha256:2"}
	at := func(phase fleet.Phase, desired, running ReleaseRef, restarts int) AppReport {
		return AppReport{Phase: phase, Desired: desired, Running: running, Restarts: restarts, Message: "exited with status 3"}
	}
	none := ReleaseRef{}
	for _, row := range []struct {
		reason   string
		old, now AppReport
		want     []string
	}{
		{"nothing is worth a word on the way", AppReport{}, at(fleet.PhaseFetching, one, none, 0), nil},
		{"the first release runs", at(fleet.PhaseStarting, one, none, 0), at(fleet.PhaseRunning, one, one, 0), []string{"event AppRunning"}},
		{"a newer one is on its way while the old one answers", at(fleet.PhaseRunning, one, one, 0), at(fleet.PhaseStarting, two, one, 0), nil},
		{"it takes over", at(fleet.PhaseStarting, two, one, 0), at(fleet.PhaseRunning, two, two, 0), []string{"event AppRunning"}},
		{"it fails, the old one goes on", at(fleet.PhaseStarting, two, one, 0), at(fleet.PhaseFailed, two, one, 0), []string{"alarm AppFailed"}},
		{"it fails again as before", at(fleet.PhaseFailed, two, one, 0), at(fleet.PhaseFailed, two, one, 0), nil},
		{"another release fails too", at(fleet.PhaseFailed, two, one, 0), at(fleet.PhaseFailed, one, none, 0), []string{"alarm AppFailed"}},
		{"the running one crashes", at(fleet.PhaseRunning, one, one, 0), at(fleet.PhaseBackOff, one, none, 0), []string{"alarm AppCrashed"}},
		{"and comes back", at(fleet.PhaseBackOff, one, none, 0), at(fleet.PhaseRunning, one, one, 1), []string{"event AppRunning"}},
		{"it crashes and is back before anybody looks", at(fleet.PhaseRunning, one, one, 1), at(fleet.PhaseRunning, one, one, 2), []string{"alarm AppCrashed"}},
		{"it crashes again and again", at(fleet.PhaseBackOff, one, none, 1), at(fleet.PhaseBackOff, one, none, 2), nil},
		{"counts alone are no event", at(fleet.PhaseRunning, one, one, 1), at(fleet.PhaseRunning, one, one, 1), nil},
	} {
		row.now.App = fleet.AppKey{Namespace: "shop", Name: "hello"}
		var got []string
		for _, e := range Happened(row.old, row.now) {
			got = append(got, string(e.Class)+" "+e.Reason)
			if e.App != row.now.App || e.Message == "" {
				t.Errorf("%s: event says %+v", row.reason, e)
			}
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.reason, diff)
		}
	}
}
