package enroll_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/wire"
)

// connect connects a member to the bus, and returns when it is; streams are made before.
func (h *testHub) connect(t testing.TB, id *enrollsite.Identity, proxy func(*url.URL) (*url.URL, error), onLink func(bool, error)) *natsbus.Client {
	t.Helper()
	credential, sign, err := h.bus.IssueHub()
	must(t, err)
	hub := dial(t, natsbus.Options{InProcess: h.bus.InProcessConn, Credentials: func() (string, error) { return credential, nil }, Sign: sign})
	store, err := natsbus.NewStore(hub)
	must(t, err)
	must(t, store.EnsureStreams(t.Context(), 1))
	return dial(t, natsbus.Options{
		URLs: id.BusURLs(), TLS: id.TLSConfig(), Credentials: id.Credentials, Sign: id.Sign,
		InboxPrefix: wire.InboxPrefix(id.Site(), id.Member()), Proxy: proxy, OnLink: onLink,
	})
}

func dial(t testing.TB, o natsbus.Options) *natsbus.Client {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	c, err := natsbus.Connect(t.Context(), o)
	must(t, err)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, c.AwaitConnected(ctx))
	return c
}

func TestMemberOnTheBus(t *testing.T) {
	h := startHub(t)
	a, b := h.join(t, "shop-1"), h.join(t, "shop-2")
	bus := h.connect(t, a, nil, nil)
	if _, err := bus.Put(t.Context(), wire.ReportSubject(a.Site(), a.Member()), []byte("well"), wire.AnyRevision); err != nil {
		t.Errorf("its own report: %v", err)
	}
	if _, err := bus.Put(t.Context(), wire.ReportSubject(b.Site(), b.Member()), nil, wire.AnyRevision); !errors.Is(err, wire.ErrForbidden) {
		t.Errorf("another's report: %v", err)
	}
	if _, err := bus.Get(t.Context(), wire.DesiredSubject(b.Site(), "apps")); !errors.Is(err, wire.ErrForbidden) {
		t.Errorf("another's section: %v", err)
	}
	if _, err := bus.Subscribe(t.Context(), wire.CallPattern(b.Site(), b.Member()), func(wire.Message) {}); !errors.Is(err, wire.ErrForbidden) {
		t.Errorf("another's calls: %v", err)
	}
	if err := bus.Publish(t.Context(), wire.AliveSubject(a.Site(), a.Member()), nil); err != nil {
		t.Errorf("its own sign of life: %v", err)
	}
}

func TestRevokedMember(t *testing.T) {
	h := startHub(t)
	id, kept := h.join(t, "shop-1"), h.join(t, "shop-2")
	lost := make(chan error, 100)
	bus := h.connect(t, id, nil, func(connected bool, err error) {
		if !connected && errors.Is(err, wire.ErrForbidden) {
			lost <- err
		}
	})
	begun := time.Now()
	h.revoke(t, id)
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("the member was not told that it is revoked")
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("cutting it off took %v", took)
	}
	// The refusal is told a moment before the connection ends.
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := bus.Publish(t.Context(), wire.AliveSubject(id.Site(), id.Member()), nil)
		if errors.Is(err, wire.ErrDisconnected) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after that it still publishes with %v", err)
		}
	}
	wantRefused(t, id.Renew(t.Context()), wire.RefusedRevoked)
	// The hub puts a revocation in force whenever it looks at the site; the audit tells it once.
	h.revoke(t, id)
	told := strings.Count(h.log.String(), fmt.Sprintf(`"audit":"revoke","site":"shop-1","member":"%s","cause":"revoked"`, id.Member()))
	if told != 1 {
		t.Errorf("the audit tells the revocation %d times:\n%s", told, h.log.String())
	}
	if !strings.Contains(h.log.String(), `"decision":"Revoked"`) {
		t.Errorf("the audit does not tell the refusal:\n%s", h.log.String())
	}
	if status, _ := whoAmI(t, id); status == 200 {
		t.Error("its certificate is still taken")
	}
	wantKnown(t, kept)
}

func TestRunRenews(t *testing.T) {
	h := startHub(t)
	id := h.join(t, "shop-1")
	before := id.Leaf().SerialNumber
	ctx, cancel := context.WithCancel(t.Context())
	refused := make(chan *enrollsite.RefusedError, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		id.Run(ctx, func(r *enrollsite.RefusedError) { refused <- r })
	}()
	defer func() { cancel(); <-ended }()
	id.RenewSoon()
	for deadline := time.Now().Add(patience); id.Leaf().SerialNumber.Cmp(before) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was renewed")
		}
	}
	wantKnown(t, id)
	h.revoke(t, id)
	id.RenewSoon()
	select {
	case r := <-refused:
		if r.Reason != wire.RefusedRevoked {
			t.Errorf("refused for %s", r.Reason)
		}
	case <-time.After(patience):
		t.Fatal("nobody was told of the refusal")
	}
}
