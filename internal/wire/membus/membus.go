// Package membus is a wire.Bus in memory, for tests of what uses a bus and for a hub and a site that run
// without each other.
//
// It belongs to the kernel and imports only wire. It opens no socket and starts no timer, so it works
// inside a testing/synctest bubble. It keeps the contract of wire.Bus that package bustest checks, but
// knows no rights: every client may use every subject. Its values are lost with the Broker.
package membus

import (
	"bytes"
	"context"
	"fmt"

	"strconv"
	"sync"

	"github.com/skerry-dev/skerry/internal/wire"
)

// pending bounds the messages that a subscription holds; the newest beyond it are dropped.
const pending = 1024

// Broker is what its clients share. The zero value is not usable; see New.
type Broker struct {
	mu       sync.Mutex
	revision uint64
	stored   map[string][]wire.Message // oldest first, never empty
	subs     map[*subscription]struct{}
	watches  map[*watch]struct{}
	inboxes  uint64
}

// New returns a Broker that holds nothing.
func New() *Broker {
	return &Broker{
		stored:  map[string][]wire.Message{},
		subs:    map[*subscription]struct{}{},
		watches: map[*watch]struct{}{},
	}
}

// Client returns a new connected client of the broker.
func (b *Broker) Client() *Client { return &Client{broker: b, connected: true} }

// Client is one connection to a Broker: a wire.Bus and wire.Store.
type Client struct {
	broker    *Broker
	connected bool
	closed    bool
}

var (
	_ wire.Bus   = (*Client)(nil)
	_ wire.Store = (*Client)(nil)
)

// SetConnected says whether the network is there. Without it every method fails with ErrDisconnected
// and nothing arrives; subscriptions are in force again when it is back. What was sent between is lost.
func (c *Client) SetConnected(connected bool) {
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	c.connected = connected
	if connected {
		return
	}
	for w := range c.broker.watches {
		if w.client == c {
			w.end(wire.ErrDisconnected)
		}
	}
}

// Close ends all subscriptions and watches; every later use fails with ErrClosed.
func (c *Client) Close() {
	c.broker.mu.Lock()
	c.closed = true
	var cancel []*subscription
	for s := range c.broker.subs {
		if s.client == c {
			cancel = append(cancel, s)
		}
	}
	for w := range c.broker.watches {
		if w.client == c {
			w.end(wire.ErrClosed)
		}
	}
	c.broker.mu.Unlock()
	for _, s := range cancel {
		s.cancel()
	}
}

// check is called with the lock held.
func (c *Client) check(what, subject string, data []byte) error {
	switch {
	case c.closed:
		return fmt.Errorf("%s %s: %w", what, subject, wire.ErrClosed)
	case len(data) > wire.MaxMessage:
		return fmt.Errorf("%s %s: %d bytes, at most %d are allowed: %w", what, subject, len(data), wire.MaxMessage, wire.ErrTooLarge)
	case !c.connected:
		return fmt.Errorf("%s %s: %w", what, subject, wire.ErrDisconnected)
	}
	return nil
}

// Publish implements wire.Bus.
func (c *Client) Publish(ctx context.Context, subject string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if err := c.check("publish", subject, data); err != nil {
		return err
	}
	c.broker.deliver(wire.Message{Subject: subject, Data: data})
	return nil
}

// Request implements wire.Bus.
func (c *Client) Request(ctx context.Context, subject string, data []byte) (wire.Message, error) {
	if err := ctx.Err(); err != nil {
		return wire.Message{}, err
	}
	answer := make(chan wire.Message, 1)
	inbox, cancel, err := c.sendRequest(subject, data, answer)
	defer cancel()
	if err != nil {
		return wire.Message{}, err
	}
	select {
	case m := <-answer:
		return m, nil
	case <-ctx.Done():
		return wire.Message{}, fmt.Errorf("request %s: no answer on %s: %w", subject, inbox, ctx.Err())
	}
}

// sendRequest returns the inbox on which the answer comes, and what ends it, which is never nil.
func (c *Client) sendRequest(subject string, data []byte, answer chan<- wire.Message) (string, func(), error) {
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := c.check("request", subject, data); err != nil {
		return "", func() {}, err
	}
	b.inboxes++
	inbox := "_INBOX.mem." + strconv.FormatUint(b.inboxes, 10)
	s := b.subscribe(c, inbox, func(m wire.Message) {
		select {
		case answer <- m:
		default: // only the first answer counts
		}
	})
	if b.deliver(wire.Message{Subject: subject, Reply: inbox, Data: data}) == 0 {
		return "", s.cancel, fmt.Errorf("request %s: %w", subject, wire.ErrNoResponder)
	}
	return inbox, s.cancel, nil
}

// Get implements wire.Bus.
func (c *Client) Get(ctx context.Context, subject string) (wire.Message, error) {
	if err := ctx.Err(); err != nil {
		return wire.Message{}, err
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if err := c.check("get", subject, nil); err != nil {
		return wire.Message{}, err
	}
	if _, ok := wire.StreamOf(subject); !ok {
		return wire.Message{}, fmt.Errorf("get %s: %w", subject, wire.ErrNoResponder)
	}
	m := c.broker.newest(subject)
	if m.Revision == 0 {
		return wire.Message{}, fmt.Errorf("get %s: %w", subject, wire.ErrNotFound)
	}
	return clone(m), nil
}

// newest returns the zero Message when there is none. The lock is held.
func (b *Broker) newest(subject string) wire.Message {
	if kept := b.stored[subject]; len(kept) > 0 {
		return kept[len(kept)-1]
	}
	return wire.Message{}
}

// Put implements wire.Bus.
func (c *Client) Put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if err := c.check("put", subject, data); err != nil {
		return 0, err
	}
	if _, ok := wire.StreamOf(subject); !ok {
		return 0, fmt.Errorf("put %s: %w", subject, wire.ErrNoResponder)
	}
	if newest := c.broker.newest(subject).Revision; revision != wire.AnyRevision && revision != newest {
		return 0, fmt.Errorf("put %s: revision %d given, %d is stored: %w", subject, revision, newest, wire.ErrConflict)
	}
	c.broker.deliver(wire.Message{Subject: subject, Data: data})
	return c.broker.newest(subject).Revision, nil
}

// Purge implements wire.Store.
func (c *Client) Purge(ctx context.Context, pattern string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if err := c.check("purge", pattern, nil); err != nil {
		return err
	}
	if _, ok := wire.StreamOf(pattern); !ok {
		return fmt.Errorf("purge %s: %w", pattern, wire.ErrNoResponder)
	}
	for subject := range c.broker.stored {
		if wire.Matches(pattern, subject) {
			delete(c.broker.stored, subject)
		}
	}
	return nil
}

// deliver stores and passes on m, and returns how many subscriptions took it. The lock is held.
func (b *Broker) deliver(m wire.Message) int {
	takers := 0
	for s := range b.subs {
		if s.client.connected && wire.Matches(s.pattern, m.Subject) {
			s.push(clone(m))
			takers++
		}
	}
	if stream, ok := wire.StreamOf(m.Subject); ok {
		b.revision++
		m = clone(m)
		m.Reply, m.Revision = "", b.revision
		b.stored[m.Subject] = append(b.stored[m.Subject], m)
		b.trim(m.Subject, wire.Kept(stream))
		for w := range b.watches {
			w.poke()
		}
	}
	return takers
}

func clone(m wire.Message) wire.Message {
	m.Data = bytes.Clone(m.Data)
	return m
}
