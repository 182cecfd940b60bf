package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/skerry-dev/skerry/internal/wire"
)

// Publish implements wire.Bus.
func (c *Client) Publish(ctx context.Context, subject string, data []byte) error {
	err := c.check(ctx, data)
	if err == nil {
		err = c.translate(c.nc.Publish(subject, data))
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", subject, err)
	}
	return nil
}

// Request implements wire.Bus.
func (c *Client) Request(ctx context.Context, subject string, data []byte) (wire.Message, error) {
	m, err := c.request(ctx, &nats.Msg{Subject: subject, Data: data})
	if err != nil {
		return wire.Message{}, fmt.Errorf("request %s: %w", subject, err)
	}
	return wire.Message{Subject: m.Subject, Data: m.Data}, nil
}

func (c *Client) request(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	if err := c.check(ctx, m.Data); err != nil {
		return nil, err
	}
	within, done := c.within(ctx, m.Subject)
	defer done()
	answer, err := c.nc.RequestMsgWithContext(within, m)
	return answer, c.cause(within, err)
}

// Subscribe implements wire.Bus. Once it has returned, nats.go puts the subscription in force again after
// each loss of the link.
func (c *Client) Subscribe(ctx context.Context, subject string, fn wire.Handler) (func(), error) {
	cancel, err := c.subscribe(ctx, subject, fn)
	if err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", subject, err)
	}
	return cancel, nil
}

func (c *Client) subscribe(ctx context.Context, subject string, fn wire.Handler) (func(), error) {
	if err := c.check(ctx, nil); err != nil {
		return nil, err
	}
	var mu sync.Mutex // held while fn runs
	cancelled := false
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if !cancelled {
			fn(wire.Message{Subject: m.Subject, Reply: m.Reply, Data: m.Data})
		}
	})
	if err != nil {
		return nil, c.translate(err)
	}
	cancel := func() {
		// The only error is that the subscription or the connection is gone already.
		_ = sub.Unsubscribe()
		c.mu.Lock()
		delete(c.lost, sub)
		c.mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		cancelled = true
	}
	if err = sub.SetPendingLimits(c.opts.PendingMessages, c.opts.PendingBytes); err == nil {
		err = c.flush(ctx, subject)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return cancel, nil
}

// flush returns when the server has taken all that was sent before, or refused subject.
func (c *Client) flush(ctx context.Context, subject string) error {
	within, done := c.within(ctx, subject)
	defer done()
	bounded, cancel := context.WithTimeout(within, flushTimeout) // nats.go wants a deadline
	defer cancel()
	if err := c.cause(within, c.nc.FlushWithContext(bounded)); err != nil {
		return err
	}
	// A refusal comes before the answer to the flush.
	if err := c.nc.LastError(); namesSubject(err, subject) {
		return c.translate(err)
	}
	return nil
}

// countDropped adds what sub lost since it was last asked.
func (c *Client) countDropped(sub *nats.Subscription) {
	if sub == nil {
		return
	}
	n, err := sub.Dropped()
	if err != nil {
		return
	}
	c.mu.Lock()
	lost := n - c.lost[sub]
	c.lost[sub] = n
	c.mu.Unlock()
	c.dropped.Add(uint64(lost))
	c.log.Warn("a slow subscriber lost messages", "subject", sub.Subject, "lost", n)
}

// Headers of JetStream (its "direct get" and "publish" interfaces).
const (
	headerStatus       = "Status"
	headerDescription  = "Description"
	headerSubject      = "Nats-Subject"
	headerSequence     = "Nats-Sequence"
	headerWantStream   = "Nats-Expected-Stream"
	headerWantSequence = "Nats-Expected-Last-Subject-Sequence"
)

// Get implements wire.Bus. It names the subject in the subject of its own request, the one form that
// members have a right to.
func (c *Client) Get(ctx context.Context, subject string) (wire.Message, error) {
	m, err := c.get(ctx, subject)
	if err != nil {
		return wire.Message{}, fmt.Errorf("get %s: %w", subject, err)
	}
	return m, nil
}

func (c *Client) get(ctx context.Context, subject string) (wire.Message, error) {
	stream, ok := wire.StreamOf(subject)
	if !ok {
		return wire.Message{}, wire.ErrNoResponder
	}
	m, err := c.request(ctx, &nats.Msg{Subject: "$JS.API.DIRECT.GET." + stream + "." + subject})
	if err != nil {
		return wire.Message{}, err
	}
	switch status := m.Header.Get(headerStatus); status {
	case "":
	case "404":
		return wire.Message{}, wire.ErrNotFound
	default:
		return wire.Message{}, fmt.Errorf("the bus answered %s %s", status, m.Header.Get(headerDescription))
	}
	revision, err := strconv.ParseUint(m.Header.Get(headerSequence), 10, 64)
	if err != nil || m.Header.Get(headerSubject) != subject {
		return wire.Message{}, fmt.Errorf("answer for %q at revision %q: %w", m.Header.Get(headerSubject), m.Header.Get(headerSequence), wire.ErrMessage)
	}
	return wire.Message{Subject: subject, Data: m.Data, Revision: revision}, nil
}

// Put implements wire.Bus.
func (c *Client) Put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	stored, err := c.put(ctx, subject, data, revision)
	if err != nil {
		return 0, fmt.Errorf("put %s: %w", subject, err)
	}
	return stored, nil
}

// errWrongLastSequence is JetStream's code for a value that changed meanwhile.
const errWrongLastSequence = 10071

func (c *Client) put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	stream, ok := wire.StreamOf(subject)
	if !ok {
		return 0, wire.ErrNoResponder
	}
	m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{headerWantStream: {stream}}}
	if revision != wire.AnyRevision {
		m.Header.Set(headerWantSequence, strconv.FormatUint(revision, 10))
	}
	answer, err := c.request(ctx, m)
	if err != nil {
		return 0, err
	}
	var ack struct {
		Stream   string `json:"stream"`
		Sequence uint64 `json:"seq"`
		Error    *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return 0, errors.Join(fmt.Errorf("acknowledgement: %w", wire.ErrMessage), err)
	}
	switch {
	case ack.Error != nil && ack.Error.Code == errWrongLastSequence:
		return 0, fmt.Errorf("revision %d: %w: %s", revision, wire.ErrConflict, ack.Error.Description)
	case ack.Error != nil:
		return 0, fmt.Errorf("the bus does not store it: %s (code %d)", ack.Error.Description, ack.Error.Code)
	case ack.Stream != stream || ack.Sequence == 0:
		return 0, fmt.Errorf("acknowledgement of stream %q, want %q: %w", ack.Stream, stream, wire.ErrMessage)
	}
	return ack.Sequence, nil
}
