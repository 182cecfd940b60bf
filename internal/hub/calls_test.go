package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// member is a site's side of calls, as little of it as a test needs: it answers as answer says and notes
// acknowledgements.
type member struct {
	t      *testing.T
	bus    *membus.Client
	answer func(method string, call wire.Call) wire.CallReply
	// knows says whether a stream is still open; nil: every one is.
	knows func() bool

	mu   sync.Mutex
	acks []wire.Ack
}

func newMember(p *post, answer func(string, wire.Call) wire.CallReply) *member {
	p.t.Helper()
	m := &member{t: p.t, bus: p.site, answer: answer}
	if _, err := m.bus.Subscribe(context.Background(), wire.CallPattern("shop-1", "m-1"), m.take); err != nil {
		p.t.Fatal(err)
	}
	p.report(wire.ReportSubject("shop-1", "m-1"), said(1, "1"))
	p.alive("shop-1", false)
	return m
}

func (m *member) take(msg wire.Message) {
	method := wire.CallMethod(msg.Subject)
	if method == wire.MethodAck {
		ack, err := wire.DecodeAck(msg.Data)
		if err != nil {
			m.t.Error(err)
			return
		}
		m.mu.Lock()
		m.acks = append(m.acks, ack)
		m.mu.Unlock()
		if msg.Reply == "" {
			return
		}
		var reply wire.CallReply
		if m.knows != nil && !m.knows() {
			reply.Error = "no such stream"
		}
		m.say(msg.Reply, reply)
		return
	}
	call, err := wire.DecodeCall(msg.Data)
	if err != nil {
		m.t.Error(err)
		return
	}
	m.say(msg.Reply, m.answer(method, call))
}

func (m *member) say(subject string, v any) {
	data, err := wire.EncodeJSON("message", v)
	if err == nil {
		err = m.bus.Publish(context.Background(), subject, data)
	}
	if err != nil {
		m.t.Error(err)
	}
}

func (m *member) chunk(id string, sequence uint64, data string, end bool) {
	m.say(wire.StreamSubject("shop-1", "m-1", id), wire.Chunk{Sequence: sequence, Data: []byte(data), End: end})
}

// acked returns the acknowledgements since the last call.
func (m *member) acked() []wire.Ack {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	acks := m.acks
	m.acks = nil
	return acks
}

// cancelled reports whether the hub said that it wants no more.
func (m *member) cancelled() bool {
	for _, a := range m.acked() {
		if a.Cancel {
			return true
		}
	}
	return false
}

func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		caller := hub.NewCaller(p.client, p.fleet)
		if err := caller.Call(t.Context(), "shop-1", "echo", nil, nil); !errors.Is(err, hub.ErrSiteAway) {
			t.Errorf("a site that never reported was asked: %v", err)
		}
		newMember(p, func(method string, call wire.Call) wire.CallReply {
			switch method {
			case "echo":
				return wire.CallReply{Body: call.Body}
			case "garbage":
				return wire.CallReply{Body: json.RawMessage(`"text"`)}
			}
			return wire.CallReply{Error: "no call " + method}
		})
		var got map[string]int
		if err := caller.Call(t.Context(), "shop-1", "echo", map[string]int{"a": 1}, &got); err != nil || got["a"] != 1 {
			t.Errorf("echo answered %v, %v", got, err)
		}
		if err := caller.Call(t.Context(), "shop-1", "echo", nil, nil); err != nil {
			t.Errorf("a call whose answer nobody wants: %v", err)
		}
		if err := caller.Call(t.Context(), "shop-1", "fly", nil, nil); !errors.Is(err, hub.ErrRefused) || !strings.Contains(err.Error(), "no call fly") {
			t.Errorf("a refusal was answered with %v", err)
		}
		if err := caller.Call(t.Context(), "shop-1", "garbage", nil, &got); !errors.Is(err, wire.ErrMessage) {
			t.Errorf("an answer of another shape was answered with %v", err)
		}
		if err := caller.Call(t.Context(), "shop-1", "echo", strings.Repeat("x", wire.MaxMessage), nil); !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("a request that cannot travel was answered with %v", err)
		}
		if err := caller.Call(t.Context(), "shop-1", "echo", func() {}, nil); err == nil {
			t.Error("a request that is no JSON was sent")
		}
		p.site.SetConnected(false)
		if err := caller.Call(t.Context(), "shop-1", "echo", nil, nil); !errors.Is(err, hub.ErrSiteAway) {
			t.Errorf("a site that nobody reaches was answered with %v", err)
		}
	})
}

func TestCallThatIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		newMember(p, nil)
		deaf, err := p.site.Subscribe(t.Context(), wire.CallSubject("shop-2", "m-1", "echo"), func(wire.Message) {})
		if err != nil {
			t.Fatal(err)
		}
		defer deaf()
		r := said(1, "1")
		r.Site = "shop-2"
		p.report(wire.ReportSubject("shop-2", "m-1"), r)
		start := time.Now()
		err = hub.NewCaller(p.client, p.fleet).Call(t.Context(), "shop-2", "echo", nil, nil)
		if !errors.Is(err, hub.ErrSiteAway) || time.Since(start) != 10*time.Second {
			t.Errorf("after %v a silent site was answered with %v", time.Since(start), err)
		}
	})
}

// streamed runs a Stream to its end in the background.
type streamed struct {
	got  bytes.Buffer
	done chan error
}

func stream(ctx context.Context, p *post, fn func([]byte) error) *streamed {
	s := &streamed{done: make(chan error, 1)}
	caller := hub.NewCaller(p.client, p.fleet)
	go func() {
		s.done <- caller.Stream(ctx, "shop-1", "logs", nil, func(data []byte) error {
			s.got.Write(data)
			if fn != nil {
				return fn(data)
			}
			return nil
		})
	}()
	synctest.Wait()
	return s
}

// ended returns how the stream ended, or an error that says that it did not.
func (s *streamed) ended() error {
	synctest.Wait()
	select {
	case err := <-s.done:
		return err
	default:
		return errors.New("the stream goes on")
	}
}

// accept is a member that accepts every stream and tells its id.
func accept(p *post) (*member, *string) {
	id := new(string)
	return newMember(p, func(_ string, call wire.Call) wire.CallReply {
		*id = call.Stream
		return wire.CallReply{}
	}), id
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		m, id := accept(p)
		s := stream(t.Context(), p, nil)
		var want strings.Builder
		for i := range uint64(40) {
			line := fmt.Sprintf("line %d\n", i)
			want.WriteString(line)
			m.chunk(*id, i+1, line, false)
			synctest.Wait()
		}
		m.chunk(*id, 41, "", true)
		if err := s.ended(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.String(), s.got.String()); diff != "" {
			t.Errorf("what was received differs (-want +got):\n%s", diff)
		}
		last := uint64(0)
		for _, a := range m.acked() {
			if a.Cancel || a.Stream != *id {
				t.Errorf("acknowledged %+v", a)
			}
			if a.Sequence > last+wire.StreamWindow {
				t.Errorf("acknowledged %d after %d: the member had to wait", a.Sequence, last)
			}
			last = a.Sequence
		}
		if last < 40-wire.StreamWindow/2 {
			t.Errorf("acknowledged up to %d of 40", last)
		}
	})
}

func TestStreamThatEndsBadly(t *testing.T) {
	mine := errors.New("the reader went away")
	tests := []struct {
		reason string
		send   func(m *member, id string)
		fn     func([]byte) error
		want   error
		text   string
		cancel bool
	}{
		{"a part was lost on the way", func(m *member, id string) { m.chunk(id, 1, "a", false); m.chunk(id, 3, "c", false) },
			nil, wire.ErrMessage, "part 3", true},
		{"a part came twice", func(m *member, id string) { m.chunk(id, 1, "a", false); m.chunk(id, 1, "a", false) },
			nil, wire.ErrMessage, "part 2 was due", true},
		{"a part without a number is no part", func(m *member, id string) { m.chunk(id, 0, "a", false) }, nil, wire.ErrMessage, "part 1", true},
		{"bytes that are no part", func(m *member, id string) { m.say(wire.StreamSubject("shop-1", "m-1", id), "text") },
			nil, wire.ErrMessage, "chunk", true},
		{"the member says why it cannot go on", func(m *member, id string) {
			m.say(wire.StreamSubject("shop-1", "m-1", id), wire.Chunk{Sequence: 1, Data: []byte("a"), End: true, Error: "disk"})
		}, nil, hub.ErrRefused, "disk", false},
		{"the receiver cannot go on", func(m *member, id string) { m.chunk(id, 1, "a", false) },
			func([]byte) error { return mine }, mine, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPost(t, membus.New())
				defer p.stop()
				m, id := accept(p)
				s := stream(t.Context(), p, tt.fn)
				tt.send(m, *id)
				err := s.ended()
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("the stream ended with %v", err)
				}
				if got := m.cancelled(); got != tt.cancel {
					t.Errorf("the member was told to stop: %v", got)
				}
			})
		})
	}
}

func TestStreamIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		newMember(p, func(string, wire.Call) wire.CallReply { return wire.CallReply{Error: "no such app"} })
		if err := stream(t.Context(), p, nil).ended(); !errors.Is(err, hub.ErrRefused) || !strings.Contains(err.Error(), "no such app") {
			t.Errorf("a refused stream ended with %v", err)
		}
	})
}

// TestStreamOverrun lets a member send more than a window while the receiver is busy.
func TestStreamOverrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		m, id := accept(p)
		busy := make(chan struct{})
		s := stream(t.Context(), p, func([]byte) error { <-busy; return nil })
		for i := range uint64(2*wire.StreamWindow + 4) {
			m.chunk(*id, i+1, "x", false)
		}
		synctest.Wait()
		close(busy)
		if err := s.ended(); !errors.Is(err, wire.ErrMessage) {
			t.Errorf("a member that breaks the window was answered with %v", err)
		}
		if !m.cancelled() {
			t.Error("the member was not told to stop")
		}
	})
}

// TestStreamToASlowReceiver holds the receiver for minutes: the member must not take the hub for gone.
func TestStreamToASlowReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		m, id := accept(p)
		busy := make(chan struct{})
		s := stream(t.Context(), p, func([]byte) error { <-busy; return nil })
		for i := range uint64(wire.StreamWindow) {
			m.chunk(*id, i+1, "x", false)
		}
		for range 20 {
			sleep(wire.AliveSeconds * time.Second)
			p.alive("shop-1", false)
			if len(m.acked()) == 0 {
				t.Fatal("nothing was heard of the hub for ten seconds")
			}
		}
		close(busy)
		m.chunk(*id, wire.StreamWindow+1, "", true)
		if err := s.ended(); err != nil || s.got.Len() != wire.StreamWindow {
			t.Errorf("ended with %v after %d bytes", err, s.got.Len())
		}
	})
}

func TestStreamIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		m, id := accept(p)
		ctx, cancel := context.WithCancel(t.Context())
		s := stream(ctx, p, nil)
		m.chunk(*id, 1, "a", false)
		synctest.Wait()
		cancel()
		if err := s.ended(); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if !m.cancelled() {
			t.Error("the member was not told to stop")
		}
	})
}

func TestStreamOfASiteThatFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		_, _ = accept(p)
		s := stream(t.Context(), p, nil)
		p.site.SetConnected(false)
		sleep(15 * time.Second)
		if err := s.ended(); err.Error() != "the stream goes on" {
			t.Errorf("a short break ended the stream: %v", err)
		}
		sleep(30 * time.Second)
		if err := s.ended(); !errors.Is(err, hub.ErrSiteAway) {
			t.Errorf("a site that fell silent: %v", err)
		}
	})
}

// TestStreamOfARestartedMember lets the member forget the stream while its site stays connected, as when an
// agent is killed and started again: the receiver must not wait for ever.
func TestStreamOfARestartedMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		m, id := accept(p)
		s := stream(t.Context(), p, nil)
		m.chunk(*id, 1, "a", false)
		m.knows = func() bool { return false }
		sleep(5 * time.Second)
		p.alive("shop-1", false)
		sleep(7 * time.Second)
		if err := s.ended(); !errors.Is(err, hub.ErrRefused) || !strings.Contains(err.Error(), "no such stream") {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestEndBesideTheQuestion lets the member end a stream just as the hub asks whether it is still at it: the
// end, which is on its way, counts.
func TestEndBesideTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(t, membus.New())
		defer p.stop()
		m, id := accept(p)
		m.knows = func() bool { return false }
		s := stream(t.Context(), p, nil)
		sleep(10*time.Second + 500*time.Millisecond)
		m.chunk(*id, 1, "a", true)
		if err := s.ended(); err != nil || s.got.String() != "a" {
			t.Errorf("ended with %v after %q", err, s.got.String())
		}
	})
}
