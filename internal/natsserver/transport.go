package natsserver

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/nats-io/jwt/v2"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// TransportFunc is told when a member's first connection is there, and when and how its last ended. It must not
// block.
type TransportFunc func(fleet.SiteName, fleet.MemberID, fleet.Transport)

type memberName struct {
	site   fleet.SiteName
	member fleet.MemberID
}

// OnTransport registers fn. Only credentials count that issuer signed: others say whatever they like of
// themselves. Those that are there when it is registered are not told.
func (g *Gate) OnTransport(issuer *Issuer, fn TransportFunc) error {
	by, err := issuer.signing.PublicKey()
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.issuedBy, g.transports, g.members = by, fn, map[memberName]int{}
	return nil
}

// transportLife is what is seen of one connection: whose it is, and who ended it.
type transportLife struct {
	gate *Gate

	mu    sync.Mutex
	who   memberName
	known bool
	how   fleet.Transport
	// last is the end of what the server said, which says why it closes.
	last []byte
}

// begin takes whose connection it is, if the hub signed the credential. Whether its key is genuine the server
// decides a moment later; one that is not is ended by it, and that is all that can be made of it.
func (l *transportLife) begin(claims *jwt.UserClaims) {
	site, member, ok := strings.Cut(claims.Name, "/")
	who := memberName{fleet.SiteName(site), fleet.MemberID(member)}
	g := l.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if !ok || g.transports == nil || claims.Issuer != g.issuedBy {
		return
	}
	l.mu.Lock()
	l.who, l.known = who, true
	l.mu.Unlock()
	if g.members[who]++; g.members[who] == 1 {
		g.transports(who.site, who.member, fleet.TransportOpen)
	}
}

// said keeps the end of what the server says.
func (l *transportLife) said(p []byte) {
	const enough = 128
	if i := bytes.Index(p, []byte("-ERR")); i >= 0 {
		l.mu.Lock()
		l.last = bytes.Clone(p[i:min(len(p), i+enough)])
		l.mu.Unlock()
	}
}

// peerEnded notes that reading from the peer ended. After the server ended the connection that says nothing.
func (l *transportLife) peerEnded(err error) {
	switch {
	case errors.Is(err, errGuard):
		l.ended(fleet.TransportEnded)
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		l.ended(fleet.TransportLost) // what keeps connections alive got no answer
	default:
		l.ended(fleet.TransportClosed)
	}
}

// serverEnded notes that the server closed the connection, or that the peer took nothing.
func (l *transportLife) serverEnded(err error) {
	l.mu.Lock()
	stale := bytes.Contains(l.last, []byte("Stale Connection"))
	l.mu.Unlock()
	if stale || errors.Is(err, os.ErrDeadlineExceeded) {
		l.ended(fleet.TransportLost)
		return
	}
	l.ended(fleet.TransportEnded)
}

// ended keeps the first reason: what follows is its consequence.
func (l *transportLife) ended(how fleet.Transport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.how == "" {
		l.how = how
	}
}

func (l *transportLife) end() {
	l.mu.Lock()
	who, known, how := l.who, l.known, l.how
	l.mu.Unlock()
	if !known {
		return
	}
	g := l.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.members[who]--; g.members[who] > 0 {
		return
	}
	delete(g.members, who)
	if !g.stopped {
		g.transports(who.site, who.member, how)
	}
}
