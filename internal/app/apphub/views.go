package apphub

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

func (f *Feature) registerViews(h *hub.Host) {
	h.Public.HandleFunc("GET "+app.PathStatus, f.status)
	h.Public.HandleFunc("GET "+app.PathLogs, f.logs)
}

func (f *Feature) status(w http.ResponseWriter, r *http.Request) {
	key := fleet.AppKey{Namespace: r.PathValue("namespace"), Name: r.PathValue("app")}
	if _, err := f.host.People.Check(r, hub.Right{Verb: "get", Resource: "apps", Subresource: "status", Namespace: key.Namespace, Name: key.Name}); err != nil {
		hub.Fail(w, err)
		return
	}
	view, err := f.view(r.Context(), key)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	hub.Answer(w, http.StatusOK, view)
}

// view joins what each site was told with what it said of it.
func (f *Feature) view(ctx context.Context, key fleet.AppKey) (app.StatusView, error) {
	var a v1alpha1.App
	err := f.host.Client.Get(ctx, objectKey(key), &a)
	if apierrors.IsNotFound(err) {
		return app.StatusView{}, fmt.Errorf("app %s: %w", key, hub.ErrNotFound)
	}
	if err != nil {
		return app.StatusView{}, fmt.Errorf("read app %s: %w", key, err)
	}
	view := app.StatusView{App: key, Release: a.Status.Release, Version: a.Status.Version, Sites: []app.SiteStatus{}}
	if c := meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		view.Ready, view.Message = string(c.Status), c.Message
	}
	for _, name := range f.book.sitesOf(key) {
		view.Sites = append(view.Sites, f.line(name, key))
	}
	return view, nil
}

func (f *Feature) line(site fleet.SiteName, key fleet.AppKey) app.SiteStatus {
	told := f.book.told(site, key)
	s := app.SiteStatus{
		Site: site, Link: f.host.Fleet.Link(site), Phase: fleet.PhasePending,
		Desired: app.ReleaseRef{Release: told.Release, Version: told.Version, Digest: told.Digest},
	}
	if heard := f.host.Fleet.LastHeard(site); !heard.IsZero() {
		s.LastHeard = heard.Unix()
	}
	state := app.SiteState{Site: site, Link: s.Link, Target: told.Digest, Told: told.Digest}
	reports := siteApps(f.host.Fleet, site)
	if i := slices.IndexFunc(reports, func(r app.AppReport) bool { return r.App == key }); i >= 0 {
		r := reports[i]
		state.Report = &r
		s.Running, s.Restarts, s.URL, s.Counts, s.Conditions = r.Running, r.Restarts, r.URL, r.Counts, r.Conditions
		if r.Desired.Digest == told.Digest {
			s.Phase, s.Since, s.Message = r.Phase, r.Since, r.Message
		}
	}
	s.Standing = state.Standing()
	s.Healthy = s.Standing == app.StandingHealthy
	return s
}

func (f *Feature) logs(w http.ResponseWriter, r *http.Request) {
	key := fleet.AppKey{Namespace: r.PathValue("namespace"), Name: r.PathValue("app")}
	if _, err := f.host.People.Check(r, hub.Right{Verb: "get", Resource: "apps", Subresource: "log", Namespace: key.Namespace, Name: key.Name}); err != nil {
		hub.Fail(w, err)
		return
	}
	site, request, err := f.logsRequest(r, key)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	out := http.NewResponseController(w)
	started := false
	err = f.host.Caller.Stream(r.Context(), site, app.MethodLogs, request, func(part []byte) error {
		if !started {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Trailer", hub.TrailerError)
			started = true
		}
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("write to the caller: %w", err)
		}
		return out.Flush()
	})
	switch {
	case err != nil && !started:
		hub.Fail(w, err)
	case err != nil:
		w.Header().Set(hub.TrailerError, err.Error())
	}
}

// logsRequest reads and checks the query of a request for logs. The site must have been told of the app:
// the right to an app's log is not one to ask any site.
func (f *Feature) logsRequest(r *http.Request, key fleet.AppKey) (fleet.SiteName, app.LogsRequest, error) {
	q := r.URL.Query()
	site := fleet.SiteName(q.Get("site"))
	request := app.LogsRequest{App: key, Tail: app.DefaultTail, Follow: q.Get("follow") == "true"}
	if t := q.Get("tail"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil {
			return "", request, fmt.Errorf("tail: %q is not a number of lines: %w", t, hub.ErrBadRequest)
		}
		request.Tail = n
	}
	if err := f.host.Client.Get(r.Context(), objectKey(key), &v1alpha1.App{}); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return "", request, fmt.Errorf("app %s: %w", key, hub.ErrNotFound)
		}
		return "", request, fmt.Errorf("read app %s: %w", key, err)
	}
	sites := f.book.sitesOf(key)
	if site == "" && len(sites) == 1 {
		site = sites[0]
	}
	if site == "" {
		return "", request, fmt.Errorf("site: app %s runs on %d sites, name one: %w", key, len(sites), hub.ErrBadRequest)
	}
	if !slices.Contains(sites, site) {
		return "", request, fmt.Errorf("app %s is not placed on site %q: %w", key, site, hub.ErrNotFound)
	}
	return site, request, nil
}
