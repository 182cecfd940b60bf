package natsbus_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/wire"
)

// patience is how long an event may take before a test fails.
const patience = 20 * time.Second

// hub is a real server with the hub's own client.
type hub struct {
	server *natsserver.Server
	client *natsbus.Client
	store  *natsbus.Store
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func startHub(t testing.TB, o natsserver.Options) hub {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Log = testLog(t)
	server, err := natsserver.Start(o)
	must(t, err)
	t.Cleanup(server.Stop)
	credential, sign, err := server.IssueHub()
	must(t, err)
	client := connect(t, natsbus.Options{
		InProcess:   server.InProcessConn,
		Credentials: func() (string, error) { return credential, nil },
		Sign:        sign,
	})
	store, err := natsbus.NewStore(client)
	must(t, err)
	must(t, store.EnsureStreams(t.Context(), 1))
	return hub{server, client, store}
}

// connect returns a client that is connected.
func connect(t testing.TB, o natsbus.Options) *natsbus.Client {
	t.Helper()
	o.Log = testLog(t)
	client, err := natsbus.Connect(t.Context(), o)
	must(t, err)
	t.Cleanup(client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, client.AwaitConnected(ctx))
	return client
}

// member returns the options of a member's client, without its address.
func (h hub) member(t testing.TB, site fleet.SiteName, member fleet.MemberID) natsbus.Options {
	t.Helper()
	return h.memberFor(t, site, member, time.Hour)
}

// memberFor is member with credentials that live ttl.
func (h hub) memberFor(t testing.TB, site fleet.SiteName, member fleet.MemberID, ttl time.Duration) natsbus.Options {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	return natsbus.Options{
		Credentials: func() (string, error) {
			credential, _, _, err := h.server.IssueMember(site, member, public, ttl, time.Now())
			return credential, err
		},
		Sign:        func(nonce []byte) ([]byte, error) { return ed25519.Sign(private, nonce), nil },
		InboxPrefix: wire.InboxPrefix(site, member),
		Name:        string(site) + "/" + string(member),
	}
}

// serve puts the bus on a port of its own, over TLS, and returns its URL and what a client trusts.
func (h hub) serve(t testing.TB) (url string, trust *tls.Config) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(wire.PathBus, h.server.WebSocketHandler())
	front := httptest.NewTLSServer(mux)
	t.Cleanup(front.Close)
	return strings.Replace(front.URL, "https:", "wss:", 1) + wire.PathBus,
		front.Client().Transport.(*http.Transport).TLSClientConfig
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// freeAddress returns an address of this machine on which nothing listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}
