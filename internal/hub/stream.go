package hub

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// How often the member of a stream is asked whether it is still at it, and how long parts that are on their
// way are awaited after it said no.
const (
	renewEvery = wire.StreamIdleSeconds * time.Second / 3
	lostGrace  = time.Second
)

// Stream asks the member that reports for site and calls fn with each part of its long answer, in order,
// until the answer ends, fn fails, or ctx ends. fn may take as long as it likes: the member waits. A member
// that falls silent for long, or knows nothing of the answer any more, ends it too.
func (c *Caller) Stream(ctx context.Context, site fleet.SiteName, method string, request any, fn func([]byte) error) error {
	member, err := c.member(site)
	if err != nil {
		return err
	}
	s := &stream{
		caller: c, site: site, member: member, id: rand.Text(),
		// The member sends at most a window ahead; one that sends more breaks the protocol.
		parts: make(chan part, wire.StreamWindow+1), overrun: make(chan struct{}, 1), lost: make(chan error, 1),
	}
	cancel, err := c.bus.Subscribe(ctx, wire.StreamSubject(site, member, s.id), s.push)
	if err != nil {
		return fmt.Errorf("listen for answers of site %s: %w", site, err)
	}
	defer cancel()
	if _, err := c.ask(ctx, site, member, method, s.id, request); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	renewing, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { s.keepAlive(renewing) })
	return s.receive(ctx, fn)
}

// stream is the hub's end of one long answer.
type stream struct {
	caller   *Caller
	site     fleet.SiteName
	member   fleet.MemberID
	id       string
	parts    chan part
	overrun  chan struct{}
	lost     chan error
	received atomic.Uint64
}

// part is a chunk, or why it could not be read.
type part struct {
	wire.Chunk
	err error
}

// push takes a part from the bus. It never blocks.
func (s *stream) push(m wire.Message) {
	var p part
	p.err = wire.DecodeJSON("chunk", m.Data, &p.Chunk)
	select {
	case s.parts <- p:
	default:
		select {
		case s.overrun <- struct{}{}:
		default:
		}
	}
}

func (s *stream) receive(ctx context.Context, fn func([]byte) error) error {
	var lost error
	grace := time.NewTimer(0)
	grace.Stop()
	defer grace.Stop()
	for {
		select {
		case <-ctx.Done():
			s.ack(ctx, true)
			return ctx.Err()
		case <-s.overrun:
			s.ack(ctx, true)
			return fmt.Errorf("site %s sent more than was asked for: %w", s.site, wire.ErrMessage)
		case lost = <-s.lost:
			grace.Reset(lostGrace)
		case <-grace.C:
			if len(s.parts) == 0 {
				return lost
			}
			grace.Reset(lostGrace)
		case p := <-s.parts:
			done, err := s.take(p, fn)
			if done || err != nil {
				if !p.End {
					s.ack(ctx, true)
				}
				return err
			}
			if s.received.Load()%(wire.StreamWindow/2) == 0 {
				s.ack(ctx, false)
			}
		}
	}
}

func (s *stream) take(p part, fn func([]byte) error) (done bool, err error) {
	if p.err != nil {
		return true, fmt.Errorf("site %s: %w", s.site, p.err)
	}
	if next := s.received.Load() + 1; p.Sequence != next {
		return true, fmt.Errorf("site %s: part %d of the answer came where part %d was due: parts were lost on the way: try again: %w",
			s.site, p.Sequence, next, wire.ErrMessage)
	}
	s.received.Add(1)
	if len(p.Data) > 0 {
		if err := fn(p.Data); err != nil {
			return true, err
		}
	}
	if p.End && p.Error != "" {
		return true, fmt.Errorf("site %s: %s: %w", s.site, p.Error, ErrRefused)
	}
	return p.End, nil
}

// keepAlive asks the member now and then whether it is still at it, however long fn takes.
func (s *stream) keepAlive(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.renew(ctx); err != nil {
			s.lost <- err
			return
		}
	}
}

// renew returns an error when the answer will not go on. That nobody answers right now is none: the site
// may be back before it counts as away.
func (s *stream) renew(ctx context.Context) error {
	if s.caller.fleet.Link(s.site) == fleet.LinkAway {
		return fmt.Errorf("site %s fell silent: %w", s.site, ErrSiteAway)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	data, err := s.encodeAck(false)
	if err != nil {
		return err
	}
	m, err := s.caller.bus.Request(ctx, wire.CallSubject(s.site, s.member, wire.MethodAck), data)
	if err != nil {
		return nil
	}
	var reply wire.CallReply
	if err := wire.DecodeJSON("reply", m.Data, &reply); err != nil {
		return fmt.Errorf("site %s: %w", s.site, err)
	}
	if reply.Error != "" {
		return fmt.Errorf("site %s: the answer broke off: %s: try again: %w", s.site, reply.Error, ErrRefused)
	}
	return nil
}

// ack tells the member how far the answer came, or that nobody wants more of it, whether or not ctx has
// ended. A lost one is made good by the next.
func (s *stream) ack(ctx context.Context, cancel bool) {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer done()
	data, err := s.encodeAck(cancel)
	if err != nil {
		return
	}
	_ = s.caller.bus.Publish(ctx, wire.CallSubject(s.site, s.member, wire.MethodAck), data)
}

func (s *stream) encodeAck(cancel bool) ([]byte, error) {
	return wire.EncodeJSON("ack", wire.Ack{Stream: s.id, Sequence: s.received.Load(), Cancel: cancel})
}
