package outage

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
)

func TestJudge(t *testing.T) {
	for _, row := range []struct {
		reason string
		e      Evidence
		want   Belief
		says   string
	}{
		{"a neighbour's ear beats everything", Evidence{Hear: []fleet.SiteName{"shop-2"}, Miss: []fleet.SiteName{"shop-3"}, Transport: fleet.TransportClosed}, LinkDown, "neighbour shop-2"},
		{"also after it said that it stops: it was started again", Evidence{Left: true, Hear: []fleet.SiteName{"shop-2"}}, LinkDown, "hears it"},
		{"its last words", Evidence{Left: true, Leaving: fleet.LeavingStop, Transport: fleet.TransportClosed}, Stopped, "said that it stops"},
		{"an older agent says no reason", Evidence{Left: true}, Stopped, "said that it stops"},
		{"switched off", Evidence{Left: true, Leaving: fleet.LeavingPowerOff}, Stopped, "switched off"},
		{"a planned reboot", Evidence{Left: true, Leaving: fleet.LeavingReboot, Silent: time.Minute, Miss: []fleet.SiteName{"a"}}, Restarting, "machine restarts"},
		{"that did not end", Evidence{Left: true, Leaving: fleet.LeavingReboot, Silent: time.Hour}, SiteDown, "not back after 1h0m0s"},
		{"an upgrade of the agent", Evidence{Left: true, Leaving: fleet.LeavingRestart, Silent: time.Second}, Restarting, "agent restarts"},
		{"its zone is gone with it", Evidence{Transport: fleet.TransportLost, Miss: []fleet.SiteName{"a"}, Zone: &Zone{Name: "north", Away: 4, Sites: 5}}, LinkDown, "4 of 5 sites of zone north"},
		{"its neighbours are there and do not hear it", Evidence{Transport: fleet.TransportLost, Miss: []fleet.SiteName{"d", "c", "b", "a"}}, SiteDown, "a, b, c and 1 more"},
		{"the machine closed the connection", Evidence{Transport: fleet.TransportClosed}, AgentDown, "without a word"},
		{"silence", Evidence{Transport: fleet.TransportOpen}, Unknown, "power or network"},
		{"silence until the hub gave up", Evidence{Transport: fleet.TransportLost}, Unknown, "power or network"},
		{"the hub threw it out", Evidence{Transport: fleet.TransportEnded}, Unknown, "the hub ended"},
		{"nothing at all", Evidence{}, Unknown, "since this hub started"},
	} {
		got, why := Judge(row.e)
		if got != row.want || !strings.Contains(why, row.says) {
			t.Errorf("%s: believes %s because %s; want %s and %q", row.reason, got, why, row.want, row.says)
		}
	}
	if d := AskAgain(Evidence{Left: true, Leaving: fleet.LeavingReboot, Silent: 5 * time.Minute}); d <= 10*time.Minute || d > 11*time.Minute {
		t.Errorf("a restart that takes long is looked at again after %v", d)
	}
	if d := AskAgain(Evidence{Transport: fleet.TransportLost}); d != 0 {
		t.Errorf("what only news can change is looked at again after %v", d)
	}
}

// say writes changes down as short lines.
func say(changes []Change) (out []string) {
	for _, c := range changes {
		verb := "silent"
		if c.Ended {
			verb = "back"
		}
		out = append(out, fmt.Sprintf("%s %s %d/%d", c.Name, verb, c.Away, c.Sites))
	}
	return out
}

func TestZones(t *testing.T) {
	at := func(second int) time.Time { return time.Unix(1000+int64(second), 0) }
	there := time.Time{}
	var z Zones
	for i := range 5 {
		z.Observe(fleet.SiteName(fmt.Sprintf("n%d", i)), "north", there)
	}
	for i := range 2 {
		z.Observe(fleet.SiteName(fmt.Sprintf("s%d", i)), "south", there)
	}
	for _, row := range []struct {
		reason string
		site   fleet.SiteName
		zone   string
		silent time.Time
		want   []string
	}{
		{"one site is a site", "n0", "north", at(0), nil},
		{"two are two", "n1", "north", at(200), nil},
		{"three of five, but not together", "n2", "north", at(210), nil},
		{"three of five together: one event", "n3", "north", at(250), []string{"north silent 4/5"}},
		{"the rest follows without another", "n4", "north", at(251), nil},
		{"said again, nothing changes", "n4", "north", at(251), nil},
		{"both sites of a small zone are two sites", "s0", "south", at(250), nil},
		{"and no zone", "s1", "south", at(250), nil},
		{"sites without a zone are none", "x", "", at(250), nil},
		{"one is back, most are not", "n0", "north", there, nil},
		{"two are back", "n1", "north", there, nil},
		{"most are back: the end", "n2", "north", there, []string{"north back 2/5"}},
		{"a site that moves leaves its zone", "n3", "south", at(250), []string{"south silent 3/3"}},
	} {
		if diff := cmp.Diff(row.want, say(z.Observe(row.site, row.zone, row.silent))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.reason, diff)
		}
	}
	if got := z.Silent("south"); got == nil || got.Away != 3 || !got.Since.Equal(at(250)) {
		t.Errorf("south is %+v", got)
	}
	if z.Silent("north") != nil || z.Silent("nowhere") != nil {
		t.Error("a zone that is there is silent")
	}
	if got := z.Outages(); len(got) != 1 || got[0].Name != "south" {
		t.Errorf("outages are %+v", got)
	}
	if diff := cmp.Diff([]string{"south back 2/2"}, say(z.Forget("n3"))); diff != "" {
		t.Errorf("a site that is deleted (-want +got):\n%s", diff)
	}
	if got := z.Forget("unheard of"); got != nil {
		t.Errorf("a site that nobody knows: %v", got)
	}
}
