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

// relayBuffer is how much is read from one side at once.
const relayBuffer = 8 << 10

// outside is every connection that does not begin in this process: each is relayed to a connection
// within, through a guard, and counted against one limit.
type outside struct {
	dial  func() (net.Conn, error)
	limit int
	log   *slog.Logger

	ctx    context.Context // ends with stop
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	open    int
}

func newOutside(dial func() (net.Conn, error), limit int, log *slog.Logger) *outside {
	ctx, cancel := context.WithCancel(context.Background())
	return &outside{dial: dial, limit: limit, log: log, ctx: ctx, cancel: cancel}
}

func (o *outside) count() (now, limit int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open, o.limit
}

// enter counts a connection; false when there are too many or the server stops. Each true is answered by
// one leave.
func (o *outside) enter() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped || o.open >= o.limit {
		return false
	}
	o.open++
	o.wg.Add(1)
	return true
}

func (o *outside) leave() {
	o.mu.Lock()
	o.open--
	o.mu.Unlock()
	o.wg.Done()
}

// stop closes all connections and waits for their goroutines.
func (o *outside) stop() {
	o.mu.Lock()
	o.stopped = true
	o.mu.Unlock()
	o.cancel()
	o.wg.Wait()
}

// relay copies between outer and a new connection to the server until either ends or the server stops.
// It closes the inner connection; outer is closed by the caller after relay returned, and by abort when
// the server stops or a copy must be ended.
func (o *outside) relay(outer net.Conn, remote string) error {
	inner, err := o.dial()
	if err != nil {
		return err
	}
	stopWatch := context.AfterFunc(o.ctx, func() { inner.Close() })
	defer stopWatch()
	up := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(&guard{to: inner}, struct{ io.Reader }{outer}, make([]byte, relayBuffer))
		if errors.Is(err, errGuard) {
			o.log.Warn("closed a connection to the bus", "remote", remote, "error", err)
		}
		// The server then closes its side, which ends the copy below.
		inner.Close()
		up <- err
	}()
	_, err = io.CopyBuffer(timedWriter{outer}, struct{ io.Reader }{inner}, make([]byte, relayBuffer))
	inner.Close()
	// The server may still have said why it closes; all of that is written by now.
	outer.Close()
	return errors.Join(<-up, err)
}

// timedWriter gives up on a peer that takes nothing for writeTimeout.
type timedWriter struct{ conn net.Conn }

func (w timedWriter) Write(p []byte) (int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.conn.Write(p)
}

// serveTLS accepts connections that speak TLS from the first byte, until the server stops.
func (o *outside) serveTLS(l net.Listener, config *tls.Config) {
	stopWatch := context.AfterFunc(o.ctx, func() { l.Close() })
	o.wg.Go(func() {
		defer stopWatch()
		for {
			conn, err := l.Accept()
			switch {
			case o.ctx.Err() != nil:
				if err == nil {
					conn.Close()
				}
				return
			case err != nil:
				// Too many open files, mostly: wait for some to close.
				o.log.Warn("accept a connection to the bus", "error", err)
				select {
				case <-time.After(time.Second):
				case <-o.ctx.Done():
				}
			case !o.enter():
				conn.Close()
			default:
				go o.serveConn(tls.Server(conn, config))
			}
		}
	})
}

func (o *outside) serveConn(conn *tls.Conn) {
	defer o.leave()
	defer conn.Close()
	ctx, cancel := context.WithTimeout(o.ctx, handshakeTimeout)
	err := conn.HandshakeContext(ctx)
	cancel()
	if err == nil {
		err = o.relay(conn, conn.RemoteAddr().String())
	}
	o.log.Log(o.ctx, levelDetail, "connection to the bus ended", "remote", conn.RemoteAddr(), "error", err)
}
