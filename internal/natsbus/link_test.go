package natsbus_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/wire"
)

// link collects what OnLink is told.
type link struct {
	up   chan struct{}
	down chan error
}

func newLink() *link {
	return &link{up: make(chan struct{}, 1000), down: make(chan error, 1000)}
}

func (l *link) changed(connected bool, err error) {
	if connected {
		l.up <- struct{}{}
		return
	}
	l.down <- err
}

func await[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: did not happen within %v", what, patience)
		panic("unreachable")
	}
}

// TestHubAwayAtStart connects while nothing listens: it must return at once, say why it is not connected,
// and be connected once the hub is there.
func TestHubAwayAtStart(t *testing.T) {
	h := startHub(t, natsserver.Options{})
	o := h.member(t, "shop-1", "m-1")
	l := newLink()
	o.OnLink, o.Log = l.changed, testLog(t)
	address := freeAddress(t)
	certificates := httptest.NewTLSServer(nil)
	t.Cleanup(certificates.Close)
	o.URLs, o.TLS = []string{"wss://" + address + wire.PathBus}, certificates.Client().Transport.(*http.Transport).TLSClientConfig
	begun := time.Now()
	c, err := natsbus.Connect(t.Context(), o)
	must(t, err)
	t.Cleanup(c.Close)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("connecting took %v with no hub there", took)
	}
	if _, err := c.Get(t.Context(), wire.DesiredSubject("shop-1", "apps")); !errors.Is(err, wire.ErrDisconnected) {
		t.Errorf("before it is connected Get says %v", err)
	}
	if err := await(t, l.down, "a failed attempt"); !errors.Is(err, wire.ErrDisconnected) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the link is said to fail with %v", err)
	}
	listener, err := net.Listen("tcp", address)
	must(t, err)
	server := &http.Server{Handler: h.server.WebSocketHandler(), TLSConfig: certificates.TLS}
	go server.ServeTLS(listener, "", "")
	t.Cleanup(func() { server.Close() })
	await(t, l.up, "the link is up")
	if _, err := c.Get(t.Context(), wire.DesiredSubject("shop-1", "apps")); !errors.Is(err, wire.ErrNotFound) {
		t.Errorf("once it is connected Get says %v", err)
	}
}

// TestServerGoesAndComes stops the server under a client with a subscription and a request under way.
func TestServerGoesAndComes(t *testing.T) {
	dir := t.TempDir()
	h := startHub(t, natsserver.Options{Dir: dir})
	// The relay stands for the network: it outlives the server.
	var current atomic.Pointer[natsserver.Server]
	current.Store(h.server)
	o := h.member(t, "shop-1", "m-1")
	l := newLink()
	o.OnLink = l.changed
	o.InProcess = func() (net.Conn, error) { return current.Load().InProcessConn() }
	c := connect(t, o)
	await(t, l.up, "the link is up")
	heard := make(chan wire.Message, 10)
	cancel, err := c.Subscribe(t.Context(), wire.HintSubject("shop-1"), func(m wire.Message) { heard <- m })
	must(t, err)
	defer cancel()

	silent, err := h.client.Subscribe(t.Context(), wire.StreamSubject("shop-1", "m-1", "1"), func(wire.Message) {})
	must(t, err)
	defer silent()
	underWay := make(chan error, 1)
	go func() {
		_, err := c.Request(t.Context(), wire.StreamSubject("shop-1", "m-1", "1"), nil)
		underWay <- err
	}()
	watching := make(chan error, 1)
	caughtUp := make(chan struct{}, 10)
	go func() {
		watching <- h.store.Watch(t.Context(), wire.AllDesired, func(wire.Message) { caughtUp <- struct{}{} })
	}()
	await(t, caughtUp, "the watch tells what is stored")
	h.server.Stop()
	if err := await(t, underWay, "the request under way ends"); !errors.Is(err, wire.ErrDisconnected) {
		t.Errorf("it ends with %v", err)
	}
	if err := await(t, watching, "the watch ends"); !errors.Is(err, wire.ErrDisconnected) {
		t.Errorf("the watch ends with %v", err)
	}
	await(t, l.down, "the link is down")
	if err := c.Publish(t.Context(), wire.AliveSubject("shop-1", "m-1"), nil); !errors.Is(err, wire.ErrDisconnected) {
		t.Errorf("with no server Publish says %v", err)
	}

	again := startHub(t, natsserver.Options{Dir: dir})
	current.Store(again.server)
	await(t, l.up, "the link is up again")
	must(t, again.client.Publish(t.Context(), wire.HintSubject("shop-1"), []byte("look")))
	if m := await(t, heard, "a hint after the server came back"); string(m.Data) != "look" {
		t.Errorf("heard %q", m.Data)
	}
}

// TestCredentialExpires lets a credential end under a connected client, which must say so and use the next.
func TestCredentialExpires(t *testing.T) {
	h := startHub(t, natsserver.Options{})
	long := h.member(t, "shop-1", "m-1")
	short := h.memberFor(t, "shop-1", "m-1", 2*time.Second)
	var renewed atomic.Bool
	o := long
	o.InProcess = h.server.InProcessConn
	l := newLink()
	o.OnLink = l.changed
	o.Credentials = func() (string, error) {
		if renewed.Load() {
			return long.Credentials()
		}
		return short.Credentials()
	}
	o.Sign = func(nonce []byte) ([]byte, error) {
		if renewed.Load() {
			return long.Sign(nonce)
		}
		return short.Sign(nonce)
	}
	connect(t, o)
	await(t, l.up, "the link is up")
	for {
		err := await(t, l.down, "the credential ends")
		if errors.Is(err, wire.ErrForbidden) {
			break
		}
	}
	renewed.Store(true)
	await(t, l.up, "the link is up with the renewed credential")
}

func TestForbiddenSubjectsFailAtOnce(t *testing.T) {
	h := startHub(t, natsserver.Options{})
	o := h.member(t, "shop-1", "m-1")
	o.InProcess = h.server.InProcessConn
	c := connect(t, o)
	begun := time.Now()
	_, err := c.Get(t.Context(), wire.DesiredSubject("shop-2", "apps"))
	if !errors.Is(err, wire.ErrForbidden) {
		t.Errorf("Get says %v", err)
	}
	_, err = c.Put(t.Context(), wire.ReportSubject("shop-2", "m-2"), nil, wire.AnyRevision)
	if !errors.Is(err, wire.ErrForbidden) {
		t.Errorf("Put says %v", err)
	}
	_, err = c.Subscribe(t.Context(), wire.HintSubject("shop-2"), func(wire.Message) { t.Error("heard a hint of another") })
	if !errors.Is(err, wire.ErrForbidden) {
		t.Errorf("Subscribe says %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	must(t, h.client.Publish(t.Context(), wire.HintSubject("shop-2"), nil))
}

func TestSlowSubscriberLosesTheNewest(t *testing.T) {
	h := startHub(t, natsserver.Options{})
	o := h.member(t, "shop-1", "m-1")
	o.InProcess, o.PendingMessages = h.server.InProcessConn, 10
	c := connect(t, o)
	release, first := make(chan struct{}), make(chan struct{})
	var got []string
	done := make(chan struct{})
	cancel, err := c.Subscribe(t.Context(), wire.HintSubject("shop-1"), func(m wire.Message) {
		if len(got) == 0 {
			close(first)
			<-release
		}
		if got = append(got, string(m.Data)); string(m.Data) == "last" {
			close(done)
		}
	})
	must(t, err)
	defer cancel()
	must(t, h.client.Publish(t.Context(), wire.HintSubject("shop-1"), []byte("first")))
	await(t, first, "the first message")
	for range 100 {
		must(t, h.client.Publish(t.Context(), wire.HintSubject("shop-1"), []byte("more")))
	}
	for deadline := time.Now().Add(patience); c.Dropped() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is counted as dropped")
		}
	}
	// An answer to each side comes after all that was published before: every message has arrived.
	for _, bus := range []wire.Bus{h.client, c} {
		if _, err := bus.Get(t.Context(), wire.DesiredSubject("shop-1", "nothing")); !errors.Is(err, wire.ErrNotFound) {
			t.Fatal(err)
		}
	}
	close(release)
	for ended := false; !ended; {
		must(t, h.client.Publish(t.Context(), wire.HintSubject("shop-1"), []byte("last")))
		select {
		case <-done:
			ended = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	if len(got) > 40 {
		t.Errorf("%d messages were held, want about 10", len(got))
	}
}

func TestClosed(t *testing.T) {
	h := startHub(t, natsserver.Options{})
	o := h.member(t, "shop-1", "m-1")
	o.InProcess = h.server.InProcessConn
	c := connect(t, o)
	c.Close()
	if err := c.Publish(t.Context(), wire.AliveSubject("shop-1", "m-1"), nil); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("Publish says %v", err)
	}
	if err := c.AwaitConnected(t.Context()); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("AwaitConnected says %v", err)
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	tests := []struct {
		reason string
		urls   []string
	}{
		{"no URL", nil},
		{"no scheme that carries the bus", []string{"https://hub"}},
		{"no host", []string{"wss:///bus"}},
		{"kinds that do not mix", []string{"wss://a", "tls://b"}},
		{"no URL at all", []string{"::"}},
	}
	for _, tt := range tests {
		c, err := natsbus.Connect(t.Context(), natsbus.Options{URLs: tt.urls, Log: testLog(t)})
		if err == nil {
			c.Close()
			t.Errorf("%s: no error", tt.reason)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := natsbus.Connect(ended, natsbus.Options{URLs: []string{"nats://127.0.0.1"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ended: %v", err)
	}
}

// TestHubThatMoved connects where nothing listens any more, and learns meanwhile where the hub is now.
func TestHubThatMoved(t *testing.T) {
	h := startHub(t, natsserver.Options{})
	o := h.member(t, "shop-1", "m-1")
	l := newLink()
	o.OnLink, o.Log = l.changed, testLog(t)
	front := httptest.NewTLSServer(h.server.WebSocketHandler())
	t.Cleanup(front.Close)
	now := strings.Replace(front.URL, "https:", "wss:", 1) + wire.PathBus
	o.URLs, o.TLS = []string{"wss://" + freeAddress(t) + wire.PathBus}, front.Client().Transport.(*http.Transport).TLSClientConfig
	var mu sync.Mutex
	known := o.URLs
	o.Newest = func() []string {
		mu.Lock()
		defer mu.Unlock()
		return known
	}
	c, err := natsbus.Connect(t.Context(), o)
	must(t, err)
	t.Cleanup(c.Close)
	await(t, l.down, "a failed attempt at the old address")
	mu.Lock()
	known = []string{now, o.URLs[0]}
	mu.Unlock()
	await(t, l.up, "the link at the new one")
}
