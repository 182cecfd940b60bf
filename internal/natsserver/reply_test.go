package natsserver_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/wire"
)

const directGet = "$JS.API.DIRECT.GET." + wire.StreamDesired + "."

// replyAttacks are reply subjects on which JetStream would write in its own name.
func replyAttacks(victim identity) map[string]string {
	return map[string]string{
		"purge what the hub stored":       "$JS.API.STREAM.PURGE." + wire.StreamDesired,
		"delete a stored message":         "$JS.API.STREAM.MSG.DELETE." + wire.StreamDesired,
		"replace another site's manifest": wire.DesiredSubject(victim.site, wire.ManifestSection),
		"replace another site's report":   wire.ReportSubject(victim.site, victim.member),
		"call another site":               wire.CallSubject(victim.site, victim.member, "restart"),
		"hint another site":               wire.HintSubject(victim.site),
		"speak in another's stream":       wire.StreamSubject(victim.site, victim.member, "1"),
		"write in another's inbox":        wire.InboxPrefix(victim.site, victim.member) + ".1",
	}
}

// attackByReply lets a member ask JetStream for answers on reply, both that it can ask for.
func attackByReply(t *testing.T, c *nats.Conn, reply string) {
	t.Helper()
	must(t, c.PublishRequest(wire.ReportSubject("shop-1", "m-1"), reply, []byte("report")))
	must(t, c.PublishRequest(directGet+wire.DesiredSubject("shop-1", "apps"), reply, nil))
}

// fleetOfTwo is a hub that stored something for two sites, and hears everything on the bus.
func fleetOfTwo(t *testing.T) (s *natsserver.Server, hub *nats.Conn, heard *nats.Subscription) {
	t.Helper()
	s = start(t, t.TempDir())
	hub = connectHub(t, s)
	makeStreams(t, hub)
	for _, subject := range []string{
		wire.DesiredSubject("shop-1", "apps"),
		wire.DesiredSubject("shop-2", wire.ManifestSection),
		wire.ReportSubject("shop-2", "m-2"),
	} {
		_, err := hub.Request(subject, []byte("genuine"), patience)
		must(t, err)
	}
	heard, err := hub.SubscribeSync(">")
	must(t, err)
	must(t, hub.Flush())
	return s, hub, heard
}

// heardBefore returns what the hub heard before a message of its own, which must have been the last.
func heardBefore(t *testing.T, hub *nats.Conn, heard *nats.Subscription) []*nats.Msg {
	t.Helper()
	must(t, hub.Publish("end", nil))
	var all []*nats.Msg
	for {
		m, err := heard.NextMsg(patience)
		must(t, err)
		if m.Subject == "end" {
			return all
		}
		all = append(all, m)
	}
}

// wantGenuine fails the test unless all that is stored is what the hub stored.
func wantGenuine(t *testing.T, hub *nats.Conn) {
	t.Helper()
	for stream, subject := range map[string]string{
		wire.StreamDesired: wire.DesiredSubject("shop-2", wire.ManifestSection),
		wire.StreamReports: wire.ReportSubject("shop-2", "m-2"),
	} {
		m, err := hub.Request("$JS.API.DIRECT.GET."+stream+"."+subject, nil, patience)
		must(t, err)
		if string(m.Data) != "genuine" {
			t.Errorf("%s holds %q %v, not what was stored", subject, m.Data, m.Header)
		}
	}
}

func TestMemberCannotWriteThroughReplies(t *testing.T) {
	victim := newIdentity(t, "shop-2", "m-2")
	for name, reply := range replyAttacks(victim) {
		t.Run(name, func(t *testing.T) {
			s, hub, heard := fleetOfTwo(t)
			a := newIdentity(t, "shop-1", "m-1").connect(t, s, serve(t, s))
			attackByReply(t, a.Conn, reply)
			await(t, a.closed, "the connection of the attacker is closed")
			for _, m := range heardBefore(t, hub, heard) {
				t.Errorf("%q arrived on %s", m.Data, m.Subject)
			}
			wantGenuine(t, hub)
		})
	}
}

// TestNATSDoesNotCheckReplies shows what the guard is for. When it fails, NATS checks reply subjects by
// itself and the guard may go.
func TestNATSDoesNotCheckReplies(t *testing.T) {
	s, _, heard := fleetOfTwo(t)
	a := newIdentity(t, "shop-1", "m-1").connect(t, s, "", unguarded(s))
	reply := wire.DesiredSubject("shop-2", wire.ManifestSection)
	attackByReply(t, a.Conn, reply)
	must(t, a.Flush())
	for {
		m, err := heard.NextMsg(patience)
		if errors.Is(err, nats.ErrTimeout) {
			t.Fatal("JetStream did not answer on another site's subject")
		}
		must(t, err)
		if m.Subject == reply && strings.Contains(string(m.Data), wire.StreamReports) {
			break
		}
	}
}

func TestMemberMayAskOnItsOwnInbox(t *testing.T) {
	s, _, _ := fleetOfTwo(t)
	a := newIdentity(t, "shop-1", "m-1").connect(t, s, serve(t, s))
	m, err := a.Request(directGet+wire.DesiredSubject("shop-1", "apps"), nil, patience)
	must(t, err)
	if string(m.Data) != "genuine" {
		t.Errorf("got %q", m.Data)
	}
	ack, err := a.Request(wire.ReportSubject("shop-1", "m-1"), []byte("report"), patience)
	must(t, err)
	if !strings.Contains(string(ack.Data), `"seq"`) {
		t.Errorf("a report was answered by %q", ack.Data)
	}
}
