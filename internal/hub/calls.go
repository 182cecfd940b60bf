package hub

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Errors of calls to sites.
var (
	// ErrSiteAway means that the site cannot be asked now.
	ErrSiteAway = errors.New("site is away")
	// ErrRefused means that the site answered with an error of its own.
	ErrRefused = errors.New("site refused")
)

// callTimeout bounds the wait for the first answer of a member.
const callTimeout = 10 * time.Second

// Caller asks the members of sites something now. It is safe for concurrent use.
type Caller struct {
	bus   wire.Bus
	fleet *Fleet
}

// NewCaller returns a Caller that finds members by what they report.
func NewCaller(bus wire.Bus, fleet *Fleet) *Caller { return &Caller{bus: bus, fleet: fleet} }

// Call asks the member that reports for site and decodes its answer into reply, which may be nil.
func (c *Caller) Call(ctx context.Context, site fleet.SiteName, method string, request, reply any) error {
	member, err := c.member(site)
	if err != nil {
		return err
	}
	body, err := c.ask(ctx, site, member, method, "", request)
	if err != nil || reply == nil {
		return err
	}
	if err := json.Unmarshal(body, reply); err != nil {
		return fmt.Errorf("site %s: answer to %s: %w: %w", site, method, err, wire.ErrMessage)
	}
	return nil
}

func (c *Caller) member(site fleet.SiteName) (fleet.MemberID, error) {
	report, ok := c.fleet.Report(site)
	if !ok {
		return "", fmt.Errorf("site %s has never reported: %w", site, ErrSiteAway)
	}
	return report.Member, nil
}

func (c *Caller) ask(ctx context.Context, site fleet.SiteName, member fleet.MemberID, method, stream string, request any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("site %s: encode call of %s: %w", site, method, err)
	}
	data, err := wire.Call{Stream: stream, Body: body}.Encode()
	if err != nil {
		return nil, fmt.Errorf("site %s: %w", site, err)
	}
	m, err := c.bus.Request(ctx, wire.CallSubject(site, member, method), data)
	switch {
	case errors.Is(err, wire.ErrNoResponder), errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("site %s did not answer: %w", site, ErrSiteAway)
	case err != nil:
		return nil, fmt.Errorf("call %s at site %s: %w", method, site, err)
	}
	var reply wire.CallReply
	if err := wire.DecodeJSON("reply", m.Data, &reply); err != nil {
		return nil, fmt.Errorf("site %s: answer to %s: %w", site, method, err)
	}
	if reply.Error != "" {
		return nil, fmt.Errorf("site %s: %s: %w", site, reply.Error, ErrRefused)
	}
	return reply.Body, nil
}

// Stream asks the member that reports for site and calls fn with each part of its long answer, in order,
// until the answer ends, fn fails, or ctx ends. A member that falls silent for long ends it too.
func (c *Caller) Stream(ctx context.Context, site fleet.SiteName, method string, request any, fn func([]byte) error) error {
	member, err := c.member(site)
	if err != nil {
		return err
	}
	id := rand.Text()
	// The member sends at most a window ahead; one that sends more breaks the protocol.
	chunks := make(chan wire.Chunk, wire.StreamWindow+1)
	overrun := make(chan struct{}, 1)
	cancel, err := c.bus.Subscribe(ctx, wire.StreamSubject(site, member, id), func(m wire.Message) {
		var chunk wire.Chunk
		if err := wire.DecodeJSON("chunk", m.Data, &chunk); err != nil {
			chunk = wire.Chunk{End: true, Error: err.Error()}
		}
		select {
		case chunks <- chunk:
		default:
			select {
			case overrun <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return fmt.Errorf("listen for answers of site %s: %w", site, err)
	}
	defer cancel()
	if _, err := c.ask(ctx, site, member, method, id, request); err != nil {
		return err
	}
	s := stream{caller: c, site: site, member: member, id: id, chunks: chunks, overrun: overrun}
	return s.receive(ctx, fn)
}

// stream is the hub's end of one long answer.
type stream struct {
	caller   *Caller
	site     fleet.SiteName
	member   fleet.MemberID
	id       string
	chunks   <-chan wire.Chunk
	overrun  <-chan struct{}
	received uint64
}

func (s *stream) receive(ctx context.Context, fn func([]byte) error) error {
	alive := time.NewTicker(wire.StreamIdleSeconds * time.Second / 3)
	defer alive.Stop()
	for {
		select {
		case <-ctx.Done():
			s.ack(context.WithoutCancel(ctx), true)
			return ctx.Err()
		case <-s.overrun:
			s.ack(ctx, true)
			return fmt.Errorf("site %s sent more than was asked for: %w", s.site, wire.ErrMessage)
		case <-alive.C:
			if s.caller.fleet.Link(s.site) == fleet.LinkAway {
				return fmt.Errorf("site %s fell silent: %w", s.site, ErrSiteAway)
			}
			s.ack(ctx, false)
		case chunk := <-s.chunks:
			done, err := s.take(chunk, fn)
			if done || err != nil {
				if !chunk.End {
					s.ack(ctx, true)
				}
				return err
			}
			if s.received%(wire.StreamWindow/2) == 0 {
				s.ack(ctx, false)
			}
		}
	}
}

func (s *stream) take(chunk wire.Chunk, fn func([]byte) error) (done bool, err error) {
	if chunk.Sequence != 0 && chunk.Sequence != s.received+1 {
		return true, fmt.Errorf("site %s: parts %d to %d were lost on the way: try again: %w", s.site, s.received+1, chunk.Sequence-1, wire.ErrMessage)
	}
	s.received++
	if len(chunk.Data) > 0 {
		if err := fn(chunk.Data); err != nil {
			return true, err
		}
	}
	if chunk.End && chunk.Error != "" {
		return true, fmt.Errorf("site %s: %s: %w", s.site, chunk.Error, ErrRefused)
	}
	return chunk.End, nil
}

// ack tells the member how far the answer came. A lost one is made good by the next.
func (s *stream) ack(ctx context.Context, cancel bool) {
	data, err := wire.EncodeJSON("ack", wire.Ack{Stream: s.id, Sequence: s.received, Cancel: cancel})
	if err != nil {
		return
	}
	_ = s.caller.bus.Publish(ctx, wire.CallSubject(s.site, s.member, wire.MethodAck), data)
}
