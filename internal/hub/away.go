package hub

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub/outage"
)

// Transport tells what became of the connections of a site: evidence for what to believe of one that is away.
func (f *Fleet) Transport(site fleet.SiteName, now fleet.Transport) {
	f.mu.Lock()
	s := f.state(site)
	changed := s.transport != now && f.linkOf(s) == fleet.LinkAway
	s.transport = now
	f.mu.Unlock()
	if changed {
		f.changed(site)
	}
}

// takeNeighbours replaces what one site says of its neighbours, and returns those of whom it says something else
// now. The caller holds f.mu.
func (f *Fleet) takeNeighbours(by fleet.SiteName, old, now map[fleet.SiteName]bool) (changed []fleet.SiteName) {
	for other := range old {
		if _, still := now[other]; !still {
			if s, ok := f.sites[other]; ok {
				delete(s.heardBy, by)
				changed = append(changed, other)
			}
		}
	}
	for other, hears := range now {
		s, ok := f.sites[other]
		if !ok {
			continue // a site that never spoke: nothing can be believed of it
		}
		if was, told := s.heardBy[by]; told && was == hears {
			continue
		}
		if s.heardBy == nil {
			s.heardBy = map[fleet.SiteName]bool{}
		}
		s.heardBy[by] = hears
		changed = append(changed, other)
	}
	return changed
}

// evidence is what is known of a site that is away, and since when it is silent: by this hub's own ears, or since
// it started when it heard nothing.
func (f *Fleet) evidence(site fleet.SiteName) (outage.Evidence, time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state(site)
	since := s.lastHeard
	if since.IsZero() {
		since = f.started
	}
	e := outage.Evidence{Silent: f.now().Sub(since), Left: s.leaving, Leaving: s.reason, Transport: s.transport}
	for other, hears := range s.heardBy {
		if f.linkOf(f.sites[other]) != fleet.LinkConnected {
			continue // what it said is old
		}
		if hears {
			e.Hear = append(e.Hear, other)
		} else {
			e.Miss = append(e.Miss, other)
		}
	}
	slices.Sort(e.Hear)
	slices.Sort(e.Miss)
	return e, since
}

// settleTime is how long after its start a hub calls no zone silent: sites pause up to half a minute between two
// tries to connect.
const settleTime = 2 * time.Minute

// judge sets what is believed of a site that is away, and returns when to look again without news; zero: never.
func (r *siteReconciler) judge(site *v1alpha1.Site) (again time.Duration) {
	name := fleet.SiteName(site.Name)
	e, since := r.host.Fleet.evidence(name)
	heard := !r.host.Fleet.LastHeard(name).IsZero()
	if before := site.Status.Away; before != nil && !heard {
		since = before.Since.Time
		e.Silent = r.host.Now().Sub(since)
	}
	silent := since
	switch settled := r.host.Now().Sub(r.host.Fleet.started); {
	case e.Left:
		silent = time.Time{}
	case !heard && settled < settleTime:
		silent, again = time.Time{}, settleTime-settled
	}
	r.announce(r.zones.Observe(name, site.Spec.Zone, silent))
	e.Zone = r.zones.Silent(site.Spec.Zone)
	belief, why := outage.Judge(e)
	if before := site.Status.Away; before != nil && !heard && belief == outage.Unknown && e.Zone == nil {
		return again // this hub knows less than the one before it
	}
	away := &v1alpha1.SiteAway{Since: metav1.NewTime(since.Truncate(time.Second)), Belief: string(belief), Why: why}
	if e.Zone != nil {
		away.Zone = e.Zone.Name
	}
	site.Status.Away = away
	if next := outage.AskAgain(e); again == 0 || next > 0 && next < again {
		again = next
	}
	return again
}

// present notes that a site is there, or was never.
func (r *siteReconciler) present(site *v1alpha1.Site) {
	site.Status.Away = nil
	r.announce(r.zones.Observe(fleet.SiteName(site.Name), site.Spec.Zone, time.Time{}))
}

// announce makes one event of a zone that fell silent, or is back, and has its sites judged again.
func (r *siteReconciler) announce(changes []outage.Change) {
	hub := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: SystemNamespace, Name: InfoConfigMap}}
	for _, c := range changes {
		if c.Ended {
			r.host.Log.Info("zone is back", "zone", c.Name, "away", c.Away, "sites", c.Sites)
			r.events.Eventf(hub, nil, corev1.EventTypeNormal, "ZoneBack", "Observe", "zone %s is back: %d of its %d sites are still away", c.Name, c.Away, c.Sites)
		} else {
			r.host.Log.Warn("zone fell silent", "zone", c.Name, "away", c.Away, "sites", c.Sites, "since", c.Since)
			r.events.Eventf(hub, nil, corev1.EventTypeWarning, "ZoneSilent", "Observe", "zone %s fell silent: %d of its %d sites are away, which looks like their network", c.Name, c.Away, c.Sites)
		}
		for _, site := range c.Of {
			r.changes.NotifySite(site)
		}
	}
}

// awayMessage is the message of the condition of a site that is away.
func awayMessage(away *v1alpha1.SiteAway) string {
	text := "the site is not connected: " + cmp.Or(away.Why, "nobody knows why")
	if away.Belief == string(outage.LinkDown) {
		text += "; its apps go on by themselves"
	}
	return text
}
