package outage

import (
	"slices"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// When silence is a zone's and not its sites': so many sites at least, so large a part of the zone, and all
// within so long.
const (
	minSites = 3
	together = 90 * time.Second
)

// Zone is an outage of a whole zone.
type Zone struct {
	Name string
	// Away of the zone's Sites fell silent together, the first of them at Since.
	Away, Sites int
	Since       time.Time
}

// Zones finds zones that fell silent as a whole. The zero value knows no site. It is safe for concurrent use.
type Zones struct {
	mu    sync.Mutex
	sites map[fleet.SiteName]member
	zones map[string]*zone
}

type member struct {
	zone string
	// silent is since when nothing was heard; zero while the site is there, or away for a reason of its own.
	silent time.Time
}

type zone struct {
	sites map[fleet.SiteName]struct{}
	// silent is how many of them are.
	silent int
	// outage is when the zone's silence began; zero when it is not silent.
	outage time.Time
}

// Change is an outage that began or ended.
type Change struct {
	Zone
	Ended bool
	// Of are the zone's sites, sorted.
	Of []fleet.SiteName
}

// Observe tells of one site: its zone, empty for none, and since when it is silent, zero when it is not or left
// for a reason that it said. It returns what that changes for a zone, nil when nothing.
func (z *Zones) Observe(site fleet.SiteName, zoneName string, silent time.Time) []Change {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.sites == nil {
		z.sites, z.zones = map[fleet.SiteName]member{}, map[string]*zone{}
	}
	old, known := z.sites[site]
	if known && old.zone == zoneName && old.silent.Equal(silent) {
		return nil
	}
	var changes []Change
	if known && old.zone != zoneName {
		changes = z.leave(site, old)
		old = member{}
	}
	z.sites[site] = member{zoneName, silent}
	if zoneName == "" {
		return changes
	}
	if z.zones[zoneName] == nil {
		z.zones[zoneName] = &zone{sites: map[fleet.SiteName]struct{}{}}
	}
	z.zones[zoneName].sites[site] = struct{}{}
	z.zones[zoneName].silent += one(silent) - one(old.silent)
	return append(changes, z.look(zoneName)...)
}

// Forget tells that a site is no more.
func (z *Zones) Forget(site fleet.SiteName) []Change {
	z.mu.Lock()
	defer z.mu.Unlock()
	old, known := z.sites[site]
	delete(z.sites, site)
	if !known || old.zone == "" {
		return nil
	}
	return z.leave(site, old)
}

// one counts a site that is silent since then.
func one(since time.Time) int {
	if since.IsZero() {
		return 0
	}
	return 1
}

// leave takes a site, as it was known, out of its zone.
func (z *Zones) leave(site fleet.SiteName, was member) []Change {
	name := was.zone
	if z.zones[name] == nil {
		return nil
	}
	delete(z.zones[name].sites, site)
	z.zones[name].silent -= one(was.silent)
	changes := z.look(name)
	if len(z.zones[name].sites) == 0 {
		delete(z.zones, name)
	}
	return changes
}

// Silent returns the outage of a zone; nil when it has none.
func (z *Zones) Silent(name string) *Zone {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.zones[name] == nil || z.zones[name].outage.IsZero() {
		return nil
	}
	out := z.describe(name)
	return &out
}

// Outages returns every outage there is, by the names of zones.
func (z *Zones) Outages() []Zone {
	z.mu.Lock()
	defer z.mu.Unlock()
	var out []Zone
	for name, state := range z.zones {
		if !state.outage.IsZero() {
			out = append(out, z.describe(name))
		}
	}
	slices.SortFunc(out, func(a, b Zone) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// look decides whether a zone is silent. An outage begins when at least half of the zone fell silent together,
// and ends when less than half of the zone is silent.
func (z *Zones) look(name string) []Change {
	state := z.zones[name]
	enough := func(n int) bool { return n >= minSites && 2*n >= len(state.sites) }
	switch {
	case state.outage.IsZero() && enough(state.silent):
		// Looked at only now: most sites that fall silent are few, and a zone may have thousands.
		silent := z.silentSites(name)
		if !enough(largest(silent)) {
			return nil
		}
		state.outage = silent[0]
		return []Change{{Zone: z.describe(name), Of: z.members(name)}}
	case !state.outage.IsZero() && !enough(state.silent):
		c := Change{Zone: z.describe(name), Ended: true, Of: z.members(name)}
		state.outage = time.Time{}
		return []Change{c}
	}
	return nil
}

// silentSites returns since when the silent sites of a zone are, in order.
func (z *Zones) silentSites(name string) []time.Time {
	var out []time.Time
	for site := range z.zones[name].sites {
		if since := z.sites[site].silent; !since.IsZero() {
			out = append(out, since)
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

// largest is how many of the times lie within one span of together.
func largest(times []time.Time) int {
	most, from := 0, 0
	for to := range times {
		for times[to].Sub(times[from]) > together {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

func (z *Zones) describe(name string) Zone {
	return Zone{Name: name, Away: z.zones[name].silent, Sites: len(z.zones[name].sites), Since: z.zones[name].outage}
}

func (z *Zones) members(name string) []fleet.SiteName {
	var out []fleet.SiteName
	for site := range z.zones[name].sites {
		out = append(out, site)
	}
	slices.Sort(out)
	return out
}
