package httpgateway

import (
	"cmp"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/site"
)

// Options configure a Gateway. The zero value of a field means its default.
type Options struct {
	// Log is where faults are told, and each request at debug level; nil discards them.
	Log *slog.Logger
	// Metrics is where the gateway registers its own; nil registers them nowhere.
	Metrics prometheus.Registerer

	// Address to listen on, "host:port"; "127.0.0.1:0" when empty.
	Address string
	// TLS serves HTTPS; it must hold a certificate or a way to get one. CertFile and KeyFile are read at
	// Start instead when TLS is nil. Without either, only a loopback address is served.
	TLS               *tls.Config
	CertFile, KeyFile string
	// NextPort allows another port, one of the next hundred, when that of Address is taken.
	NextPort bool

	// MaxBodyBytes bounds a request's body, 64 MiB; MaxHeaderBytes its header, 64 KiB.
	MaxBodyBytes   int64
	MaxHeaderBytes int
	// MaxInFlight bounds the requests served at once, 10,000; MaxHeld those that wait for an app, 1,000.
	// Beyond them the answer is 503.
	MaxInFlight, MaxHeld int
	// ReadHeaderTimeout (10 s) bounds how long a client takes to send its header, IdleTimeout (2 min) how
	// long it keeps an unused connection. There is no limit on a whole request, so that streams live.
	ReadHeaderTimeout, IdleTimeout time.Duration
	// DialTimeout (5 s) and ResponseHeaderTimeout (60 s) bound an app's part.
	DialTimeout, ResponseHeaderTimeout time.Duration
	// Hold is how long a request waits on a held route; site.HoldSeconds.
	Hold time.Duration
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Address = cmp.Or(o.Address, "127.0.0.1:0")
	o.MaxBodyBytes = cmp.Or(o.MaxBodyBytes, 64<<20)
	o.MaxHeaderBytes = cmp.Or(o.MaxHeaderBytes, 64<<10)
	o.MaxInFlight = cmp.Or(o.MaxInFlight, 10_000)
	o.MaxHeld = cmp.Or(o.MaxHeld, 1_000)
	o.ReadHeaderTimeout = cmp.Or(o.ReadHeaderTimeout, 10*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 2*time.Minute)
	o.DialTimeout = cmp.Or(o.DialTimeout, 5*time.Second)
	o.ResponseHeaderTimeout = cmp.Or(o.ResponseHeaderTimeout, time.Minute)
	o.Hold = cmp.Or(o.Hold, site.HoldSeconds*time.Second)
	return o
}
