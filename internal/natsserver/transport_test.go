package natsserver_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// cutDialer dials and remembers the connection, so that a test can break it as a dying process does.
type cutDialer struct{ conns chan net.Conn }

func (d cutDialer) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	if err == nil {
		d.conns <- c
	}
	return c, err
}

func TestTransport(t *testing.T) {
	s, _, _ := fleetOfTwo(t)
	seen := make(chan string, 10)
	must(t, s.OnTransport(func(site fleet.SiteName, member fleet.MemberID, now fleet.Transport) {
		seen <- fmt.Sprintf("%s/%s %s", site, member, now)
	}))
	want := func(reason, line string) {
		t.Helper()
		if got := await(t, seen, reason); got != line {
			t.Errorf("%s: told %q, want %q", reason, got, line)
		}
	}
	url := serve(t, s)
	id := newIdentity(t, "shop-1", "m-1")
	one := id.connect(t, s, url)
	want("the first connection", "shop-1/m-1 Open")
	two := id.connect(t, s, url)
	one.Close()
	must(t, two.Flush())
	two.Close()
	want("the last of two that closed in order", "shop-1/m-1 Closed")

	dialer := cutDialer{make(chan net.Conn, 1)}
	id.connect(t, s, url, nats.SetCustomDialer(dialer))
	want("it is back", "shop-1/m-1 Open")
	conn := (<-dialer.conns).(*net.TCPConn)
	must(t, conn.SetLinger(0))
	must(t, conn.Close())
	want("its kernel reset the connection", "shop-1/m-1 Closed")

	id.connect(t, s, url)
	want("it is back again", "shop-1/m-1 Open")
	must(t, s.Revoke(id.public))
	want("the hub ended it", "shop-1/m-1 Ended")
	if len(seen) > 0 {
		t.Errorf("also told: %s", <-seen)
	}
}

// TestForeignTransport shows a credential that somebody else signed in a member's name.
func TestForeignTransport(t *testing.T) {
	s, _, _ := fleetOfTwo(t)
	foreign := start(t, t.TempDir())
	seen := make(chan fleet.SiteName, 10)
	must(t, s.OnTransport(func(site fleet.SiteName, _ fleet.MemberID, _ fleet.Transport) { seen <- site }))
	url := serve(t, s)
	victim := newIdentity(t, "shop-1", "m-1")
	if nc, err := nats.Connect(url, victim.options(t, foreign)...); err == nil {
		nc.Close()
		t.Fatal("a foreign credential was let in")
	}
	newIdentity(t, "shop-2", "m-2").connect(t, s, url)
	if got := await(t, seen, "the genuine one"); got != "shop-2" {
		t.Errorf("a foreign credential speaks for %s", got)
	}
}
