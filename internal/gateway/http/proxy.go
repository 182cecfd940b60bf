package httpgateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/skerry-dev/skerry/internal/site"
)

// Bounds on connections kept to apps. They are let go before usual servers' own time-outs, so that a
// request rarely meets a connection that is just being closed.
const (
	idlePerApp  = 128
	idleTimeout = 30 * time.Second
)

func newUpstream(o Options) *http.Transport {
	dialer := &net.Dialer{Timeout: o.DialTimeout}
	return &http.Transport{
		Proxy: nil, // apps are on this machine
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			if coded, ok := strings.CutSuffix(host, unixSuffix); ok {
				path, err := hex.DecodeString(coded)
				if err != nil {
					return nil, err
				}
				return dialer.DialContext(ctx, "unix", string(path))
			}
			return dialer.DialContext(ctx, network, addr)
		},
		MaxIdleConnsPerHost:   idlePerApp,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: o.ResponseHeaderTimeout,
		DisableCompression:    true, // what the app encoded is passed on as it is
	}
}

func (g *Gateway) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      retrier{g},
		FlushInterval:  -1,
		ModifyResponse: func(res *http.Response) error { res.Header.Del(headerRequestID); return nil },
		ErrorHandler:   g.upstreamFailed,
	}
}

// rewrite makes the request that the app sees. ReverseProxy has removed hop-by-hop headers, Forwarded and
// the usual X-Forwarded ones before.
func rewrite(pr *httputil.ProxyRequest) {
	p := pr.In.Context().Value(passageKey{}).(*passage)
	for name := range pr.Out.Header {
		if spoofs(name) {
			delete(pr.Out.Header, name)
		}
	}
	pr.SetXForwarded()
	pr.Out.Header.Set(headerRequestID, p.id)
	pr.Out.Host = pr.In.Host
	pr.Out.URL.Scheme, pr.Out.URL.Host = p.entry.upstream.Scheme, p.entry.upstream.Host
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
}

// spoofs reports whether a caller's header could pass for one of the gateway's own. Programs that see
// headers as CGI variables (RFC 3875) take '_' for '-', and "Proxy" for the proxy to use.
func spoofs(name string) bool {
	name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" || name == "X-Real-Ip" || name == "Proxy"
}

// retrier asks a second time when the instance went away between the choice of the target and the
// connection to it, which happens when an app crashes and comes back on another port.
type retrier struct{ g *Gateway }

// RoundTrip implements http.RoundTripper.
func (t retrier) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.g.upstream.RoundTrip(r)
	if !errors.Is(err, syscall.ECONNREFUSED) || !repeatable(r) {
		return res, err
	}
	p := r.Context().Value(passageKey{}).(*passage)
	next, release := t.g.table.acquireApp(p.entry.app)
	if next == nil {
		return nil, err
	}
	if next.route.State != site.RouteReady || next.route.Target == p.entry.route.Target {
		release()
		return nil, err
	}
	p.release()
	p.entry, p.release = next, release
	again := r.Clone(r.Context())
	again.URL.Scheme, again.URL.Host = next.upstream.Scheme, next.upstream.Host
	return t.g.upstream.RoundTrip(again)
}

// repeatable reports whether the request has no body and may be sent twice (RFC 9110, section 9.2.2).
func repeatable(r *http.Request) bool {
	if r.Body != nil && r.Body != http.NoBody {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// upstreamFailed answers for an app that did not.
func (g *Gateway) upstreamFailed(w http.ResponseWriter, r *http.Request, err error) {
	rec := w.(*recorder)
	p := r.Context().Value(passageKey{}).(*passage)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		g.tooLarge(rec, r, p)
	case r.Context().Err() != nil:
		rec.WriteHeader(statusClientGone)
	case isTimeout(err):
		g.log.Warn("app does not answer in time", "app", p.entry.app.String(), "error", err, "id", p.id)
		g.answer(rec, r, p, http.StatusGatewayTimeout, fmt.Sprintf("App %s did not answer in time%s.", p.entry.app, ofRelease(p.entry)))
	default:
		g.log.Warn("app does not answer", "app", p.entry.app.String(), "error", err, "id", p.id)
		g.answer(rec, r, p, http.StatusBadGateway, fmt.Sprintf("App %s does not answer at this site%s.", p.entry.app, ofRelease(p.entry)))
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

func (g *Gateway) tooLarge(w *recorder, r *http.Request, p *passage) {
	w.Header().Set("Connection", "close")
	g.answer(w, r, p, http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is larger than the %d bytes that this site takes.", g.opts.MaxBodyBytes))
}
