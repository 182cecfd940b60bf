package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// maxCalls bounds the calls that are answered at once, streams included.
const maxCalls = 64

type callFunc func(ctx context.Context, body json.RawMessage) (any, error)
type streamFunc func(ctx context.Context, body json.RawMessage, out Stream) error

// calls answers what the hub asks this member.
type calls struct {
	bus    wire.Bus
	site   fleet.SiteName
	member fleet.MemberID
	log    *slog.Logger
	// connected yields a value when the subscription came into force.
	connected chan struct{}

	mu      sync.Mutex
	once    map[string]callFunc
	streams map[string]streamFunc
	open    map[string]*outStream
	busy    int
}

func newCalls(bus wire.Bus, site fleet.SiteName, member fleet.MemberID, log *slog.Logger) *calls {
	return &calls{
		bus: bus, site: site, member: member, log: log, connected: make(chan struct{}, 1),
		once: map[string]callFunc{}, streams: map[string]streamFunc{}, open: map[string]*outStream{},
	}
}

// Handle implements Calls.
func (c *calls) Handle(method string, fn func(context.Context, json.RawMessage) (any, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.once[method] = fn
}

// HandleStream implements Calls.
func (c *calls) HandleStream(method string, fn func(context.Context, json.RawMessage, Stream) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams[method] = fn
}

// run listens for calls until ctx ends and waits for those under way.
func (c *calls) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for ctx.Err() == nil {
		cancel, err := c.bus.Subscribe(ctx, wire.CallPattern(c.site, c.member), func(m wire.Message) { c.take(ctx, &wg, m) })
		if err != nil {
			if !sleep(ctx, jitter(retryEvery)) {
				return
			}
			continue
		}
		replace(c.connected, struct{}{})
		<-ctx.Done()
		cancel()
	}
}

// take answers one call. It runs in the bus' own goroutine and must not block.
func (c *calls) take(ctx context.Context, wg *sync.WaitGroup, m wire.Message) {
	method := wire.CallMethod(m.Subject)
	if method == wire.MethodAck {
		if err := c.ack(m.Data); m.Reply != "" {
			c.reply(ctx, m.Reply, nil, err)
		}
		return
	}
	call, err := wire.DecodeCall(m.Data)
	if err != nil {
		c.reply(ctx, m.Reply, nil, err)
		return
	}
	c.mu.Lock()
	once, stream := c.once[method], c.streams[method]
	full := c.busy >= maxCalls
	if !full {
		c.busy++
	}
	c.mu.Unlock()
	if full {
		c.reply(ctx, m.Reply, nil, fmt.Errorf("%d calls are under way already: try again later", maxCalls))
		return
	}
	wg.Go(func() {
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.busy--
		}()
		switch {
		case once != nil:
			v, err := once(ctx, call.Body)
			c.reply(ctx, m.Reply, v, err)
		case stream != nil && call.Stream != "":
			c.stream(ctx, m.Reply, call, stream)
		default:
			c.reply(ctx, m.Reply, nil, fmt.Errorf("this agent knows no call %q: upgrade it", method))
		}
	})
}

func (c *calls) reply(ctx context.Context, to string, v any, err error) {
	var reply wire.CallReply
	if err == nil && v != nil {
		reply.Body, err = json.Marshal(v)
	}
	if err != nil {
		reply = wire.CallReply{Error: err.Error()}
	}
	data, err := wire.EncodeJSON("reply", reply)
	if err != nil {
		data, err = wire.EncodeJSON("reply", wire.CallReply{Error: err.Error()})
	}
	if err == nil && to != "" {
		err = c.bus.Publish(ctx, to, data)
	}
	if err != nil {
		c.log.Warn("call was not answered", "error", err)
	}
}

func (c *calls) stream(ctx context.Context, reply string, call wire.Call, fn streamFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &outStream{ctx: ctx, cancel: cancel, calls: c, id: call.Stream, acked: make(chan struct{}, 1), heard: time.Now()}
	c.mu.Lock()
	c.open[call.Stream] = s
	c.mu.Unlock()
	// Answered once the stream can be acknowledged and cancelled.
	c.reply(ctx, reply, nil, nil)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, call.Stream)
	}()
	s.mu.Lock()
	s.idle = time.AfterFunc(wire.StreamIdleSeconds*time.Second, s.checkIdle)
	s.mu.Unlock()
	defer s.idle.Stop()
	err := fn(ctx, call.Body, s)
	if ctx.Err() != nil {
		return // the hub left, or the agent stops: nobody awaits an end
	}
	end := wire.Chunk{End: true}
	if err != nil {
		end.Error = err.Error()
	}
	if err := s.send(end); err != nil {
		c.log.Debug("end of a stream was not sent", "error", err)
	}
}

func (c *calls) ack(data []byte) error {
	ack, err := wire.DecodeAck(data)
	if err != nil {
		return err
	}
	c.mu.Lock()
	s := c.open[ack.Stream]
	c.mu.Unlock()
	if s == nil {
		return errors.New("this agent knows no such stream")
	}
	s.take(ack)
	return nil
}

// errStreamLeft is the cause of a stream's context after the hub went away from it.
var errStreamLeft = errors.New("the caller left the stream")

// outStream is the member's end of one long answer: it sends a window ahead of what was acknowledged.
type outStream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	calls  *calls
	id     string
	acked  chan struct{}

	mu       sync.Mutex
	idle     *time.Timer
	heard    time.Time
	sent     uint64
	received uint64
}

// Write implements Stream.
func (s *outStream) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		part := p[:min(len(p), wire.MaxChunk)]
		if err := s.send(wire.Chunk{Data: part}); err != nil {
			return n, err
		}
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}

func (s *outStream) send(chunk wire.Chunk) error {
	for {
		s.mu.Lock()
		if s.sent < s.received+wire.StreamWindow {
			s.sent++
			chunk.Sequence = s.sent
			s.mu.Unlock()
			break
		}
		s.mu.Unlock()
		select {
		case <-s.acked:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
	data, err := wire.EncodeJSON("chunk", chunk)
	if err != nil {
		return err
	}
	if err := s.calls.bus.Publish(s.ctx, wire.StreamSubject(s.calls.site, s.calls.member, s.id), data); err != nil {
		return fmt.Errorf("send part %d of a stream: %w", chunk.Sequence, err)
	}
	return nil
}

func (s *outStream) take(ack wire.Ack) {
	if ack.Cancel {
		s.cancel(errStreamLeft)
		return
	}
	s.mu.Lock()
	s.heard = time.Now()
	s.received = max(s.received, min(ack.Sequence, s.sent))
	s.mu.Unlock()
	replace(s.acked, struct{}{})
}

// checkIdle ends the stream when nothing was heard of its caller for long.
func (s *outStream) checkIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := wire.StreamIdleSeconds*time.Second - time.Since(s.heard)
	if left <= 0 {
		s.cancel(errStreamLeft)
		return
	}
	s.idle.Reset(left)
}
