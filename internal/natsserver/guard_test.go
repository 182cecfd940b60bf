package natsserver

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/skerry-dev/skerry/internal/wire"
)

// connectLine is what a member says first.
func connectLine(t testing.TB) string {
	t.Helper()
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	public, err := account.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	issuer := &Issuer{account: public, signing: account, types: jwt.StringList{jwt.ConnectionTypeInProcess}}
	key, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	credential, _, _, err := issuer.IssueMember("shop-1", "m-1", key, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`CONNECT {"verbose":false,"jwt":%q,"sig":"x"}`+"\r\n", credential)
}

func TestGuard(t *testing.T) {
	connect := connectLine(t)
	own := "_INBOX.shop-1.m-1.x"
	tests := []struct {
		reason string
		input  string
		passes bool
	}{
		{"the usual conversation", connect + "PING\r\nPONG\r\nSUB a 1\r\nUNSUB 1\r\n", true},
		{"a message without a reply", connect + "PUB a 3\r\nabc\r\nPING\r\n", true},
		{"a message with the member's own inbox", connect + "PUB a " + own + " 3\r\nabc\r\n", true},
		{"headers count as part of the payload", connect + "HPUB a " + own + " 12 15\r\nNATS/1.0\r\n\r\nabc\r\nPING\r\n", true},
		{"an empty message", connect + "PUB a 0\r\n\r\nPING\r\n", true},
		{"a payload that looks like a line is not one", connect + "PUB a 13\r\nPUB a b 0\r\n\r\n\r\n", true},
		{"its calls may be named as reply, for nobody else hears them", connect + "PUB a skerry.v1.call.shop-1.m-1.x 0\r\n\r\n", true},
		{"another's inbox", connect + "PUB a _INBOX.shop-2.m-2.x 0\r\n\r\n", false},
		{"another's inbox, with headers", connect + "HPUB a _INBOX.shop-2.m-2.x 0 0\r\n\r\n", false},
		{"an inbox with a wildcard", connect + "PUB a _INBOX.shop-1.m-1.> 0\r\n\r\n", false},
		{"an empty reply", connect + "PUB a  0\r\n\r\n", false},
		{"JetStream's interface", connect + "PUB a $JS.API.STREAM.PURGE.SKERRY_DESIRED 0\r\n\r\n", false},
		{"a tab separates for the server, so it is refused", connect + "PUB a\t$JS.API.X 0\r\n\r\n", false},
		{"two spaces separate for the server, so they are refused", connect + "PUB  a $JS.API.X 0\r\n\r\n", false},
		{"a carriage return within a line", connect + "PUB a\r$JS.API.X 0\r\n\r\n", false},
		{"a line that ends with no carriage return", connect + "PING\n", false},
		{"a verb in lower case", connect + "pub a $JS.API.X 0\r\n\r\n", false},
		{"a verb of servers", connect + "RMSG a b 0\r\n\r\n", false},
		{"a verb with nothing after it", connect + "PUB\r\n", false},
		{"a size that is no number", connect + "PUB a -1\r\n\r\n", false},
		{"a size beyond all messages", connect + "PUB a 999999999\r\n", false},
		{"a payload longer than it said", connect + "PUB a 1\r\nabc\r\n", false},
		{"headers longer than all", connect + "HPUB a 9 3\r\nabc\r\n", false},
		{"a second credential", connect + connect, false},
		{"a message before the credential", "PUB a 0\r\n\r\n", false},
		{"a subscription before the credential", "SUB a 1\r\n", false},
		{"no credential", `CONNECT {"verbose":false}` + "\r\n", false},
		{"a credential that is none", `CONNECT {"jwt":"eyJ0.eyJ1.x"}` + "\r\n", false},
		{"a line without end", strings.Repeat("x", 2*maxControlLine), false},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			for _, step := range []int{1, 7, len(tt.input)} {
				var out bytes.Buffer
				err := writeInSteps(&guard{to: &out}, tt.input, step)
				switch {
				case tt.passes && (err != nil || out.String() != tt.input):
					t.Errorf("in steps of %d: error %v, passed on %d of %d bytes", step, err, out.Len(), len(tt.input))
				case !tt.passes && !errors.Is(err, errGuard):
					t.Errorf("in steps of %d: got error %v", step, err)
				}
			}
		})
	}
}

func writeInSteps(g *guard, input string, step int) error {
	for i := 0; i < len(input); i += step {
		if _, err := g.Write([]byte(input[i:min(i+step, len(input))])); err != nil {
			return err
		}
	}
	return nil
}

// FuzzGuard checks that nothing panics, that the size of what is held has a bound, that how bytes arrive
// makes no difference, and that a line with a foreign reply never passes.
func FuzzGuard(f *testing.F) {
	connect := connectLine(f)
	f.Add("PUB a b 0\r\n\r\n", 3)
	f.Add("HPUB a _INBOX.shop-1.m-1.x 12 15\r\nNATS/1.0\r\n\r\nabc\r\nPING\r\n", 5)
	f.Add("SUB a 1\r\n", 1)
	f.Fuzz(func(t *testing.T, rest string, step int) {
		if step < 1 {
			step = 1
		}
		var whole, parts bytes.Buffer
		g := &guard{to: &parts}
		errWhole := writeInSteps(&guard{to: &whole}, connect+rest, len(connect)+len(rest))
		errParts := writeInSteps(g, connect+rest, step)
		if (errWhole == nil) != (errParts == nil) || errWhole == nil && !bytes.Equal(whole.Bytes(), parts.Bytes()) {
			t.Errorf("at once: %v; in steps of %d: %v", errWhole, step, errParts)
		}
		if len(g.line) > maxControlLine+step || g.payload > wire.MaxMessage+maxHeaders+2 {
			t.Errorf("holds a line of %d bytes and awaits %d", len(g.line), g.payload)
		}
		if strings.HasPrefix(rest, "PUB a $JS.API.STREAM.PURGE.X ") && whole.Len() > len(connect) {
			t.Errorf("passed on %q", whole.Bytes()[len(connect):])
		}
	})
}
