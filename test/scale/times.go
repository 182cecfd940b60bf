package main

import (
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// times are what is known of one site in its client process. It is safe for concurrent use.
type times struct {
	mu sync.Mutex
	s  siteTimes
	// pull and report are when each was first acknowledged since the link came up; zero before.
	pull, report time.Time
	failed       error
	conn         *net.TCPConn
}

// siteTimes is when a site reached what; a zero time says not yet. All are of this machine's one clock.
type siteTimes struct {
	Kind kind
	// Begun is when it asked to join for the first time, Joined when it had its credentials.
	Begun, Joined time.Time
	// Linked is when the link came up the last time, and zero while it is down.
	Linked time.Time
	// Synced is when, after that, both its manifest was read and its report acknowledged.
	Synced time.Time
	// Round is that of the last report that was acknowledged, Reported when it was so first.
	Round    string
	Reported time.Time
	// Alive counts the signs of life that were sent.
	Alive int
}

// change notes something; it must not block.
func (t *times) change(fn func(s *siteTimes)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(&t.s)
}

func (t *times) sentAlive() { t.change(func(s *siteTimes) { s.Alive++ }) }

func (t *times) link(up bool) {
	t.change(func(s *siteTimes) {
		s.Linked, s.Synced, t.pull, t.report = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		if up {
			s.Linked = time.Now()
		}
	})
}

func (t *times) pulled() {
	t.change(func(s *siteTimes) {
		if t.pull.IsZero() {
			t.pull = time.Now()
		}
		t.synced(s)
	})
}

func (t *times) reported(round string) {
	t.change(func(s *siteTimes) {
		now := time.Now()
		if t.report.IsZero() {
			t.report = now
		}
		if s.Round != round {
			s.Round, s.Reported = round, now
		}
		t.synced(s)
	})
}

func (t *times) synced(s *siteTimes) {
	if s.Synced.IsZero() && !s.Linked.IsZero() && !t.pull.IsZero() && !t.report.IsZero() {
		s.Synced = time.Now()
	}
}

func (t *times) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = err
}

// traffic is what connections carried.
type traffic struct {
	// Bytes are those of TCP's streams, TLS among them; Segments are the packets.
	Bytes, Segments uint64
}

// headers of a packet: IPv4 without options, TCP with time stamps.
const headers = 20 + 32

func (a traffic) plus(b traffic) traffic {
	return traffic{a.Bytes + b.Bytes, a.Segments + b.Segments}
}

// opened takes the connection of the bus; the one before it is closed by then.
func (t *times) opened(conn *net.TCPConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn = conn
}

// traffic is what the connection that is there now carried.
func (t *times) traffic() traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return measure(t.conn)
}

// measure asks the kernel what a connection carried (tcp(7), TCP_INFO); nothing for one that is closed.
func measure(conn *net.TCPConn) traffic {
	if conn == nil {
		return traffic{}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return traffic{}
	}
	var out traffic
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			out = traffic{info.Bytes_acked + info.Bytes_received, uint64(info.Segs_out) + uint64(info.Segs_in)}
		}
	})
	return out
}
