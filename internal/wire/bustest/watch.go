package bustest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/wire"
)

// watching collects what a watch tells; it ends with the test.
func watching(t *testing.T, ctx context.Context, store wire.Store, pattern string) <-chan wire.Message {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	told := make(chan wire.Message, 1000)
	ended := make(chan error, 1)
	go func() { ended <- store.Watch(ctx, pattern, func(m wire.Message) { told <- m }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the watch of %s ended with %v, not with its context", pattern, err)
		}
	})
	return told
}

func watchOrder(t *testing.T, ctx context.Context, h Harness) {
	apps, routes := wire.DesiredSubject(h.Name, "apps"), wire.DesiredSubject(h.Name, "routes")
	put(t, ctx, h.Hub, apps, []byte("old"))
	r1 := put(t, ctx, h.Hub, routes, []byte("routes"))
	r2 := put(t, ctx, h.Hub, apps, []byte("new"))
	put(t, ctx, h.Hub, wire.DesiredSubject("another", "apps"), []byte("not ours"))

	told := watching(t, ctx, h.Store, wire.DesiredPattern(h.Name))
	want := []wire.Message{
		{Subject: routes, Data: []byte("routes"), Revision: r1},
		{Subject: apps, Data: []byte("new"), Revision: r2},
		{},
	}
	for i, w := range want {
		if diff := cmp.Diff(w, receive(t, ctx, told)); diff != "" {
			t.Fatalf("message %d (-want +got):\n%s", i, diff)
		}
	}
	r3 := put(t, ctx, h.Hub, routes, []byte("later"))
	if diff := cmp.Diff(wire.Message{Subject: routes, Data: []byte("later"), Revision: r3}, receive(t, ctx, told)); diff != "" {
		t.Errorf("after all that is stored was told (-want +got):\n%s", diff)
	}

	empty := watching(t, ctx, h.Store, wire.DesiredPattern("nobody"))
	if diff := cmp.Diff(wire.Message{}, receive(t, ctx, empty)); diff != "" {
		t.Errorf("a watch of nothing is caught up at once (-want +got):\n%s", diff)
	}
}

// watchLive lets a watch begin in the midst of writes: it must end with the newest value of each subject
// and never go back.
func watchLive(t *testing.T, ctx context.Context, h Harness) {
	const subjects, rounds = 5, 20
	subject := func(i int) string { return wire.DesiredSubject(h.Name, fmt.Sprintf("section-%d", i)) }
	newest := map[string]uint64{}
	written := make(chan struct{})
	go func() {
		defer close(written)
		for r := range rounds {
			for i := range subjects {
				revision, err := h.Hub.Put(ctx, subject(i), fmt.Appendf(nil, "%d", r), wire.AnyRevision)
				if err != nil {
					t.Errorf("put: %v", err)
					return
				}
				newest[subject(i)] = revision
			}
		}
	}()
	told := watching(t, ctx, h.Store, wire.DesiredPattern(h.Name))
	<-written
	got := map[string]uint64{}
	var last uint64
	caughtUp := false
	for !caughtUp || !cmp.Equal(newest, got) {
		m := receive(t, ctx, told)
		if m.Subject == "" {
			if caughtUp {
				t.Fatal("the watch said twice that it told all")
			}
			caughtUp = true
			continue
		}
		if m.Revision <= last {
			t.Fatalf("revision %d was told after %d", m.Revision, last)
		}
		last = m.Revision
		got[m.Subject] = m.Revision
	}
}

func watchReports(t *testing.T, ctx context.Context, h Harness) {
	told := watching(t, ctx, h.Store, wire.AllReports)
	if m := receive(t, ctx, told); m.Subject != "" {
		t.Fatalf("got %s before anything was stored", m.Subject)
	}
	subject := wire.ReportSubject(h.Name, h.Member)
	first := put(t, ctx, h.Site, subject, []byte("well"))
	second, err := h.Site.Put(ctx, subject, []byte("still well"), first)
	must(t, err)
	for _, want := range []wire.Message{
		{Subject: subject, Data: []byte("well"), Revision: first},
		{Subject: subject, Data: []byte("still well"), Revision: second},
	} {
		got := receive(t, ctx, told)
		if got.Revision == second && want.Revision == first {
			return // the first was replaced before it was sent
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	}
}

func purge(t *testing.T, ctx context.Context, h Harness) {
	gone, kept := wire.DesiredSubject(h.Name, "apps"), wire.DesiredSubject("another", "apps")
	before := put(t, ctx, h.Hub, gone, []byte("gone"))
	put(t, ctx, h.Hub, kept, []byte("kept"))
	must(t, h.Store.Purge(ctx, wire.DesiredPattern(h.Name)))
	must(t, h.Store.Purge(ctx, wire.DesiredPattern("nobody")))
	_, err := h.Hub.Get(ctx, gone)
	wantErr(t, err, wire.ErrNotFound)
	if _, err := h.Hub.Get(ctx, kept); err != nil {
		t.Errorf("the value of another site: %v", err)
	}
	after, err := h.Hub.Put(ctx, gone, []byte("again"), 0)
	must(t, err)
	if after <= before {
		t.Errorf("revision %d follows %d: a purged subject must not go back", after, before)
	}
}
