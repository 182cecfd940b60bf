package natsserver

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// handshakeTimeout is how long a TLS handshake may take. It is as long as authTimeout, for its reason.
const handshakeTimeout = authTimeout

// relayBuffer is how much is read from one side at once. There are two for each site; few messages are larger.
const relayBuffer = 4 << 10

// Gate is the way in for every connection that does not begin in this process: each is relayed to a
// connection of its own to the server, through a guard, and counted against one limit. Members of an
// external NATS come through a Gate too, because NATS alone does not keep them apart: see guard. It is
// safe for concurrent use.
type Gate struct {
	dial  func() (net.Conn, error)
	limit int
	log   *slog.Logger

	ctx    context.Context // ends with stop
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	open    int
	// members counts the connections of each member; transports is told when its first comes and its last goes.
	members    map[memberName]int
	issuedBy   string
	transports TransportFunc
}

// NewGate returns a Gate before the server to which dial connects, in NATS' protocol without TLS. It
// takes limit connections at once. The caller stops it.
func NewGate(dial func() (net.Conn, error), limit int, log *slog.Logger) *Gate {
	ctx, cancel := context.WithCancel(context.Background())
	return &Gate{dial: dial, limit: limit, log: log, ctx: ctx, cancel: cancel}
}

// Connections returns how many connections there are now, and how many may be.
func (g *Gate) Connections() (now, limit int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open, g.limit
}

// enter counts a connection; false when there are too many or the gate stops. Each true is answered by
// one leave.
func (g *Gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped || g.open >= g.limit {
		return false
	}
	g.open++
	g.wg.Add(1)
	return true
}

func (g *Gate) leave() {
	g.mu.Lock()
	g.open--
	g.mu.Unlock()
	g.wg.Done()
}

// Stop closes all connections and waits for their goroutines.
func (g *Gate) Stop() {
	g.mu.Lock()
	g.stopped = true
	g.mu.Unlock()
	g.cancel()
	g.wg.Wait()
}

// relay copies between outer and a new connection to the server until either ends or the gate stops. Both
// are closed when it returns, but outer not when there is no connection to the server.
func (g *Gate) relay(outer net.Conn, remote string) error {
	inner, err := g.dial()
	if err != nil {
		return err
	}
	stopWatch := context.AfterFunc(g.ctx, func() { inner.Close() })
	defer stopWatch()
	life := &transportLife{gate: g}
	up := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(&guard{to: inner, shown: life.begin}, struct{ io.Reader }{outer}, make([]byte, relayBuffer))
		if errors.Is(err, errGuard) {
			g.log.Warn("closed a connection to the bus", "remote", remote, "error", err)
		}
		life.peerEnded(err)
		// The server then closes its side, which ends the copy below.
		inner.Close()
		up <- err
	}()
	_, err = io.CopyBuffer(&timedWriter{conn: outer, life: life}, struct{ io.Reader }{inner}, make([]byte, relayBuffer))
	life.serverEnded(err)
	inner.Close()
	// The server may still have said why it closes; all of that is written by now.
	outer.Close()
	err = errors.Join(<-up, err)
	life.end()
	return err
}

// timedWriter gives up on a peer that takes nothing for writeTimeout.
type timedWriter struct {
	conn net.Conn
	life *transportLife
}

func (w *timedWriter) Write(p []byte) (int, error) {
	w.life.said(p)
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.conn.Write(p)
}

// serveTLS accepts connections that speak TLS from the first byte, until the gate stops.
func (g *Gate) serveTLS(l net.Listener, config *tls.Config) {
	stopWatch := context.AfterFunc(g.ctx, func() { l.Close() })
	g.wg.Go(func() {
		defer stopWatch()
		for {
			conn, err := l.Accept()
			switch {
			case g.ctx.Err() != nil:
				if err == nil {
					conn.Close()
				}
				return
			case err != nil:
				// Too many open files, mostly: wait for some to close.
				g.log.Warn("accept a connection to the bus", "error", err)
				select {
				case <-time.After(time.Second):
				case <-g.ctx.Done():
				}
			case !g.enter():
				conn.Close()
			default:
				go g.serveConn(tls.Server(conn, config))
			}
		}
	})
}

// handshake runs in a goroutine of its own: it needs a large stack, which the goroutine of a connection would keep for
// as long as the site is there.
func (g *Gate) handshake(conn *tls.Conn) error {
	done := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(g.ctx, handshakeTimeout)
		defer cancel()
		done <- conn.HandshakeContext(ctx)
	}()
	return <-done
}

func (g *Gate) serveConn(conn *tls.Conn) {
	defer g.leave()
	defer conn.Close()
	err := g.handshake(conn)
	if err == nil {
		err = g.relay(conn, conn.RemoteAddr().String())
	}
	g.log.Log(g.ctx, levelDetail, "connection to the bus ended", "remote", conn.RemoteAddr(), "error", err)
}
