package httpgateway

import (
	"maps"
	"net"
	"net/http"
	"strings"
)

// hopByHop are the headers that concern one connection alone (RFC 9110, section 7.6.1), as ReverseProxy
// takes them out.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// inside makes the request that an app in this process sees: the same that rewrite makes for one behind a
// connection. The caller's own request is not changed.
func inside(r *http.Request, p *passage) *http.Request {
	out := *r
	out.Header = make(http.Header, len(r.Header)+4)
	maps.Copy(out.Header, r.Header)
	for _, field := range r.Header["Connection"] {
		for name := range strings.SplitSeq(field, ",") {
			out.Header.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		delete(out.Header, name)
	}
	for name := range out.Header {
		if spoofs(name) {
			delete(out.Header, name)
		}
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		out.Header["X-Forwarded-For"] = []string{host}
	}
	out.Header["X-Forwarded-Host"] = []string{r.Host}
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	out.Header["X-Forwarded-Proto"] = []string{proto}
	out.Header[headerRequestID] = []string{p.id}
	return &out
}
