package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/skerry-dev/skerry/internal/wire"
)

// handlers are nats.go's, which it calls one at a time and in order.
func (c *Client) handlers() []nats.Option {
	return []nats.Option{
		nats.ConnectHandler(func(*nats.Conn) { c.gain() }),
		nats.ReconnectHandler(func(*nats.Conn) { c.gain() }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err == nil {
				err = wire.ErrDisconnected
			}
			c.lose(linkError(err))
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if !errors.Is(err, errLater) && !errors.Is(err, nats.ErrNoServers) {
				c.tell(false, linkError(err))
			}
		}),
		nats.ErrorHandler(c.asyncError),
	}
}

// gain notes that the connection is there.
func (c *Client) gain() {
	c.dialer.linked.Store(true)
	c.mu.Lock()
	select {
	case <-c.up:
	default:
		close(c.up)
	}
	c.mu.Unlock()
	c.tell(true, nil)
}

// lose notes that the connection is gone, and ends what was under way on it.
func (c *Client) lose(err error) {
	c.mu.Lock()
	select {
	case <-c.up:
		c.up = make(chan struct{})
	default:
	}
	if errors.Is(err, wire.ErrClosed) {
		close(c.up) // so that who waits sees it
	}
	lost := c.linkLost
	c.link, c.linkLost = context.WithCancelCause(context.Background())
	c.mu.Unlock()
	if errors.Is(err, wire.ErrClosed) {
		lost(wire.ErrClosed)
		return
	}
	lost(wire.ErrDisconnected)
	c.tell(false, err)
}

func (c *Client) tell(connected bool, err error) {
	if c.opts.OnLink != nil {
		c.opts.OnLink(connected, err)
	}
}

// linkError names why there is no connection.
func linkError(err error) error {
	for _, refused := range []struct {
		is   error
		text string
	}{
		{nats.ErrAuthExpired, "the credential of the bus has expired"},
		{nats.ErrAuthRevoked, "the credential of the bus is revoked"},
		{nats.ErrAccountAuthExpired, "the account of the bus has expired"},
		{nats.ErrAuthorization, "the bus refuses the credential"},
	} {
		if errors.Is(err, refused.is) {
			return fmt.Errorf("%s: %w: %w", refused.text, wire.ErrForbidden, err)
		}
	}
	if errors.Is(err, wire.ErrDisconnected) {
		return err
	}
	return fmt.Errorf("%w: %w", wire.ErrDisconnected, err)
}

// asyncError takes what the server or nats.go says outside of any call.
func (c *Client) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		c.countDropped(sub)
	case errors.Is(err, nats.ErrPermissionViolation):
		c.log.Warn("the bus refuses a subject", "error", err)
		c.mu.Lock()
		defer c.mu.Unlock()
		for a := range c.asked {
			if namesSubject(err, a.subject) {
				a.end(fmt.Errorf("%w: %w", wire.ErrForbidden, err))
			}
		}
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		c.tell(false, linkError(err))
	default:
		c.log.Debug("bus", "error", err)
	}
}

// namesSubject reports whether the server's refusal is about subject: it quotes it.
func namesSubject(err error, subject string) bool {
	return err != nil && strings.Contains(err.Error(), `"`+subject+`"`)
}
