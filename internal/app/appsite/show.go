package appsite

import (
	"maps"
	"reflect"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// at says what the worker is doing. A retry says nothing: until it succeeds the failure stands.
func (w *worker) at(phase fleet.Phase) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failures == 0 {
		w.step = view{phase: phase}
	}
	w.refresh()
}

// refresh works out what reports and the gateway should say, and tells them if that changed. The caller
// holds the lock.
func (w *worker) refresh() {
	route := w.routing()
	if (route == nil) != (w.route == nil) || route != nil && *route != *w.route {
		if w.route = route; route == nil {
			w.m.host.Router.Remove(w.key)
		} else {
			w.m.host.Router.Set(w.key, *route)
		}
	}
	if now := w.seen(); now != w.shown {
		if now.phase != w.shown.phase {
			w.since = time.Now()
		}
		w.shown = now
	}
	if now := w.reportLocked(); !reflect.DeepEqual(now, w.reported) {
		if !w.closing {
			for _, e := range app.Happened(w.reported, now) {
				w.m.host.Events.Add(e)
			}
		}
		w.reported = now
		w.m.host.Changed()
	}
}

// seen is where the desired release stands.
func (w *worker) seen() view {
	switch {
	case w.want != nil && w.current != nil && w.current.rel.digest() == w.want.Digest:
		return view{w.current.status.Phase, w.current.status.Message}
	case w.candidate != nil && w.failures == 0 && w.candidate.status.Phase != fleet.PhaseRunning:
		return view{w.candidate.status.Phase, w.candidate.status.Message}
	}
	return w.step
}

// routing is what the gateway should do with the app's requests, nil when it has none.
func (w *worker) routing() *site.Route {
	rel := w.want
	if w.current != nil {
		rel = &w.current.rel.Placement
	}
	if rel == nil || rel.Route == nil || w.want == nil {
		return nil
	}
	route := &site.Route{Host: rel.Route.Host, Path: rel.Route.Path, Release: rel.Release, State: site.RouteStarting}
	switch {
	case w.closing:
	case w.held:
		route.State = site.RouteHeld
	case w.current != nil && w.current.status.Phase == fleet.PhaseRunning:
		route.State = site.RouteReady
		route.Target, route.Handler = w.current.status.Target, w.current.status.Handler
	case w.current != nil && w.current.status.Phase == fleet.PhaseFailed, w.current == nil && w.failures > 0:
		route.State = site.RouteDown
	}
	return route
}

// report is the app's part of the module's report, but for its counts.
func (w *worker) report() app.AppReport {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reportLocked()
}

func (w *worker) reportLocked() app.AppReport {
	r := app.AppReport{
		App: w.key, Phase: w.shown.phase, Message: w.shown.message, Since: w.since.Unix(), Restarts: w.restarts,
		Desired: release{Placement: w.record.Desired}.ref(),
	}
	r.Conditions = maps.Clone(w.remarks)
	if w.current == nil {
		return r
	}
	r.Restarts += w.current.status.Restarts
	for reason, remark := range w.current.status.Conditions {
		if r.Conditions == nil {
			r.Conditions = map[string]string{}
		}
		r.Conditions[reason] = remark
	}
	if w.current.status.Phase.Healthy() {
		r.Running = w.current.rel.ref()
	}
	if w.route != nil {
		r.URL = publicURL(w.m.host.Router.URL(), *w.route)
	}
	return r
}
