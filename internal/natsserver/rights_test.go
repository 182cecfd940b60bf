package natsserver_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/skerry-dev/skerry/internal/wire"
)

// refused fails the test unless the server refuses what do does, naming subject, and keeps the link.
func refused(t *testing.T, c client, subject string, do func() error) {
	t.Helper()
	must(t, do())
	must(t, c.Flush())
	for {
		err := await(t, c.errors, "refusal of "+subject)
		if errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+subject+`"`) {
			return
		}
		t.Errorf("on %s the server says %v", subject, err)
	}
}

func TestMemberCannotListenElsewhere(t *testing.T) {
	s, _, _ := fleetOfTwo(t)
	a := newIdentity(t, "shop-1", "m-1").connect(t, s, serve(t, s))
	for _, subject := range []string{
		">", "*", "*.>", "skerry.>", "skerry.v1.>", "skerry.*.*.shop-1.>", "$JS.>", "$JS.API.>", "$JS.EVENT.>", "$SYS.>",
		"_INBOX.>", "_INBOX.*.*.>", "_INBOX.shop-1.>", "_INBOX.shop-1.m-9.>", "_INBOX.shop-2.m-2.>", "_INBOX.shop-2.m-2.abc", "_R_.>",
		wire.HintSubject("shop-2"), "skerry.v1.hint.*", "skerry.v1.hint.>",
		wire.CallPattern("shop-2", "m-2"), wire.CallPattern("shop-1", "m-9"), "skerry.v1.call.*.m-1.>", "skerry.v1.call.shop-1.*.logs",
		wire.ReportSubject("shop-2", "m-2"), wire.ReportSubject("shop-1", "m-1"), wire.AllReports,
		wire.EventsSubject("shop-1", "m-1"), wire.EventsPattern("shop-1"), wire.AllEvents,
		wire.DesiredPattern("shop-1"), wire.DesiredPattern("shop-2"), wire.AllDesired,
		wire.StreamPattern("shop-2", "m-2"), wire.StreamPattern("shop-1", "m-1"),
	} {
		refused(t, a, subject, func() error { _, err := a.SubscribeSync(subject); return err })
		refused(t, a, subject, func() error { _, err := a.QueueSubscribeSync(subject, "q"); return err })
	}
}

func TestMemberCannotPublishElsewhere(t *testing.T) {
	s, hub, heard := fleetOfTwo(t)
	a := newIdentity(t, "shop-1", "m-1").connect(t, s, serve(t, s))
	for _, subject := range []string{
		// what the hub alone says
		wire.DesiredSubject("shop-1", "apps"), wire.DesiredSubject("shop-2", wire.ManifestSection), wire.HintSubject("shop-1"),
		wire.CallSubject("shop-1", "m-1", "logs"),
		// what others say and hear
		wire.HintSubject("shop-2"), wire.CallSubject("shop-2", "m-2", "logs"), wire.CallSubject("shop-1", "m-9", "logs"),
		wire.ReportSubject("shop-2", "m-2"), wire.ReportSubject("shop-1", "m-9"), wire.ReportSubject("shop-1", "m-1") + ".more",
		wire.StreamSubject("shop-2", "m-2", "1"), wire.StreamSubject("shop-1", "m-9", "1"),
		"_INBOX.shop-2.m-2.1", "_INBOX.shop-1.m-1.1", "_INBOX.1", "$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING",
		// JetStream's interfaces
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO." + wire.StreamDesired,
		"$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.UPDATE." + wire.StreamDesired, "$JS.API.STREAM.DELETE." + wire.StreamDesired,
		"$JS.API.STREAM.PURGE." + wire.StreamDesired, "$JS.API.STREAM.MSG.DELETE." + wire.StreamDesired,
		"$JS.API.STREAM.MSG.GET." + wire.StreamDesired, "$JS.API.STREAM.SNAPSHOT." + wire.StreamDesired,
		"$JS.API.CONSUMER.CREATE." + wire.StreamDesired, "$JS.API.CONSUMER.CREATE." + wire.StreamDesired + ".c." + wire.DesiredPattern("shop-1"),
		"$JS.API.CONSUMER.DURABLE.CREATE." + wire.StreamDesired + ".c", "$JS.API.CONSUMER.NAMES." + wire.StreamDesired,
		"$JS.API.CONSUMER.MSG.NEXT." + wire.StreamDesired + ".c", "$JS.ACK." + wire.StreamDesired + ".c.1.1.1.1.0",
		// direct gets but its own: the form without a subject names what it wants in the payload
		"$JS.API.DIRECT.GET." + wire.StreamDesired, "$JS.API.DIRECT.GET." + wire.StreamReports,
		directGet + wire.DesiredSubject("shop-2", wire.ManifestSection), directGet + "skerry.v1.desired.*.manifest",
		directGet + wire.AllDesired, directGet + ">", directGet + "skerry.v1.desired.shop-1",
		"$JS.API.DIRECT.GET." + wire.StreamReports + "." + wire.ReportSubject("shop-2", "m-2"),
		wire.EventsSubject("shop-2", "m-2"), wire.EventsSubject("shop-1", "m-9"), wire.EventsSubject("shop-1", "m-1") + ".more",
		"$JS.API.DIRECT.GET." + wire.StreamEvents, "$JS.API.DIRECT.GET." + wire.StreamEvents + "." + wire.EventsSubject("shop-2", "m-2"),
		"$JS.API.DIRECT.GET." + wire.StreamEvents + "." + wire.EventsPattern("shop-1"), "$JS.API.STREAM.PURGE." + wire.StreamEvents,
	} {
		refused(t, a, subject, func() error {
			return a.PublishRequest(subject, "_INBOX.shop-1.m-1.x", []byte(`{"multi_last":["skerry.v1.desired.>"],"last_by_subj":"skerry.v1.desired.shop-2.manifest","seq":1}`))
		})
	}
	for _, m := range heardBefore(t, hub, heard) {
		t.Errorf("%q arrived on %s", m.Data, m.Subject)
	}
	wantGenuine(t, hub)
}

// TestDirectGetReadsItsOwnSubjectOnly sends what the right to a direct get could be bent to.
func TestDirectGetReadsItsOwnSubjectOnly(t *testing.T) {
	s, _, _ := fleetOfTwo(t)
	a := newIdentity(t, "shop-1", "m-1").connect(t, s, serve(t, s))
	for _, payload := range []string{
		`{"multi_last":["skerry.v1.desired.>"]}`, `{"last_by_subj":"skerry.v1.desired.shop-2.manifest"}`,
		`{"next_by_subj":"skerry.v1.desired.shop-2.manifest","seq":1}`, `{"seq":2}`, `{"batch":10}`,
	} {
		m, err := a.Request(directGet+wire.DesiredSubject("shop-1", "apps"), []byte(payload), patience)
		must(t, err)
		if status := m.Header.Get("Status"); status != "408" {
			t.Errorf("%s is answered by status %q and %q, want 408", payload, status, m.Data)
		}
	}
	// A wildcard below its own prefix may at most yield its own.
	m, err := a.Request(directGet+wire.DesiredPattern("shop-1"), nil, patience)
	must(t, err)
	if got := m.Header.Get("Nats-Subject"); got != "" && got != wire.DesiredSubject("shop-1", "apps") {
		t.Errorf("a wildcard reads %s", got)
	}
}

func TestMemberAnswersItsOwnCallsOnly(t *testing.T) {
	s, hub, _ := fleetOfTwo(t)
	url := serve(t, s)
	a := newIdentity(t, "shop-1", "m-1").connect(t, s, url)
	b := newIdentity(t, "shop-2", "m-2").connect(t, s, url)
	calls, err := b.SubscribeSync(wire.CallPattern("shop-2", "m-2"))
	must(t, err)
	must(t, b.Flush())

	inbox := hub.NewRespInbox()
	answers, err := hub.SubscribeSync(inbox)
	must(t, err)
	must(t, hub.PublishRequest(wire.CallSubject("shop-2", "m-2", "logs"), inbox, nil))
	call, err := calls.NextMsg(patience)
	must(t, err)
	// A knows the inbox and is still refused; so is a second answer of B.
	refused(t, a, inbox, func() error { return a.Publish(inbox, []byte("forged")) })
	must(t, call.Respond([]byte("genuine")))
	must(t, b.Flush())
	refused(t, b, inbox, func() error { return b.Publish(inbox, []byte("again")) })
	m, err := answers.NextMsg(patience)
	must(t, err)
	if string(m.Data) != "genuine" {
		t.Errorf("the hub got %q", m.Data)
	}
	if m, err := answers.NextMsg(10 * time.Millisecond); err == nil {
		t.Errorf("the hub also got %q", m.Data)
	}
}

func TestMemberIsBounded(t *testing.T) {
	s, _, _ := fleetOfTwo(t)
	url := serve(t, s)
	t.Run("subscriptions", func(t *testing.T) {
		a := newIdentity(t, "shop-1", "m-1").connect(t, s, url)
		for range 100 {
			_, err := a.SubscribeSync(wire.HintSubject("shop-1"))
			must(t, err)
		}
		must(t, a.Flush())
		if err := await(t, a.errors, "refusal of too many subscriptions"); !errors.Is(err, nats.ErrMaxSubscriptionsExceeded) {
			t.Errorf("the server says %v", err)
		}
	})
	t.Run("payload", func(t *testing.T) {
		a := newIdentity(t, "shop-1", "m-1").connect(t, s, url)
		if err := a.Publish(wire.ReportSubject("shop-1", "m-1"), make([]byte, 2*wire.MaxMessage)); !errors.Is(err, nats.ErrMaxPayload) {
			t.Errorf("twice the largest message: %v", err)
		}
	})
}

func TestForgedCredentials(t *testing.T) {
	s, other := start(t, t.TempDir()), start(t, t.TempDir())
	url := serve(t, s)
	a, b := newIdentity(t, "shop-1", "m-1"), newIdentity(t, "shop-2", "m-2")
	tests := []struct {
		reason     string
		credential string
		signer     identity
	}{
		{"the credential of another hub", a.credential(t, other.IssueMember, time.Now()), a},
		{"another's credential, signed with one's own key", b.credential(t, s.IssueMember, time.Now()), a},
		{"no credential", "", a},
		{"an expired credential", a.credential(t, s.IssueMember, time.Now().Add(-2*time.Hour)), a},
		{"a credential that was cut short", a.credential(t, s.IssueMember, time.Now())[:200], a},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			nc, err := nats.Connect(url, nats.NoReconnect(), nats.Timeout(patience),
				nats.UserJWT(func() (string, error) { return tt.credential, nil }, tt.signer.sign))
			if err == nil {
				nc.Close()
				t.Fatal("the bus let it in")
			}
		})
	}
}
