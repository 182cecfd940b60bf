package natsbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/skerry-dev/skerry/internal/wire"
)

// Client is a wire.Bus over one NATS connection. It is safe for concurrent use.
type Client struct {
	nc     *nats.Conn
	log    *slog.Logger
	opts   Options
	dialer *dialer
	stop   context.CancelFunc // ends the dialer

	dropped atomic.Uint64

	mu sync.Mutex
	// link ends when the connection that is there now is lost.
	link     context.Context
	linkLost context.CancelCauseFunc
	// asked are the requests under way, to be ended when the server refuses their subject.
	asked map[*asked]struct{}
	up    chan struct{} // closed while connected
	// lost is how many messages each slow subscription had lost when last asked.
	lost map[*nats.Subscription]int
}

type asked struct {
	subject string
	end     context.CancelCauseFunc
}

var _ wire.Bus = (*Client)(nil)

// Connect returns a Client that connects in the background, so it returns at once when the bus is away.
// Only options that cannot work are an error. The caller closes the Client; ctx bounds only Connect.
func Connect(ctx context.Context, o Options) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Proxy == nil {
		o.Proxy = proxyFromEnvironment
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.PendingMessages == 0 {
		o.PendingMessages = defaultPendingMessages
	}
	if o.PendingBytes == 0 {
		o.PendingBytes = defaultPendingBytes
	}
	life, stop := context.WithCancel(context.Background())
	c := &Client{
		opts: o, log: o.Log, stop: stop,
		dialer: &dialer{ctx: life, tls: o.TLS, proxy: o.Proxy, dial: o.Dial, newest: o.Newest},
		asked:  map[*asked]struct{}{},
		up:     make(chan struct{}),
		lost:   map[*nats.Subscription]int{},
	}
	c.link, c.linkLost = context.WithCancelCause(context.Background())
	urls, opts, err := o.natsOptions(c.dialer)
	if err == nil {
		c.nc, err = nats.Connect(strings.Join(urls, ","), append(opts, c.handlers()...)...)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("bus: %w", err)
	}
	return c, nil
}

// Close ends the connection and every subscription, and waits for handlers that are running.
func (c *Client) Close() {
	c.stop()
	c.lose(wire.ErrClosed)
	c.nc.Close()
}

// AwaitConnected returns when the Client is connected, or with ctx's error.
func (c *Client) AwaitConnected(ctx context.Context) error {
	c.mu.Lock()
	up := c.up
	c.mu.Unlock()
	select {
	case <-up:
		if c.nc.IsClosed() {
			return fmt.Errorf("await the bus: %w", wire.ErrClosed)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("await the bus: %w", ctx.Err())
	}
}

// Dropped is how many messages subscriptions lost because their handlers were slow.
func (c *Client) Dropped() uint64 { return c.dropped.Load() }

// check is made before each use of the connection.
func (c *Client) check(ctx context.Context, data []byte) error {
	switch err := ctx.Err(); {
	case err != nil:
		return err
	case len(data) > wire.MaxMessage:
		return fmt.Errorf("%d bytes, at most %d are allowed: %w", len(data), wire.MaxMessage, wire.ErrTooLarge)
	case c.nc.IsClosed():
		return wire.ErrClosed
	case !c.nc.IsConnected():
		return wire.ErrDisconnected
	}
	return nil
}

// translate returns err as the contract of wire.Bus names it.
func (c *Client) translate(err error) error {
	var known error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrNoResponders):
		known = wire.ErrNoResponder
	case errors.Is(err, nats.ErrMaxPayload):
		known = wire.ErrTooLarge
	case errors.Is(err, nats.ErrPermissionViolation):
		known = wire.ErrForbidden
	case errors.Is(err, nats.ErrConnectionClosed):
		known = wire.ErrClosed
	case errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrStaleConnection):
		known = wire.ErrDisconnected
	default:
		return err
	}
	return fmt.Errorf("%w: %w", known, err)
}

// within returns a context that ends with ctx, when the link is lost, or when the server refuses subject;
// why is context.Cause. done must be called.
func (c *Client) within(ctx context.Context, subject string) (within context.Context, done func()) {
	within, end := context.WithCancelCause(ctx)
	a := &asked{subject: subject, end: end}
	c.mu.Lock()
	link := c.link
	c.asked[a] = struct{}{}
	c.mu.Unlock()
	unlink := context.AfterFunc(link, func() { end(context.Cause(link)) })
	return within, func() {
		unlink()
		c.mu.Lock()
		delete(c.asked, a)
		c.mu.Unlock()
		end(nil)
	}
}

// cause returns why a context of within ended, when that is why err came.
func (c *Client) cause(within context.Context, err error) error {
	if err != nil && within.Err() != nil {
		return context.Cause(within)
	}
	return c.translate(err)
}
