package apphub

import (
	"fmt"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// routeTakenError says that another app has the route at the site.
type routeTakenError struct{ holder fleet.AppKey }

// Error implements error.
func (e *routeTakenError) Error() string { return fmt.Sprintf("the route is that of app %s", e.holder) }

// routeTaken says to a person why an app cannot run at a site.
func routeTaken(route *app.Route, holder fleet.AppKey) string {
	return fmt.Sprintf("route: %s%s belongs to app %s at this site: choose another path or host", route.Host, route.Path, holder)
}

// holder returns the app that has the placement's route at this site already. p.mu is held.
func (p *page) holder(placement app.Placement) (fleet.AppKey, bool) {
	if placement.Route == nil {
		return fleet.AppKey{}, false
	}
	for key, other := range p.apps {
		if key != placement.App && other.Route != nil && *other.Route == *placement.Route {
			return key, true
		}
	}
	return fleet.AppKey{}, false
}

// keep remembers that an app waits for a route. p.mu is held.
func (p *page) keep(route app.Route, key fleet.AppKey) {
	if p.kept[route] == nil {
		p.kept[route] = map[fleet.AppKey]bool{}
	}
	p.kept[route][key] = true
}

// free tells the apps that wait for a route to try again. p.mu is held.
func (b *book) free(p *page, route app.Route) {
	for key := range p.kept[route] {
		b.freed(key)
	}
	delete(p.kept, route)
}

// routeHolder returns the app that has the route which placement wants at a site. The app that wants it is
// told through freed when it may try again.
func (b *book) routeHolder(site fleet.SiteName, placement app.Placement) (fleet.AppKey, bool) {
	b.mu.RLock()
	p, ok := b.sites[site]
	b.mu.RUnlock()
	if !ok {
		return fleet.AppKey{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	holder, taken := p.holder(placement)
	if taken && p.apps[placement.App].Digest != placement.Digest {
		p.keep(*placement.Route, placement.App)
		return holder, true
	}
	return fleet.AppKey{}, false
}
