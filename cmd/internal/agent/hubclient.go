package agent

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"sync"
)

// hubClient fetches content from the hub's port as this member. config and leaf are those of the member's identity.
func hubClient(config *tls.Config, leaf func() *x509.Certificate, viaProxy func(*url.URL) (*url.URL, error)) *http.Client {
	choose := http.ProxyFromEnvironment
	if viaProxy != nil {
		choose = func(r *http.Request) (*url.URL, error) { return viaProxy(r.URL) }
	}
	return &http.Client{Transport: &renewing{leaf: leaf, fresh: func() *http.Transport {
		return &http.Transport{Proxy: choose, TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4}
	}}}
}

// renewing uses no connection any more on which an earlier certificate was shown: the hub would judge by that one, and
// refuse it once its time or its authority is over.
type renewing struct {
	leaf  func() *x509.Certificate
	fresh func() *http.Transport

	mu        sync.Mutex
	shown     *x509.Certificate
	transport *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (r *renewing) RoundTrip(req *http.Request) (*http.Response, error) {
	return r.current().RoundTrip(req)
}

func (r *renewing) current() *http.Transport {
	now := r.leaf()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.transport == nil || !now.Equal(r.shown) {
		if r.transport != nil {
			r.transport.CloseIdleConnections() // what is under way ends in its own time
		}
		r.shown, r.transport = now, r.fresh()
	}
	return r.transport
}
