package httpgateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// unixSuffix marks a host that stands for a socket in the file system: its first part is the path in
// hexadecimal. The top-level name is reserved and never resolved (RFC 2606).
const unixSuffix = ".socket.invalid"

// table knows the routes and what is in flight to each target. Both are under one lock, so that after Set
// no request can still begin at the former target.
type table struct {
	mu     sync.Mutex
	routes []*entry
	// targets by the URL that the caller knows them by; one is there while something is in flight to it.
	targets map[string]*target
}

// entry is one app's route.
type entry struct {
	app   fleet.AppKey
	route site.Route
	// upstream is route.Target, parsed; nil when the state is not RouteReady or a handler answers.
	upstream *url.URL
	// changed closes when the entry is replaced or removed.
	changed chan struct{}
}

type target struct {
	inFlight int
	// idle closes when the last request ends.
	idle chan struct{}
}

func newTable() *table { return &table{targets: map[string]*target{}} }

// set replaces the app's route. One that cannot be used becomes RouteDown, and the error says why.
func (t *table) set(app fleet.AppKey, route site.Route) error {
	e := &entry{app: app, route: route, changed: make(chan struct{})}
	e.route.Host = strings.ToLower(route.Host)
	e.route.Path = "/" + strings.Trim(route.Path, "/")
	var err error
	if route.State == site.RouteReady && route.Handler == nil {
		if e.upstream, err = parseTarget(route.Target); err != nil {
			e.route.State = site.RouteDown
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(app)
	t.routes = append(t.routes, e)
	slices.SortFunc(t.routes, compareEntries)
	return err
}

func (t *table) remove(app fleet.AppKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(app)
}

func (t *table) drop(app fleet.AppKey) {
	t.routes = slices.DeleteFunc(t.routes, func(e *entry) bool {
		if e.app == app {
			close(e.changed)
		}
		return e.app == app
	})
}

// compareEntries orders routes by precedence: with a host first, then the longer path, then the lower app.
func compareEntries(a, b *entry) int {
	if (a.route.Host == "") != (b.route.Host == "") {
		if a.route.Host != "" {
			return -1
		}
		return 1
	}
	if d := len(b.route.Path) - len(a.route.Path); d != 0 {
		return d
	}
	return strings.Compare(a.app.String(), b.app.String())
}

// acquire finds the route of a request and, when it is ready, counts the request as in flight to its
// target until release. A nil entry means that no app answers there.
func (t *table) acquire(host, path string) (e *entry, release func()) {
	host = bareHost(host)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.routes {
		if (e.route.Host == "" || e.route.Host == host) && matches(e.route.Path, path) {
			return e, t.hold(e)
		}
	}
	return nil, nil
}

// acquireApp does the same for the app's route, whatever the path.
func (t *table) acquireApp(app fleet.AppKey) (e *entry, release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.routes {
		if e.app == app {
			return e, t.hold(e)
		}
	}
	return nil, nil
}

func (t *table) hold(e *entry) (release func()) {
	if e.route.State != site.RouteReady {
		return func() {}
	}
	name := e.route.Target
	to := t.targets[name]
	if to == nil {
		to = &target{idle: make(chan struct{})}
		t.targets[name] = to
	}
	to.inFlight++
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if to.inFlight--; to.inFlight == 0 {
			close(to.idle)
			delete(t.targets, name)
		}
	})
}

func (t *table) drain(ctx context.Context, name string) error {
	for {
		t.mu.Lock()
		to := t.targets[name]
		t.mu.Unlock()
		if to == nil {
			return nil
		}
		select {
		case <-to.idle:
		case <-ctx.Done():
			return fmt.Errorf("gateway: requests to %s are still in flight: %w", name, ctx.Err())
		}
	}
}

// drainAll returns when nothing is in flight; the caller has seen to it that everything ends.
func (t *table) drainAll() {
	for {
		t.mu.Lock()
		var any *target
		for _, to := range t.targets {
			any = to
		}
		t.mu.Unlock()
		if any == nil {
			return
		}
		<-any.idle
	}
}

// matches reports whether path lies at or below prefix, in whole segments.
func matches(prefix, path string) bool {
	if prefix == "/" {
		return strings.HasPrefix(path, "/")
	}
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

func bareHost(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func parseTarget(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("target: %w", err)
	case u.Scheme == "http" && u.Host != "":
		return &url.URL{Scheme: "http", Host: u.Host}, nil
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		return &url.URL{Scheme: "http", Host: hex.EncodeToString([]byte(u.Path)) + unixSuffix}, nil
	}
	return nil, fmt.Errorf("target %q: %w", s, errTarget)
}

var errTarget = errors.New("want http://host:port or unix:///path")
