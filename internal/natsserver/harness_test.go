package natsserver_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/wire"
)

// patience is how long an event may take before a test fails.
const patience = 20 * time.Second

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
}

func start(t testing.TB, dir string) *natsserver.Server {
	t.Helper()
	s, err := natsserver.Start(natsserver.Options{Dir: dir, Log: testLog(t)})
	must(t, err)
	t.Cleanup(s.Stop)
	return s
}

// connectHub returns a client with every right of the account.
func connectHub(t testing.TB, s *natsserver.Server) *nats.Conn {
	t.Helper()
	credential, sign, err := s.IssueHub()
	must(t, err)
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.UserJWT(func() (string, error) { return credential, nil }, sign))
	must(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// makeStreams makes what the hub makes, with nothing but what the wire says.
func makeStreams(t testing.TB, hub *nats.Conn) {
	t.Helper()
	for name, pattern := range wire.Stored() {
		config, err := json.Marshal(map[string]any{
			"name": name, "subjects": []string{pattern}, "max_msgs_per_subject": wire.Kept(name), "allow_direct": true,
			"storage": "file", "retention": "limits", "num_replicas": 1,
		})
		must(t, err)
		answer, err := hub.Request("$JS.API.STREAM.CREATE."+name, config, patience)
		must(t, err)
		if strings.Contains(string(answer.Data), `"error"`) {
			t.Fatalf("make stream: %s", answer.Data)
		}
	}
}

// identity is a member's key.
type identity struct {
	site    fleet.SiteName
	member  fleet.MemberID
	public  ed25519.PublicKey
	private ed25519.PrivateKey
}

func newIdentity(t testing.TB, site fleet.SiteName, member fleet.MemberID) identity {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	return identity{site, member, public, private}
}

// options are those of a member's connection with a credential of s.
func (id identity) options(t testing.TB, s *natsserver.Server) []nats.Option {
	t.Helper()
	return []nats.Option{
		nats.UserJWT(
			func() (string, error) {
				credential, _, _, err := s.IssueMember(id.site, id.member, id.public, time.Hour, time.Now())
				return credential, err
			},
			id.sign,
		),
		nats.CustomInboxPrefix(wire.InboxPrefix(id.site, id.member)),
		nats.NoReconnect(),
		nats.Timeout(patience),
	}
}

// serve returns the URL of the bus on a port of its own.
func serve(t testing.TB, s *natsserver.Server) string {
	t.Helper()
	front := httptest.NewServer(s.WebSocketHandler())
	t.Cleanup(front.Close)
	return strings.Replace(front.URL, "http:", "ws:", 1) + wire.PathBus
}

// client is a member's connection and what the server said about it.
type client struct {
	*nats.Conn
	errors chan error
	closed chan struct{}
}

func (id identity) connect(t testing.TB, s *natsserver.Server, url string, more ...nats.Option) client {
	t.Helper()
	c := client{errors: make(chan error, 100), closed: make(chan struct{})}
	opts := append(id.options(t, s),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.errors <- err }),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	)
	nc, err := nats.Connect(url, append(opts, more...)...)
	must(t, err)
	t.Cleanup(nc.Close)
	c.Conn = nc
	return c
}

// unguarded connects past the guard, as nothing outside of this process can.
func unguarded(s *natsserver.Server) nats.Option {
	return nats.InProcessServer(inProcess(s.InProcessConn))
}

type inProcess func() (net.Conn, error)

func (f inProcess) InProcessConn() (net.Conn, error) { return f() }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await returns what comes, or fails the test.
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

func (id identity) sign(nonce []byte) ([]byte, error) { return ed25519.Sign(id.private, nonce), nil }

// issueFunc is the method of an issuer.
type issueFunc func(fleet.SiteName, fleet.MemberID, ed25519.PublicKey, time.Duration, time.Time) (string, time.Time, time.Time, error)

// credential returns what issue gives to id, as if asked at now.
func (id identity) credential(t testing.TB, issue issueFunc, now time.Time) string {
	t.Helper()
	credential, _, _, err := issue(id.site, id.member, id.public, time.Hour, now)
	must(t, err)
	return credential
}

// newIdentityFromSeed is the same in every process.
func newIdentityFromSeed(t testing.TB, seed byte) identity {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return identity{"shop-1", "m-1", private.Public().(ed25519.PublicKey), private}
}

func accountSeed(t testing.TB) (seed []byte, public string) {
	t.Helper()
	pair, err := nkeys.CreateAccount()
	must(t, err)
	public, err = pair.PublicKey()
	must(t, err)
	seed, err = pair.Seed()
	must(t, err)
	return seed, public
}
