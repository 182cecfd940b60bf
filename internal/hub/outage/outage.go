// Package outage judges what became of sites that the hub does not hear any more: whether the site or only its
// link is down, and whether a whole zone fell silent at once. It belongs to package hub, which alone imports it.
//
// It is logic over values: it does no input or output, knows no clock, and cannot fail. What it says is a belief
// with its reasons, for people: nothing is ever moved or deleted because of it.
package outage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Belief is what the hub thinks of a site that is away.
type Belief string

// The beliefs.
const (
	// Stopped: the agent said that it stops, or that its machine is switched off.
	Stopped Belief = "Stopped"
	// Restarting: it said that it will be back at once.
	Restarting Belief = "Restarting"
	// AgentDown: its machine was up when the agent ended without a word.
	AgentDown Belief = "AgentDown"
	// LinkDown: the site is up as far as anybody can tell; it cannot reach the hub.
	LinkDown Belief = "LinkDown"
	// SiteDown: nobody who could hear it does.
	SiteDown Belief = "SiteDown"
	// Unknown: it fell silent, and there is nobody to ask.
	Unknown Belief = "Unknown"
)

// Evidence is what is known of one site that is away.
type Evidence struct {
	// Silent is for how long nothing was heard.
	Silent time.Duration
	// Left says that the agent's last words were that it stops, and Leaving why.
	Left    bool
	Leaving fleet.Leaving
	// Transport is the hub's end of the connection.
	Transport fleet.Transport
	// Hear and Miss are the neighbours that are connected and do, or do not, hear the site.
	Hear, Miss []fleet.SiteName
	// Zone is set when the site's whole zone is silent.
	Zone *Zone
}

// restartTime is how long a machine may take to come back after it said that it would.
const restartTime = 15 * time.Minute

// maxNamed is how many neighbours a reason names.
const maxNamed = 3

// Judge says what to believe, and why, in words that follow "the site is not connected: ".
func Judge(e Evidence) (Belief, string) {
	switch {
	case len(e.Hear) > 0:
		return LinkDown, "its neighbour " + names(e.Hear) + " hears it, so only its link to the hub is down"
	case e.Left && (e.Leaving == fleet.LeavingReboot || e.Leaving == fleet.LeavingRestart):
		return restarting(e)
	case e.Left && e.Leaving == fleet.LeavingPowerOff:
		return Stopped, "it said that its machine is switched off"
	case e.Left:
		return Stopped, "its agent said that it stops"
	case e.Zone != nil:
		return LinkDown, fmt.Sprintf("%d of %d sites of zone %s fell silent together, which looks like their network", e.Zone.Away, e.Zone.Sites, e.Zone.Name)
	case len(e.Miss) > 0:
		return SiteDown, "its neighbour " + names(e.Miss) + " is connected and does not hear it either"
	}
	switch e.Transport {
	case fleet.TransportClosed:
		return AgentDown, "its machine closed the connection without a word of the agent: the agent was killed or crashed, or the machine was cut off in order"
	case fleet.TransportEnded:
		return Unknown, "the hub ended its connection, and it did not come back"
	case fleet.TransportOpen, fleet.TransportLost:
		return Unknown, "its connection fell silent, as it does when power or network fail, and no neighbour is there to tell which"
	}
	return Unknown, "nothing was heard of it since this hub started"
}

func restarting(e Evidence) (Belief, string) {
	what := "its machine restarts"
	if e.Leaving == fleet.LeavingRestart {
		what = "its agent restarts"
	}
	if e.Silent > restartTime {
		return SiteDown, fmt.Sprintf("it said that %s, and is not back after %v", what, e.Silent.Round(time.Minute))
	}
	return Restarting, "it said that " + what
}

// AskAgain returns after which time without news the judgement of e may become another; zero: never.
func AskAgain(e Evidence) time.Duration {
	if belief, _ := Judge(e); belief == Restarting {
		return restartTime - e.Silent + time.Second
	}
	return 0
}

func names(sites []fleet.SiteName) string {
	sites = slices.Sorted(slices.Values(sites))
	var out []string
	for _, s := range sites[:min(len(sites), maxNamed)] {
		out = append(out, string(s))
	}
	text := strings.Join(out, ", ")
	if more := len(sites) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
