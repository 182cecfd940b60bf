package natsserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/nats-io/jwt/v2"

	"github.com/skerry-dev/skerry/internal/wire"
)

// maxControlLine bounds one line of NATS' protocol. The longest is CONNECT with a credential.
const maxControlLine = 4096

// errGuard is wrapped by every error with which a guard ends a connection.
var errGuard = errors.New("not allowed on a connection from outside")

// guard passes on what a client from outside says to the server, and ends the connection when the client
// asks for an answer on a subject that it may not itself listen to.
//
// NATS checks the subject of a message against its sender's rights, but not the reply subject. JetStream
// answers in its own name, so a member could otherwise let it write on any subject of the account: the
// acknowledgement of a report, sent to JetStream's own API, is a valid request to purge a stream.
//
// It reads the protocol more strictly than the server does, so that both understand every line alike:
// single spaces, no control characters, upper-case verbs, the verbs of clients alone, CRLF at the end.
type guard struct {
	to io.Writer
	// line is the part of a control line that has arrived.
	line []byte
	// payload is how many bytes still belong to a message, its last CRLF among them.
	payload int
	// replies are the patterns on which answers may be asked; nil before CONNECT.
	replies []string
	// open is set when the credential has no bounds on what it listens to.
	open, connected bool
	// shown, when set, is called with the credential that the client shows.
	shown func(*jwt.UserClaims)
}

// Write checks p and passes on what is complete. After an error the connection must be closed.
func (g *guard) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		var err error
		if g.payload > 0 {
			p, err = g.passPayload(p)
		} else {
			p, err = g.passLine(p)
		}
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (g *guard) passPayload(p []byte) ([]byte, error) {
	part := p[:min(len(p), g.payload)]
	for i, b := range part {
		// The two bytes after the payload end it; were they others, the server would read on where we
		// do not.
		if left := g.payload - i; left == 2 && b != '\r' || left == 1 && b != '\n' {
			return nil, fmt.Errorf("message does not end with CRLF: %w", errGuard)
		}
	}
	if _, err := g.to.Write(part); err != nil {
		return nil, err
	}
	g.payload -= len(part)
	return p[len(part):], nil
}

func (g *guard) passLine(p []byte) ([]byte, error) {
	end := bytes.IndexByte(p, '\n')
	if end < 0 {
		end = len(p) - 1
	}
	g.line = append(g.line, p[:end+1]...)
	if len(g.line) > maxControlLine {
		return nil, fmt.Errorf("line longer than %d bytes: %w", maxControlLine, errGuard)
	}
	if !bytes.HasSuffix(g.line, []byte("\n")) {
		return p[end+1:], nil
	}
	line, ok := bytes.CutSuffix(g.line, []byte("\r\n"))
	if !ok || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, fmt.Errorf("malformed line: %w", errGuard)
	}
	if err := g.check(string(line)); err != nil {
		return nil, err
	}
	if _, err := g.to.Write(g.line); err != nil {
		return nil, err
	}
	g.line = g.line[:0]
	if cap(g.line) > 512 {
		g.line = nil // CONNECT's line is long, those after are short
	}
	return p[end+1:], nil
}

// check reads one control line.
func (g *guard) check(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "CONNECT":
		return g.connect(rest)
	case "PING", "PONG":
		if rest != "" {
			return fmt.Errorf("%s takes no arguments: %w", verb, errGuard)
		}
		return nil
	case "PUB":
		return g.publish(strings.Split(rest, " "), 1)
	case "HPUB":
		return g.publish(strings.Split(rest, " "), 2)
	case "SUB", "UNSUB":
		if !g.connected {
			return fmt.Errorf("%s before CONNECT: %w", verb, errGuard)
		}
		return nil
	default:
		return fmt.Errorf("unknown verb: %w", errGuard)
	}
}

// connect takes the patterns on which the credential may listen. Whether the credential is genuine is
// the server's to decide; it ends the connection when it is not.
func (g *guard) connect(arguments string) error {
	if g.connected {
		return fmt.Errorf("second CONNECT: %w", errGuard)
	}
	var options struct {
		JWT string `json:"jwt"`
	}
	if err := json.Unmarshal([]byte(arguments), &options); err != nil {
		return fmt.Errorf("CONNECT: %w: %w", err, errGuard)
	}
	claims, err := jwt.DecodeUserClaims(options.JWT)
	if err != nil {
		return fmt.Errorf("CONNECT with no valid credential: %w: %w", err, errGuard)
	}
	g.connected = true
	g.replies = claims.Sub.Allow
	g.open = len(claims.Sub.Allow) == 0
	if g.shown != nil {
		g.shown(claims)
	}
	return nil
}

// publish checks the arguments of PUB or HPUB: the subject, perhaps a reply subject, and as many sizes as
// given, of which the last is that of all that follows.
func (g *guard) publish(arguments []string, sizes int) error {
	if !g.connected {
		return fmt.Errorf("publish before CONNECT: %w", errGuard)
	}
	names := len(arguments) - sizes
	if names < 1 || names > 2 || arguments[0] == "" {
		return fmt.Errorf("publish with %d arguments: %w", len(arguments), errGuard)
	}
	if names == 2 && !g.mayAsk(arguments[1]) {
		return fmt.Errorf("answer asked on %q: %w", arguments[1], errGuard)
	}
	last := 0
	for _, a := range arguments[names:] {
		size, err := strconv.ParseUint(a, 10, 31)
		if err != nil || size > wire.MaxMessage+maxHeaders || int(size) < last {
			return fmt.Errorf("publish with size %q: %w", a, errGuard)
		}
		last = int(size)
	}
	g.payload = last + len("\r\n")
	return nil
}

// mayAsk reports whether an answer may be sent to subject, which must be a plain one.
func (g *guard) mayAsk(subject string) bool {
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || token == "*" || token == ">" {
			return false
		}
	}
	if g.open {
		return true
	}
	for _, pattern := range g.replies {
		if wire.Matches(pattern, subject) {
			return true
		}
	}
	return false
}
