package agent

import (
	"testing"

	"github.com/skerry-dev/skerry/internal/fleet"
)

func TestLeavingBy(t *testing.T) {
	for _, row := range []struct {
		reason, jobs string
		want         fleet.Leaving
	}{
		{"nothing else is under way: somebody stopped the agent", "", fleet.LeavingStop},
		{"its own job alone", "1712 skerry-site.service stop running\n", fleet.LeavingStop},
		{"the machine goes down to come back", "1700 reboot.target start waiting\n1712 skerry-site.service stop running\n", fleet.LeavingReboot},
		{"it goes down for good", "1712 skerry-site.service stop running\n1700 poweroff.target start waiting\n", fleet.LeavingPowerOff},
		{"a target that is stopped means nothing", "1700 reboot.target stop waiting\n", fleet.LeavingStop},
		{"what is no list of jobs", "No jobs running.\n\n x \n", fleet.LeavingStop},
	} {
		if got := leavingBy(row.jobs); got != row.want {
			t.Errorf("%s: %s, want %s", row.reason, got, row.want)
		}
	}
}
