package natsbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/nats-io/nats.go"
)

// Options of a Client.
type Options struct {
	// URLs are where the bus is reached, tried in random order. All are of one kind:
	//
	//	wss://host:port/path       WebSocket over TLS; goes through a proxy
	//	tlsfirst://host:port       NATS' protocol within TLS from the first byte; goes through a proxy
	//	tls://host:port            NATS' own TLS, of an external server
	//	nats://host:port           NATS without TLS, of an external server on the same machine
	URLs []string
	// Newest, when set, returns where the bus is reached by what is known now, as URLs does. They are tried when
	// none of URLs answers: whoever runs the bus may have moved.
	Newest func() []string
	// InProcess returns a connection to a server in this process, in place of URLs.
	InProcess func() (net.Conn, error)
	// TLS is used for all but nats. It is cloned; nil means the machine's own roots.
	TLS *tls.Config
	// Credentials returns the newest user JWT; it is asked at each connect, so it must not block. Sign
	// signs the server's nonce with that user's key. Both are nil for a server without credentials.
	Credentials func() (string, error)
	Sign        func(nonce []byte) ([]byte, error)
	// InboxPrefix is where answers arrive, without a last dot; empty means NATS' own.
	InboxPrefix string
	// Name of the connection in the server's monitoring.
	Name string
	// Proxy returns the proxy for an https URL, nil for none; when Proxy is nil the environment decides
	// (HTTPS_PROXY, NO_PROXY).
	Proxy func(*url.URL) (*url.URL, error)
	// Dial opens connections, to the server or to the proxy; nil means net.Dialer's. A machine that plays many
	// sites spreads them over its addresses by it.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log gets what concerns no caller. Never a credential.
	Log *slog.Logger
	// OnLink is told each change of the link, in order: connected, or not with the error, which wraps
	// wire.ErrForbidden when the server refuses the credential. It may be told an error many times. It
	// must return soon. nil is allowed.
	OnLink func(connected bool, err error)
	// PendingMessages bounds what one subscription holds; zero means 4096. PendingBytes, zero means 16 MiB.
	PendingMessages, PendingBytes int
}

// Time-outs and bounds of every Client.
const (
	// connectTimeout is long, because a hub to which all sites come back at once answers late.
	connectTimeout = 30 * time.Second
	pingEvery      = 30 * time.Second
	maxPingsOut    = 2
	// flushTimeout bounds Subscribe for a caller whose context has no end.
	flushTimeout           = 30 * time.Second
	defaultPendingMessages = 4096
	defaultPendingBytes    = 16 << 20
)

// Bounds of the time between attempts.
const (
	firstDelay = 500 * time.Millisecond
	lastDelay  = 30 * time.Second
)

// backOff returns the time to wait before an attempt, the first of which is 1: doubled each time up to
// lastDelay, and then between half of that and all of it, so that sites that lost the hub at one moment do
// not come back at one.
func backOff(attempt int) time.Duration {
	d := lastDelay
	if attempt < 8 {
		d = min(lastDelay, firstDelay<<max(attempt-1, 0))
	}
	return d/2 + rand.N(d/2)
}

// natsOptions translates; the handlers are set by Connect.
func (o *Options) natsOptions(d *dialer) ([]string, []nats.Option, error) {
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.Timeout(connectTimeout),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(maxPingsOut),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(), // a credential that is refused now may be renewed
		nats.IgnoreDiscoveredServers(),
		nats.ReconnectBufSize(-1), // what cannot be sent is refused, not kept
		nats.CustomReconnectDelay(d.delay),
		nats.NoCallbacksAfterClientClose(),
	}
	if o.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(o.InboxPrefix))
	}
	if o.Credentials != nil {
		opts = append(opts, nats.UserJWT(o.Credentials, o.Sign))
	}
	if o.InProcess != nil {
		return nil, append(opts, nats.InProcessServer(inProcess(o.InProcess))), nil
	}
	urls, secure, err := d.addresses(o.URLs)
	if err != nil {
		return nil, nil, err
	}
	if secure {
		opts = append(opts, nats.Secure(d.tls))
	}
	return urls, append(opts, nats.SetCustomDialer(d), nats.SkipHostLookup()), nil
}

type inProcess func() (net.Conn, error)

func (f inProcess) InProcessConn() (net.Conn, error) { return f() }

// proxyFromEnvironment is http.ProxyFromEnvironment for a URL.
func proxyFromEnvironment(u *url.URL) (*url.URL, error) {
	return http.ProxyFromEnvironment(&http.Request{URL: u})
}

var errNoURL = errors.New("no URL of the bus is given")

// addresses takes the URLs apart: for those whose TLS is the dialer's own, nats.go is given URLs without
// TLS. secure reports that nats.go is to do TLS itself.
func (d *dialer) addresses(urls []string) (natsURLs []string, secure bool, err error) {
	kinds := map[string]bool{}
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, false, fmt.Errorf("URL of the bus: %w", err)
		}
		port := map[string]string{"wss": "443", "tlsfirst": "4222", "tls": "4222", "nats": "4222"}[u.Scheme]
		if port == "" || u.Hostname() == "" {
			return nil, false, fmt.Errorf("URL of the bus %q: want wss, tlsfirst, tls or nats, and a host", raw)
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), port)
		}
		kinds[u.Scheme] = true
		switch u.Scheme {
		case "wss":
			d.own, u.Scheme = true, "ws"
		case "tlsfirst":
			d.own, u.Scheme = true, "nats"
		case "tls":
			secure = true
		}
		natsURLs = append(natsURLs, u.String())
	}
	switch len(kinds) {
	case 0:
		return nil, false, errNoURL
	case 1:
		return natsURLs, secure, nil
	default:
		return nil, false, fmt.Errorf("URLs of the bus are of different kinds: %v", urls)
	}
}
