package site

import (
	"context"
	"net/http"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Router is the site's gateway as runtimes see it. It is the only way in which a runtime tells where an
// app answers. All methods are safe for concurrent use and take effect for the next request.
type Router interface {
	// Set makes route the one of app, in place of what was set before. Requests that are in flight to
	// another target go on there.
	Set(app fleet.AppKey, route Route)
	// Remove forgets the app: its paths answer 404. Requests in flight go on.
	Remove(app fleet.AppKey)
	// Drain returns when no request to target is in flight any more, or with ctx's error. The caller
	// first calls Set or Remove, so that no new one begins.
	Drain(ctx context.Context, target string) error
	// Counts returns what was counted for each app since the agent started.
	Counts() map[fleet.AppKey]fleet.RequestCounts
	// URL is where people reach the gateway, such as "http://127.0.0.1:8081"; empty while it does not
	// listen.
	URL() string
}

// Route says which requests belong to an app and where they go.
type Route struct {
	// Host is matched without its port, lower-case; empty matches every host.
	Host string
	// Path is a prefix in whole segments: "/a" matches "/a" and "/a/b", not "/ab". Always begins with
	// "/". The longest match wins; a route with a host wins over one without. Of two apps with the same
	// host and path the lower AppKey wins. The path is passed on unchanged.
	Path string
	// State says what to do with requests.
	State RouteState
	// Target is the URL of the instance that answers, "http://127.0.0.1:1234" or "unix:///path"; used
	// with RouteReady only. With a Handler it is any name that no other instance has, for Drain.
	Target string
	// Handler, when not nil, answers in place of a server at Target: the instance lives in this process. It
	// gets the request as a server at Target would. It must be comparable, such as a pointer; two that
	// differ are two instances. It answers its own failures.
	Handler http.Handler
	// Release is the name of the release that answers, passed to it in no header but named in errors.
	Release string
}

// RouteState is what the gateway does with the requests of a route.
type RouteState int

// The states of a route.
const (
	// RouteStarting answers 503 with Retry-After: no instance was ready yet.
	RouteStarting RouteState = iota
	// RouteReady passes requests to Target.
	RouteReady
	// RouteHeld keeps requests waiting for the next state, HoldSeconds at most and a bounded number of
	// them; then they are answered like RouteStarting.
	RouteHeld
	// RouteDown answers 503: the app cannot run.
	RouteDown
)

// HoldSeconds is how long a held request waits at most.
const HoldSeconds = 10
