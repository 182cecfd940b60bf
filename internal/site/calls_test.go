package site_test

import (
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

	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/wire"
)

// call asks the agent as a hub does.
func (r *rig) call(method string, c wire.Call) wire.CallReply {
	r.t.Helper()
	data, err := c.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.request(method, data)
}

func (r *rig) request(method string, data []byte) wire.CallReply {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := r.hub.Request(ctx, wire.CallSubject("shop-1", "m-1", method), data)
	if err != nil {
		r.t.Fatal(err)
	}
	var reply wire.CallReply
	if err := wire.DecodeJSON("reply", m.Data, &reply); err != nil {
		r.t.Fatal(err)
	}
	return reply
}

func TestCalls(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.apps.host.Calls.Handle("echo", func(_ context.Context, body json.RawMessage) (any, error) { return body, nil })
		r.apps.host.Calls.Handle("nothing", func(context.Context, json.RawMessage) (any, error) { return nil, nil })
		r.apps.host.Calls.Handle("fail", func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("no such app") })
		r.apps.host.Calls.Handle("large", func(context.Context, json.RawMessage) (any, error) { return strings.Repeat("x", wire.MaxMessage), nil })
		r.apps.host.Calls.Handle("odd", func(context.Context, json.RawMessage) (any, error) { return func() {}, nil })
		r.apps.host.Calls.HandleStream("logs", func(context.Context, json.RawMessage, site.Stream) error { return nil })
		tests := []struct{ method, body, wantBody, wantError, reason string }{
			{"echo", `{"a":1}`, `{"a":1}`, "", "the answer is what the module said"},
			{"nothing", ``, ``, "", "an answer may be empty"},
			{"fail", ``, ``, "no such app", "an error travels in words"},
			{"large", ``, ``, "at most", "an answer that cannot travel is an error, not silence"},
			{"odd", ``, ``, "unsupported", "so is one that is no JSON"},
			{"fly", ``, ``, "upgrade", "an unknown call names the way out"},
			{"logs", ``, ``, "no call", "a stream needs an id"},
		}
		for _, tt := range tests {
			got := r.call(tt.method, wire.Call{Body: json.RawMessage(tt.body)})
			if string(got.Body) != tt.wantBody || (tt.wantError == "") != (got.Error == "") || !strings.Contains(got.Error, tt.wantError) {
				t.Errorf("%s answered %q, %q: %s", tt.method, got.Body, got.Error, tt.reason)
			}
		}
		if got := r.request("echo", []byte(`{"protocol":2}`)); !strings.Contains(got.Error, "upgrade") {
			t.Errorf("a call of a newer protocol was answered with %+v", got)
		}
		if got := r.request("echo", []byte(`x`)); got.Error == "" {
			t.Error("bytes that are no call were answered")
		}
	})
}

// TestCallsAreBounded leaves more calls unanswered than an agent takes.
func TestCallsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		r.apps.host.Calls.Handle("wait", func(context.Context, json.RawMessage) (any, error) { <-release; return nil, nil })
		data, err := wire.Call{}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for range 64 {
			if err := r.hub.Publish(context.Background(), wire.CallSubject("shop-1", "m-1", "wait"), data); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := r.call("wait", wire.Call{}); !strings.Contains(got.Error, "try again") {
			t.Errorf("one call too many was answered with %+v", got)
		}
		close(release)
		synctest.Wait()
		if got := r.call("wait", wire.Call{}); got.Error != "" {
			t.Errorf("after the others ended: %+v", got)
		}
	})
}

// listener is a hub's end of a stream.
type listener struct {
	r  *rig
	mu sync.Mutex
	// ack says how far to acknowledge after each part; nil: never.
	ack    func(sequence uint64) uint64
	chunks []wire.Chunk
}

func (r *rig) listen(id string, ack func(uint64) uint64) *listener {
	r.t.Helper()
	l := &listener{r: r, ack: ack}
	_, err := r.hub.Subscribe(context.Background(), wire.StreamSubject("shop-1", "m-1", id), func(m wire.Message) {
		var c wire.Chunk
		if err := wire.DecodeJSON("chunk", m.Data, &c); err != nil {
			r.t.Error(err)
			return
		}
		l.mu.Lock()
		l.chunks = append(l.chunks, c)
		l.mu.Unlock()
		if ack != nil {
			r.ack(wire.Ack{Stream: id, Sequence: ack(c.Sequence)})
		}
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if got := r.call("logs", wire.Call{Stream: id}); got.Error != "" {
		r.t.Fatalf("the stream was refused: %s", got.Error)
	}
	synctest.Wait()
	return l
}

func (r *rig) ack(a wire.Ack) {
	data, err := wire.EncodeJSON("ack", a)
	if err == nil {
		err = r.hub.Publish(context.Background(), wire.CallSubject("shop-1", "m-1", wire.MethodAck), data)
	}
	if err != nil {
		r.t.Error(err)
	}
}

// heard returns what was sent, whether it ended, and why; it fails when a part is out of order.
func (l *listener) heard() (text string, ended bool, why string) {
	l.r.t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for i, c := range l.chunks {
		if c.Sequence != uint64(i+1) {
			l.r.t.Fatalf("part %d has number %d", i+1, c.Sequence)
		}
		b.Write(c.Data)
		ended, why = c.End, c.Error
	}
	return b.String(), ended, why
}

func (l *listener) count() int {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.chunks)
}

func same(sequence uint64) uint64 { return sequence }

func TestStream(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var want strings.Builder
		for i := range 30000 {
			fmt.Fprintf(&want, "line %d\n", i)
		}
		r.apps.host.Calls.HandleStream("logs", func(_ context.Context, _ json.RawMessage, out site.Stream) error {
			n, err := out.Write([]byte(want.String())) // larger than a part
			if n != want.Len() {
				t.Errorf("%d bytes of %d were written", n, want.Len())
			}
			return err
		})
		l := r.listen("ID", same)
		text, ended, why := l.heard()
		if text != want.String() || !ended || why != "" {
			t.Errorf("heard %d bytes of %d, ended %v: %s", len(text), want.Len(), ended, why)
		}
		for _, c := range l.chunks {
			if len(c.Data) > wire.MaxChunk {
				t.Errorf("a part has %d bytes", len(c.Data))
			}
		}
	})
}

func TestStreamThatFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.apps.host.Calls.HandleStream("logs", func(_ context.Context, _ json.RawMessage, out site.Stream) error {
			_, err := out.Write([]byte("a"))
			return errors.Join(err, errors.New("log is gone"))
		})
		text, ended, why := r.listen("ID", same).heard()
		if text != "a" || !ended || why != "log is gone" {
			t.Errorf("heard %q, ended %v: %s", text, ended, why)
		}
	})
}

// endless is a stream that says a line whenever it can.
func endless(r *rig) (ended chan error) {
	ended = make(chan error, 1)
	r.apps.host.Calls.HandleStream("logs", func(ctx context.Context, _ json.RawMessage, out site.Stream) error {
		for {
			if _, err := out.Write([]byte("x")); err != nil {
				ended <- context.Cause(ctx)
				return err
			}
		}
	})
	return ended
}

func TestStreamWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		ended := endless(r)
		l := r.listen("ID", nil)
		if got := l.count(); got != wire.StreamWindow {
			t.Errorf("%d parts were sent ahead of the first acknowledgement, want %d", got, wire.StreamWindow)
		}
		r.ack(wire.Ack{Stream: "ID", Sequence: 4})
		if got := l.count(); got != wire.StreamWindow+4 {
			t.Errorf("after 4 were acknowledged %d were sent", got)
		}
		r.ack(wire.Ack{Stream: "ID", Sequence: 2})
		if got := l.count(); got != wire.StreamWindow+4 {
			t.Errorf("a late acknowledgement moved the window: %d were sent", got)
		}
		r.ack(wire.Ack{Stream: "ID", Sequence: 1 << 40})
		if got := l.count(); got != 2*wire.StreamWindow+4 {
			t.Errorf("an acknowledgement of what was never sent opened the window: %d were sent", got)
		}
		r.ack(wire.Ack{Stream: "OTHER", Sequence: 10, Cancel: true})
		r.ack(wire.Ack{Stream: "ID", Cancel: true})
		synctest.Wait()
		select {
		case <-ended:
		default:
			t.Error("a cancelled stream goes on")
		}
		if _, end, _ := l.heard(); end {
			t.Error("nobody awaits the end of what was cancelled")
		}
	})
}

// TestStreamIdle hears nothing of the hub for long, and little but in time.
func TestStreamIdle(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		ended := endless(r)
		r.listen("ID", nil)
		for range 10 { // an acknowledgement that confirms nothing new keeps it alive
			pass(20 * time.Second)
			r.ack(wire.Ack{Stream: "ID"})
			synctest.Wait()
		}
		select {
		case err := <-ended:
			t.Fatalf("the stream ended although the hub was heard: %v", err)
		default:
		}
		pass(31 * time.Second)
		select {
		case <-ended:
		default:
			t.Error("a hub that was not heard for 31 s still gets an answer")
		}
	})
}

// TestAckIsAnswered tells a hub that asks whether a stream is known.
func TestAckIsAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		endless(r)
		r.listen("ID", nil)
		if got := r.request(wire.MethodAck, []byte(`{"stream":"ID","sequence":1}`)); got.Error != "" {
			t.Errorf("an open stream is answered with %+v", got)
		}
		if got := r.request(wire.MethodAck, []byte(`{"stream":"GONE","sequence":1}`)); !strings.Contains(got.Error, "no such stream") {
			t.Errorf("a stream that is not open is answered with %+v", got)
		}
		if got := r.request(wire.MethodAck, []byte(`{}`)); got.Error == "" {
			t.Error("an acknowledgement of nothing was taken")
		}
	})
}

// TestStopEndsCalls stops an agent while calls and streams are under way: it waits for them.
func TestStopEndsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		ended := endless(r)
		var order []string
		r.apps.host.Calls.Handle("wait", func(ctx context.Context, _ json.RawMessage) (any, error) {
			<-ctx.Done()
			order = append(order, "call ended")
			return nil, ctx.Err()
		})
		r.listen("ID", nil)
		data, err := wire.Call{}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.hub.Publish(context.Background(), wire.CallSubject("shop-1", "m-1", "wait"), data); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		order = append(order, "agent ended")
		if diff := cmp.Diff([]string{"call ended", "agent ended"}, order); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		select {
		case <-ended:
		default:
			t.Error("a stream outlives its agent")
		}
		r.hub.Close()
	})
}
