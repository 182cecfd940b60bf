package bustest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/wire"
)

// remember collects what a history tells; it ends with the test.
func remember(t *testing.T, ctx context.Context, store wire.Store, pattern string, after uint64) <-chan wire.Message {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	told := make(chan wire.Message, 1000)
	ended := make(chan error, 1)
	go func() { ended <- store.History(ctx, pattern, after, func(m wire.Message) { told <- m }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the history of %s ended with %v, not with its context", pattern, err)
		}
	})
	return told
}

// kept reads a history up to where it says that it told all.
func kept(t *testing.T, ctx context.Context, told <-chan wire.Message) []wire.Message {
	t.Helper()
	var all []wire.Message
	for {
		m := receive(t, ctx, told)
		if m.Subject == "" {
			return all
		}
		all = append(all, m)
	}
}

func eventsKept(t *testing.T, ctx context.Context, h Harness) {
	subject := wire.EventsSubject(h.Name, h.Member)
	bound := wire.Kept(wire.StreamEvents)
	var revision uint64
	for i := range bound + 5 {
		var err error
		revision, err = h.Site.Put(ctx, subject, fmt.Appendf(nil, "%d", i), revision)
		must(t, err)
	}
	newest, err := h.Site.Get(ctx, subject)
	must(t, err)
	if want := fmt.Sprint(bound + 4); string(newest.Data) != want || newest.Revision != revision {
		t.Errorf("the newest is %q at %d, want %q at %d", newest.Data, newest.Revision, want, revision)
	}
	_, err = h.Site.Put(ctx, subject, []byte("late"), revision-1)
	wantErr(t, err, wire.ErrConflict)
	all := kept(t, ctx, remember(t, ctx, h.Store, wire.AllEvents, 0))
	if len(all) != bound || string(all[0].Data) != "5" {
		t.Errorf("%d are kept, the first is %q; want %d from \"5\" on", len(all), all[0].Data, bound)
	}
	usage, err := h.Store.Usage(ctx, wire.StreamEvents)
	must(t, err)
	if diff := cmp.Diff(map[string]uint64{subject: uint64(bound)}, usage.Values); diff != "" || usage.Newest < revision || usage.Bytes == 0 {
		t.Errorf("usage is %d bytes up to revision %d (-want +got):\n%s", usage.Bytes, usage.Newest, diff)
	}
}

func history(t *testing.T, ctx context.Context, h Harness) {
	ours, others := wire.EventsSubject(h.Name, h.Member), wire.EventsSubject("another", "m")
	put := func(subject, data string) wire.Message {
		return wire.Message{Subject: subject, Data: []byte(data), Revision: put(t, ctx, h.Hub, subject, []byte(data))}
	}
	want := []wire.Message{put(ours, "one"), put(others, "two"), put(ours, "three")}
	told := remember(t, ctx, h.Store, wire.AllEvents, 0)
	if diff := cmp.Diff(want, kept(t, ctx, told)); diff != "" {
		t.Errorf("all that is kept (-want +got):\n%s", diff)
	}
	for _, data := range []string{"four", "five"} {
		next := put(ours, data)
		if diff := cmp.Diff(next, receive(t, ctx, told)); diff != "" {
			t.Errorf("what comes after (-want +got):\n%s", diff)
		}
		want = append(want, next)
	}
	if diff := cmp.Diff(want[2:], kept(t, ctx, remember(t, ctx, h.Store, wire.EventsPattern(h.Name), want[0].Revision))); diff != "" {
		t.Errorf("one site's, after a revision (-want +got):\n%s", diff)
	}
	newest := want[len(want)-1].Revision
	if got := kept(t, ctx, remember(t, ctx, h.Store, wire.AllEvents, newest)); len(got) != 0 {
		t.Errorf("after the newest revision there is %v", got)
	}
}

func trim(t *testing.T, ctx context.Context, h Harness) {
	ours, others := wire.EventsSubject(h.Name, h.Member), wire.EventsSubject("another", "m")
	for i := range 10 {
		put(t, ctx, h.Hub, ours, fmt.Appendf(nil, "%d", i))
		put(t, ctx, h.Hub, others, nil)
	}
	must(t, h.Store.Trim(ctx, ours, 3))
	must(t, h.Store.Trim(ctx, wire.EventsSubject("nobody", "m"), 3))
	var got []string
	for _, m := range kept(t, ctx, remember(t, ctx, h.Store, ours, 0)) {
		got = append(got, string(m.Data))
	}
	if diff := cmp.Diff([]string{"7", "8", "9"}, got); diff != "" {
		t.Errorf("after a trim to three (-want +got):\n%s", diff)
	}
	must(t, h.Store.Trim(ctx, ours, 0))
	if m, err := h.Site.Get(ctx, ours); err != nil || string(m.Data) != "9" {
		t.Errorf("a trim to nothing must leave the newest: %q, %v", m.Data, err)
	}
	if n := len(kept(t, ctx, remember(t, ctx, h.Store, others, 0))); n != 10 {
		t.Errorf("%d of another site's ten are left", n)
	}
}
