// Package bustest checks that a bus keeps the contract of wire.Bus and wire.Store. Every implementation
// runs it from its own tests, the one in memory included, so that what works on one works on all.
//
// It belongs to the kernel; only test files import it. It fails through the testing.TB it is given.
package bustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Harness is one bus that holds nothing, seen from both its ends.
type Harness struct {
	Hub   wire.Bus
	Store wire.Store
	// Site has the rights of one member, named below.
	Site   wire.Bus
	Name   fleet.SiteName
	Member fleet.MemberID
}

// patience is how long an event may take before a test fails.
const patience = 20 * time.Second

// Run checks the buses that open makes, a new one for each case.
func Run(t *testing.T, open func(testing.TB) Harness) {
	cases := []struct {
		name string
		run  func(*testing.T, context.Context, Harness)
	}{
		{"published messages arrive in order", publishInOrder},
		{"a subscription sees its pattern only", subscribePattern},
		{"a cancelled subscription is silent", subscribeCancel},
		{"data belongs to who holds it", dataIsCopied},
		{"a request is answered", requestAnswered},
		{"a request that nobody hears fails at once", requestNoResponder},
		{"a request ends with its context", requestContext},
		{"requests at the same time get their own answers", requestsConcurrent},
		{"a value is stored and read", putGet},
		{"a value is replaced at the right revision only", putRevision},
		{"of many writers at one revision one wins", putConcurrent},
		{"subjects that are not stored have no value", notStored},
		{"the largest message passes, a larger one does not", sizes},
		{"a context that ended ends every method", endedContext},
		{"a watch tells what is, that it is all, and what comes", watchOrder},
		{"a watch follows values while they change", watchLive},
		{"a watch tells reports that members store", watchReports},
		{"purge removes what matches", purge},
		{"events keep their newest values and no more", eventsKept},
		{"history tells every value that is kept, that it is all, and what comes", history},
		{"trim keeps the newest values", trim},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.run(t, ctx, open(t))
		})
	}
}

func publishInOrder(t *testing.T, ctx context.Context, h Harness) {
	got := make(chan wire.Message, 200)
	subscribe(t, ctx, h.Site, wire.HintSubject(h.Name), func(m wire.Message) { got <- m })
	for i := range 100 {
		must(t, h.Hub.Publish(ctx, wire.HintSubject(h.Name), fmt.Appendf(nil, "%d", i)))
	}
	for i := range 100 {
		want := wire.Message{Subject: wire.HintSubject(h.Name), Data: fmt.Appendf(nil, "%d", i)}
		if diff := cmp.Diff(want, receive(t, ctx, got)); diff != "" {
			t.Fatalf("message %d (-want +got):\n%s", i, diff)
		}
	}
}

func subscribePattern(t *testing.T, ctx context.Context, h Harness) {
	got := make(chan wire.Message, 8)
	subscribe(t, ctx, h.Site, wire.CallPattern(h.Name, h.Member), func(m wire.Message) { got <- m })
	must(t, h.Hub.Publish(ctx, wire.CallSubject("another", h.Member, "logs"), []byte("not for us")))
	must(t, h.Hub.Publish(ctx, wire.CallSubject(h.Name, "another", "logs"), []byte("not for us")))
	must(t, h.Hub.Publish(ctx, wire.CallSubject(h.Name, h.Member, "logs"), []byte("for us")))
	if m := receive(t, ctx, got); string(m.Data) != "for us" || wire.CallMethod(m.Subject) != "logs" {
		t.Errorf("got %q on %s, want the one for this member", m.Data, m.Subject)
	}
}

func subscribeCancel(t *testing.T, ctx context.Context, h Harness) {
	subject := wire.HintSubject(h.Name)
	var after sync.Map
	first := make(chan wire.Message, 4)
	cancel, err := h.Site.Subscribe(ctx, subject, func(m wire.Message) {
		after.Store(string(m.Data), true)
		first <- m
	})
	must(t, err)
	must(t, h.Hub.Publish(ctx, subject, []byte("before")))
	receive(t, ctx, first)
	cancel()
	cancel() // a second call does nothing
	last := make(chan wire.Message, 4)
	subscribe(t, ctx, h.Site, subject, func(m wire.Message) { last <- m })
	must(t, h.Hub.Publish(ctx, subject, []byte("after")))
	receive(t, ctx, last)
	if _, called := after.Load("after"); called {
		t.Error("the handler was called after its subscription was cancelled")
	}
}

func dataIsCopied(t *testing.T, ctx context.Context, h Harness) {
	subject := wire.DesiredSubject(h.Name, "apps")
	data := []byte("as it was")
	put(t, ctx, h.Hub, subject, data)
	copy(data, "XXXXXXXXX")
	m, err := h.Site.Get(ctx, subject)
	must(t, err)
	copy(m.Data, "YYYYYYYYY")
	again, err := h.Site.Get(ctx, subject)
	must(t, err)
	if string(again.Data) != "as it was" {
		t.Errorf("the stored value became %q when somebody else's bytes changed", again.Data)
	}
}

func requestAnswered(t *testing.T, ctx context.Context, h Harness) {
	answer(t, ctx, h, func(m wire.Message) []byte { return append([]byte("heard "), m.Data...) })
	m, err := h.Hub.Request(ctx, wire.CallSubject(h.Name, h.Member, "echo"), []byte("this"))
	must(t, err)
	if string(m.Data) != "heard this" {
		t.Errorf("got %q", m.Data)
	}
}

func requestNoResponder(t *testing.T, ctx context.Context, h Harness) {
	_, err := h.Hub.Request(ctx, wire.CallSubject(h.Name, h.Member, "echo"), nil)
	wantErr(t, err, wire.ErrNoResponder)
}

func requestContext(t *testing.T, ctx context.Context, h Harness) {
	heard := make(chan wire.Message, 1)
	subscribe(t, ctx, h.Site, wire.CallPattern(h.Name, h.Member), func(m wire.Message) { heard <- m })
	short, cancel := context.WithCancel(ctx)
	go func() { <-heard; cancel() }()
	_, err := h.Hub.Request(short, wire.CallSubject(h.Name, h.Member, "silence"), nil)
	wantErr(t, err, context.Canceled)
}

func requestsConcurrent(t *testing.T, ctx context.Context, h Harness) {
	answer(t, ctx, h, func(m wire.Message) []byte { return m.Data })
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			want := fmt.Sprintf("request %d", i)
			m, err := h.Hub.Request(ctx, wire.CallSubject(h.Name, h.Member, "echo"), []byte(want))
			if err != nil || string(m.Data) != want {
				t.Errorf("got %q, %v; want %q", m.Data, err, want)
			}
		})
	}
	wg.Wait()
}

func putGet(t *testing.T, ctx context.Context, h Harness) {
	subject := wire.DesiredSubject(h.Name, wire.ManifestSection)
	_, err := h.Site.Get(ctx, subject)
	wantErr(t, err, wire.ErrNotFound)
	revision := put(t, ctx, h.Hub, subject, []byte("one"))
	for who, bus := range map[string]wire.Bus{"hub": h.Hub, "site": h.Site} {
		got, err := bus.Get(ctx, subject)
		must(t, err)
		want := wire.Message{Subject: subject, Data: []byte("one"), Revision: revision}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s gets (-want +got):\n%s", who, diff)
		}
	}
	put(t, ctx, h.Hub, subject, nil)
	empty, err := h.Site.Get(ctx, subject)
	must(t, err)
	if len(empty.Data) != 0 || empty.Revision <= revision {
		t.Errorf("an empty value came back as %q at revision %d, before it %d", empty.Data, empty.Revision, revision)
	}
}

func putRevision(t *testing.T, ctx context.Context, h Harness) {
	subject := wire.DesiredSubject(h.Name, "apps")
	first, err := h.Hub.Put(ctx, subject, []byte("one"), 0)
	must(t, err)
	_, err = h.Hub.Put(ctx, subject, []byte("again"), 0)
	wantErr(t, err, wire.ErrConflict)
	second, err := h.Hub.Put(ctx, subject, []byte("two"), first)
	must(t, err)
	if second <= first {
		t.Errorf("revision %d follows %d", second, first)
	}
	_, err = h.Hub.Put(ctx, subject, []byte("late"), first)
	wantErr(t, err, wire.ErrConflict)
	got, err := h.Hub.Get(ctx, subject)
	must(t, err)
	if string(got.Data) != "two" || got.Revision != second {
		t.Errorf("stored is %q at %d, want \"two\" at %d", got.Data, got.Revision, second)
	}
}

func putConcurrent(t *testing.T, ctx context.Context, h Harness) {
	subject := wire.DesiredSubject(h.Name, "apps")
	base := put(t, ctx, h.Hub, subject, []byte("base"))
	var wg sync.WaitGroup
	won := make(chan int, 16)
	for i := range cap(won) {
		wg.Go(func() {
			_, err := h.Hub.Put(ctx, subject, fmt.Appendf(nil, "%d", i), base)
			if err == nil {
				won <- i
			} else if !errors.Is(err, wire.ErrConflict) {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d writers won, want one", len(won))
	}
	got, err := h.Hub.Get(ctx, subject)
	must(t, err)
	if want := fmt.Sprint(<-won); string(got.Data) != want {
		t.Errorf("stored is the value of writer %s, the winner is %s", got.Data, want)
	}
}

func notStored(t *testing.T, ctx context.Context, h Harness) {
	_, err := h.Hub.Get(ctx, wire.HintSubject(h.Name))
	wantErr(t, err, wire.ErrNoResponder)
	_, err = h.Hub.Put(ctx, wire.HintSubject(h.Name), nil, wire.AnyRevision)
	wantErr(t, err, wire.ErrNoResponder)
	wantErr(t, h.Store.Watch(ctx, wire.HintSubject(h.Name), func(wire.Message) {}), wire.ErrNoResponder)
	wantErr(t, h.Store.Purge(ctx, wire.HintSubject(h.Name)), wire.ErrNoResponder)
	wantErr(t, h.Store.History(ctx, wire.HintSubject(h.Name), 0, func(wire.Message) {}), wire.ErrNoResponder)
	wantErr(t, h.Store.Trim(ctx, wire.HintSubject(h.Name), 1), wire.ErrNoResponder)
	_, err = h.Store.Usage(ctx, "ANOTHER")
	wantErr(t, err, wire.ErrNoResponder)
}

func sizes(t *testing.T, ctx context.Context, h Harness) {
	largest := bytes.Repeat([]byte("x"), wire.MaxMessage)
	subject := wire.DesiredSubject(h.Name, "apps")
	put(t, ctx, h.Hub, subject, largest)
	got, err := h.Site.Get(ctx, subject)
	must(t, err)
	if !bytes.Equal(got.Data, largest) {
		t.Errorf("%d bytes came back as %d", len(largest), len(got.Data))
	}
	answer(t, ctx, h, func(m wire.Message) []byte { return m.Data })
	echoed, err := h.Hub.Request(ctx, wire.CallSubject(h.Name, h.Member, "echo"), largest)
	must(t, err)
	if !bytes.Equal(echoed.Data, largest) {
		t.Errorf("%d bytes were answered by %d", len(largest), len(echoed.Data))
	}
	larger := append(largest, 'x')
	_, err = h.Hub.Put(ctx, subject, larger, wire.AnyRevision)
	wantErr(t, err, wire.ErrTooLarge)
	wantErr(t, h.Hub.Publish(ctx, wire.HintSubject(h.Name), larger), wire.ErrTooLarge)
	_, err = h.Hub.Request(ctx, wire.CallSubject(h.Name, h.Member, "echo"), larger)
	wantErr(t, err, wire.ErrTooLarge)
}

func endedContext(t *testing.T, ctx context.Context, h Harness) {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	subject := wire.DesiredSubject(h.Name, "apps")
	ignore := func(wire.Message) {}
	_, err := h.Hub.Get(ended, subject)
	wantErr(t, err, context.Canceled)
	_, err = h.Hub.Put(ended, subject, nil, wire.AnyRevision)
	wantErr(t, err, context.Canceled)
	_, err = h.Hub.Request(ended, wire.CallSubject(h.Name, h.Member, "echo"), nil)
	wantErr(t, err, context.Canceled)
	_, err = h.Hub.Subscribe(ended, wire.HintSubject(h.Name), ignore)
	wantErr(t, err, context.Canceled)
	wantErr(t, h.Hub.Publish(ended, wire.HintSubject(h.Name), nil), context.Canceled)
	wantErr(t, h.Store.Watch(ended, wire.AllDesired, ignore), context.Canceled)
	wantErr(t, h.Store.Purge(ended, wire.AllDesired), context.Canceled)
	wantErr(t, h.Store.History(ended, wire.AllEvents, 0, ignore), context.Canceled)
	wantErr(t, h.Store.Trim(ended, wire.EventsSubject(h.Name, h.Member), 1), context.Canceled)
	_, err = h.Store.Usage(ended, wire.StreamEvents)
	wantErr(t, err, context.Canceled)
}

// answer makes the site answer every call.
func answer(t *testing.T, ctx context.Context, h Harness, fn func(wire.Message) []byte) {
	t.Helper()
	subscribe(t, ctx, h.Site, wire.CallPattern(h.Name, h.Member), func(m wire.Message) {
		if err := h.Site.Publish(ctx, m.Reply, fn(m)); err != nil {
			t.Errorf("answer on %s: %v", m.Reply, err)
		}
	})
}

func subscribe(t *testing.T, ctx context.Context, bus wire.Bus, subject string, fn wire.Handler) {
	t.Helper()
	cancel, err := bus.Subscribe(ctx, subject, fn)
	must(t, err)
	t.Cleanup(cancel)
}

func put(t *testing.T, ctx context.Context, bus wire.Bus, subject string, data []byte) uint64 {
	t.Helper()
	revision, err := bus.Put(ctx, subject, data, wire.AnyRevision)
	must(t, err)
	if revision == 0 {
		t.Fatalf("put %s: revision is zero", subject)
	}
	return revision
}

func receive(t *testing.T, ctx context.Context, from <-chan wire.Message) wire.Message {
	t.Helper()
	select {
	case m := <-from:
		return m
	case <-ctx.Done():
		t.Fatal("no message arrived")
		return wire.Message{}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want one that wraps %q", err, want)
	}
}
