package eventhub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/skerry-dev/skerry/internal/event"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
)

// historyTimeout bounds reading what is kept of one site.
const historyTimeout = 30 * time.Second

// view answers with the newest events that were asked for and, when asked to follow, with those that come.
func (f *Feature) view(w http.ResponseWriter, r *http.Request) {
	query, limit, err := parse(r.URL.Query())
	if err != nil {
		hub.Fail(w, err)
		return
	}
	q, err := f.allowed(r, query)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	past, next, err := f.past(r.Context(), q)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	if len(past) > limit {
		past = past[len(past)-limit:]
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	for _, e := range past {
		if out.Encode(e) != nil {
			return // the caller has gone
		}
	}
	if r.URL.Query().Get(event.QueryFollow) == "true" {
		f.followFor(r.Context(), w, q, next)
	}
}

// followFor writes entries as they come until the caller goes.
func (f *Feature) followFor(ctx context.Context, w http.ResponseWriter, q chosen, next uint64) {
	out, flusher := json.NewEncoder(w), http.NewResponseController(w)
	for {
		if flusher.Flush() != nil {
			return
		}
		entries, after, more := f.tail.since(next)
		next = after
		wrote := false
		for _, e := range entries {
			if q.match(e) {
				wrote = true
				if out.Encode(e) != nil {
					return
				}
			}
		}
		if wrote {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-more:
		}
	}
}

// past returns what is kept now, and the number in the tail from which on entries are newer.
func (f *Feature) past(ctx context.Context, q chosen) (entries []event.Entry, next uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	select {
	case <-f.tail.ready:
	case <-ctx.Done():
		return nil, 0, fmt.Errorf("the hub is still reading its events: %w", ctx.Err())
	}
	var kept []event.Entry
	if q.Site != "" {
		// One site's are read from the stream, which holds more of them than memory.
		if kept, err = f.history(ctx, q.Site); err != nil {
			return nil, 0, err
		}
	}
	newest := map[number]uint64{}
	for _, e := range kept {
		newest[number{e.Member, e.Epoch}] = e.Sequence
	}
	recent, next, _ := f.tail.since(0)
	for _, e := range recent {
		if q.Site == "" || e.Site == q.Site && e.Sequence > newest[number{e.Member, e.Epoch}] {
			kept = append(kept, e)
		}
	}
	for _, e := range kept {
		if q.match(e) {
			entries = append(entries, e)
		}
	}
	return entries, next, nil
}

// number is what sequences of one site are counted in.
type number struct {
	member fleet.MemberID
	epoch  string
}

func (f *Feature) history(ctx context.Context, site fleet.SiteName) ([]event.Entry, error) {
	select {
	case f.reading <- struct{}{}:
		defer func() { <-f.reading }()
	case <-ctx.Done():
		return nil, fmt.Errorf("read events of site %s: too many ask at once: %w", site, ctx.Err())
	}
	ctx, done := context.WithCancelCause(ctx)
	defer done(nil)
	errAll := errors.New("that is all")
	var ledger event.Ledger
	var entries []event.Entry
	err := f.store.History(ctx, wire.EventsPattern(site), 0, func(m wire.Message) {
		if m.Subject == "" {
			done(errAll)
			return
		}
		if batch, err := decode(m); err == nil && !errors.Is(context.Cause(ctx), errAll) {
			entries = append(entries, ledger.Take(batch)...)
		}
	})
	if !errors.Is(context.Cause(ctx), errAll) {
		return nil, fmt.Errorf("read events of site %s: %w", site, err)
	}
	return entries, nil
}

// chosen is a query and what its caller may see of it.
type chosen struct {
	event.Query
	// sites and apps say whether events of sites themselves, and of apps in every namespace, may be seen.
	sites, apps bool
}

func (c chosen) match(e event.Entry) bool {
	if e.App == (fleet.AppKey{}) {
		return c.sites && c.Match(e)
	}
	return (c.apps || c.Namespace != "") && c.Match(e)
}

// allowed asks what the caller may see. Events of apps are as visible as the apps, those of sites as the sites.
func (f *Feature) allowed(r *http.Request, q event.Query) (chosen, error) {
	c := chosen{Query: q}
	if q.Namespace != "" {
		_, err := f.host.People.Check(r, hub.Right{Verb: "list", Resource: "apps", Namespace: q.Namespace})
		return c, err
	}
	_, err := f.host.People.Check(r, hub.Right{Verb: "list", Resource: "sites"})
	if err != nil {
		return c, fmt.Errorf("%w; with -n NAMESPACE you see the events of the apps there", err)
	}
	c.sites = true
	_, err = f.host.People.Check(r, hub.Right{Verb: "list", Resource: "apps"})
	c.apps = err == nil
	if err != nil && !errors.Is(err, hub.ErrForbidden) {
		return c, err
	}
	return c, nil
}

func parse(v url.Values) (q event.Query, limit int, err error) {
	q = event.Query{Site: fleet.SiteName(v.Get(event.QuerySite)), Namespace: v.Get(event.QueryNamespace), App: v.Get(event.QueryApp)}
	if q.Site != "" {
		if err := q.Site.Validate(); err != nil {
			return q, 0, fmt.Errorf("%s: %w: %w", event.QuerySite, err, hub.ErrBadRequest)
		}
	}
	if q.App != "" && q.Namespace == "" {
		return q, 0, fmt.Errorf("%s: name the namespace of app %q too: %w", event.QueryApp, q.App, hub.ErrBadRequest)
	}
	for _, c := range v[event.QueryClass] {
		if class(fleet.EventClass(c)) != c {
			return q, 0, fmt.Errorf("%s: %q, want one of %v: %w", event.QueryClass, c, fleet.EventClasses(), hub.ErrBadRequest)
		}
		q.Classes = append(q.Classes, fleet.EventClass(c))
	}
	limit = event.DefaultLimit
	if text := v.Get(event.QueryLimit); text != "" {
		limit, err = strconv.Atoi(text)
		if err != nil || limit < 0 || limit > event.MaxLimit {
			return q, 0, fmt.Errorf("%s: %q, want a number up to %d: %w", event.QueryLimit, text, event.MaxLimit, hub.ErrBadRequest)
		}
	}
	return q, limit, nil
}
