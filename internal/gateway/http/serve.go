package httpgateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

const headerRequestID = "X-Request-Id"

// maxRequestID bounds an accepted request id.
const maxRequestID = 128

// passage is one request on its way through the gateway.
type passage struct {
	id    string
	entry *entry
	// release ends the count of the request as in flight to entry's target.
	release func()
}

type passageKey struct{}

// ServeHTTP serves one request of a caller.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := &passage{id: requestID(r)}
	w.Header().Set(headerRequestID, p.id)
	rec := &recorder{ResponseWriter: w, begun: time.Now()}
	defer g.finish(rec, r, p)
	if g.inFlight.Add(1) > int64(g.opts.MaxInFlight) {
		g.inFlight.Add(-1)
		g.answer(rec, r, p, http.StatusServiceUnavailable, "This site serves as many requests as it can. Try again soon.")
		return
	}
	defer g.inFlight.Add(-1)
	if !g.find(rec, r, p) {
		return
	}
	// The release may move to another target during a retry, so it is read at the end.
	defer func() { p.release() }()
	if r.ContentLength > g.opts.MaxBodyBytes {
		g.tooLarge(rec, r, p)
		return
	}
	if r.Body != nil && r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(rec, r.Body, g.opts.MaxBodyBytes)
	}
	if h := p.entry.route.Handler; h != nil {
		h.ServeHTTP(rec, inside(r, p))
		return
	}
	g.proxy.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), passageKey{}, p)))
}

// find fills in where the request goes. When it goes nowhere it is answered, and find returns false.
func (g *Gateway) find(w *recorder, r *http.Request, p *passage) bool {
	e, release := g.table.acquire(r.Host, r.URL.Path)
	if e != nil && e.route.State == site.RouteHeld {
		e, release = g.hold(r, e)
	}
	if e == nil {
		g.answer(w, r, p, http.StatusNotFound, fmt.Sprintf("No app of this site answers at %s.", r.URL.Path))
		return false
	}
	p.entry, p.release = e, release
	switch e.route.State {
	case site.RouteReady:
		return true
	case site.RouteDown:
		g.answer(w, r, p, http.StatusServiceUnavailable, fmt.Sprintf("App %s cannot run at this site now%s.", e.app, ofRelease(e)))
	default:
		g.answer(w, r, p, http.StatusServiceUnavailable, fmt.Sprintf("App %s is starting%s.", e.app, ofRelease(e)))
	}
	return false
}

func ofRelease(e *entry) string {
	if e.route.Release == "" {
		return ""
	}
	return " (release " + e.route.Release + ")"
}

// hold waits until the route of the request is no longer held, for a bounded time and within a bounded
// crowd, and returns the route as it then is.
func (g *Gateway) hold(r *http.Request, e *entry) (*entry, func()) {
	if g.held.Add(1) > int64(g.opts.MaxHeld) {
		g.held.Add(-1)
		return e, func() {}
	}
	defer g.held.Add(-1)
	patience := time.NewTimer(g.opts.Hold)
	defer patience.Stop()
	for {
		select {
		case <-e.changed:
		case <-patience.C:
			return e, func() {}
		case <-r.Context().Done():
			return e, func() {}
		}
		next, release := g.table.acquire(r.Host, r.URL.Path)
		if next == nil || next.route.State != site.RouteHeld {
			return next, release
		}
		e = next
	}
}

// finish counts the request when it is over, also when its handler gave up in the middle.
func (g *Gateway) finish(rec *recorder, r *http.Request, p *passage) {
	var app fleet.AppKey
	status, latency := rec.result()
	switch {
	case p.entry != nil:
		app = p.entry.app
		g.counts.add(app, status, latency)
	case status == http.StatusNotFound:
		g.counts.addUnknown()
	}
	g.log.Debug("request", "method", r.Method, "host", r.Host, "path", r.URL.Path, "status", status,
		"latency", latency, "app", app.String(), "id", p.id)
}

// requestID takes over the caller's id when it is fit for logs and headers, or makes one.
func requestID(r *http.Request) string {
	id := r.Header.Get(headerRequestID)
	if id != "" && len(id) <= maxRequestID && strings.IndexFunc(id, unfitForID) < 0 {
		return id
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, as its documentation says
	return hex.EncodeToString(b[:])
}

func unfitForID(c rune) bool {
	alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	return !alnum && !strings.ContainsRune("-_.:/+=@", c)
}

// recorder notes the status and the time of the first byte of an answer: a stream's length says nothing of
// how fast an app answers. It is used by one goroutine at a time.
type recorder struct {
	http.ResponseWriter
	begun   time.Time
	status  int
	latency time.Duration
}

// Unwrap lets http.ResponseController flush and hijack.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader notes the first final status.
func (r *recorder) WriteHeader(status int) {
	final := status >= 200 || status == http.StatusSwitchingProtocols
	if final && r.status == 0 {
		r.status, r.latency = status, time.Since(r.begun)
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes an implicit status 200.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status, r.latency = http.StatusOK, time.Since(r.begun)
	}
	return r.ResponseWriter.Write(b)
}

// statusClientGone is noted for a caller that left before any answer; the number is nginx's, and no client
// ever sees it.
const statusClientGone = 499

func (r *recorder) result() (int, time.Duration) {
	if r.status == 0 {
		return statusClientGone, time.Since(r.begun)
	}
	return r.status, r.latency
}
