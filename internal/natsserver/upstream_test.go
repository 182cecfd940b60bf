package natsserver_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/wire"
)

// external is a NATS server as somebody else would run it, with one account for the fleet.
type external struct {
	url    string
	issuer *natsserver.Issuer
	trust  *tls.Config
}

func startExternal(t *testing.T, secured bool) external {
	t.Helper()
	operator, operatorKey := pair(t, nkeys.CreateOperator)
	_, accountKey := pair(t, nkeys.CreateAccount)
	_, systemKey := pair(t, nkeys.CreateAccount)
	signing, signingKey := pair(t, nkeys.CreateAccount)

	claims := jwt.NewOperatorClaims(operatorKey)
	claims.SystemAccount = systemKey
	token, err := claims.Encode(operator)
	must(t, err)
	trusted, err := jwt.DecodeOperatorClaims(token)
	must(t, err)
	resolver := &server.MemAccResolver{}
	fleet := jwt.NewAccountClaims(accountKey)
	fleet.SigningKeys.Add(signingKey)
	fleet.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: 1 << 28, MemoryStorage: 1 << 24, Streams: -1, Consumer: -1}
	for _, c := range []*jwt.AccountClaims{fleet, jwt.NewAccountClaims(systemKey)} {
		token, err := c.Encode(operator)
		must(t, err)
		must(t, resolver.Store(c.Subject, token))
	}
	o := &server.Options{
		Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, JetStream: true, StoreDir: filepath.Join(t.TempDir(), "js"),
		TrustedOperators: []*jwt.OperatorClaims{trusted}, SystemAccount: systemKey, AccountResolver: resolver,
	}
	e := external{}
	scheme := "nats"
	if secured {
		front := httptest.NewTLSServer(nil)
		t.Cleanup(front.Close)
		o.TLSConfig, o.TLSTimeout, scheme = front.TLS, 10, "tls"
		e.trust = front.Client().Transport.(*http.Transport).TLSClientConfig
	}
	s, err := server.NewServer(o)
	must(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the external server is not ready")
	}
	seed, err := signing.Seed()
	must(t, err)
	e.issuer, err = natsserver.NewIssuer(accountKey, seed)
	must(t, err)
	e.url = scheme + "://" + s.Addr().String()
	return e
}

func pair(t *testing.T, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
	t.Helper()
	p, err := create()
	must(t, err)
	public, err := p.PublicKey()
	must(t, err)
	return p, public
}

// TestExternalNATS serves members of an external NATS through a gate: they work, and cannot use replies.
func TestExternalNATS(t *testing.T) {
	for name, secured := range map[string]bool{"in the clear": false, "over TLS": true} {
		t.Run(name, func(t *testing.T) {
			e := startExternal(t, secured)
			credential, sign, err := e.issuer.IssueHub()
			must(t, err)
			opts := []nats.Option{nats.UserJWT(func() (string, error) { return credential, nil }, sign)}
			if secured {
				opts = append(opts, nats.Secure(e.trust))
			}
			hub, err := nats.Connect(e.url, opts...)
			must(t, err)
			t.Cleanup(hub.Close)
			makeStreams(t, hub)
			_, err = hub.Request(wire.DesiredSubject("shop-1", "apps"), []byte("genuine"), patience)
			must(t, err)

			dial, err := natsserver.Upstream(e.url, e.trust)
			must(t, err)
			gate := natsserver.NewGate(dial, 10, testLog(t))
			t.Cleanup(gate.Stop)
			front := httptest.NewServer(gate.WebSocketHandler())
			t.Cleanup(front.Close)
			id := newIdentity(t, "shop-1", "m-1")
			member, _, _, err := e.issuer.IssueMember(id.site, id.member, id.public, time.Hour, time.Now())
			must(t, err)
			closed := make(chan struct{})
			c, err := nats.Connect(strings.Replace(front.URL, "http", "ws", 1), nats.NoReconnect(),
				nats.UserJWT(func() (string, error) { return member, nil }, id.sign),
				nats.CustomInboxPrefix(wire.InboxPrefix(id.site, id.member)),
				nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
			must(t, err)
			t.Cleanup(c.Close)
			m, err := c.Request(directGet+wire.DesiredSubject("shop-1", "apps"), nil, patience)
			must(t, err)
			if string(m.Data) != "genuine" {
				t.Errorf("got %q", m.Data)
			}
			attackByReply(t, c, "$JS.API.STREAM.PURGE."+wire.StreamDesired)
			await(t, closed, "the connection of the attacker is closed")
			if m, err := hub.Request(directGet+wire.DesiredSubject("shop-1", "apps"), nil, patience); err != nil || string(m.Data) != "genuine" {
				t.Errorf("after the attack the hub reads %v, %v", m, err)
			}
		})
	}
}

func TestUpstreamRefusals(t *testing.T) {
	for _, url := range []string{"", "https://a", "nats://", "::"} {
		if _, err := natsserver.Upstream(url, nil); err == nil {
			t.Errorf("took the URL %q", url)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("220 mail.example.com ESMTP\r\n"))
			conn.Close()
		}
	}()
	dial, err := natsserver.Upstream("nats://"+l.Addr().String(), nil)
	must(t, err)
	if conn, err := dial(); err == nil {
		conn.Close()
		t.Error("took a mail server for NATS")
	}
	plain := startExternal(t, false)
	dial, err = natsserver.Upstream(strings.Replace(plain.url, "nats:", "tls:", 1), nil)
	must(t, err)
	if conn, err := dial(); err == nil || !strings.Contains(err.Error(), "does not offer TLS") {
		if conn != nil {
			conn.Close()
		}
		t.Errorf("a server without TLS where TLS is asked for: %v", err)
	}
}
