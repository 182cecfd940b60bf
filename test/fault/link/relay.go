package link

import (
	"container/heap"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

// Way is a direction of a Relay.
type Way int

// The ways: To the other host, and From it.
const (
	To Way = iota
	From
)

// Relay is a link to another host on two TUN devices, between which this process carries the packets.
type Relay struct {
	*Namespace
	ways [2]*carrier
}

// Relay makes a host and a relay to it. The same seed has the same chances, packet by packet.
func (n *Network) Relay(seed uint64) *Relay {
	n.t.Helper()
	r := &Relay{Namespace: n.namespace()}
	near, far := n.tun(r.near), n.tun(r.near+"f")
	r.ways[To], r.ways[From] = newCarrier(near, far, newLane(seed, 0)), newCarrier(far, near, newLane(seed, 1))
	var wg sync.WaitGroup
	for _, c := range r.ways {
		wg.Go(c.read)
		wg.Go(c.write)
	}
	n.t.Cleanup(func() {
		near.Close()
		far.Close()
		for _, c := range r.ways {
			c.stop()
		}
		wg.Wait()
	})
	n.ip("addr", "add", r.Here, "peer", r.There, "dev", r.near)
	n.ip("link", "set", r.near, "up")
	n.ip("link", "set", r.near+"f", "netns", r.Name)
	r.ip("addr", "add", r.There, "peer", r.Here, "dev", r.near+"f")
	r.ip("link", "set", r.near+"f", "up")
	r.ip("route", "add", "default", "via", r.Here)
	return r
}

// Set sets what happens on one way from now on.
func (r *Relay) Set(way Way, f Faults) {
	c := r.ways[way]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lane.faults = f
}

// SetBoth sets what happens on both ways from now on.
func (r *Relay) SetBoth(f Faults) { r.Set(To, f); r.Set(From, f) }

// Counts returns what became of packets on one way so far.
func (r *Relay) Counts(way Way) Counts {
	c := r.ways[way]
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// tun opens a new TUN device, which goes when its file is closed.
func (n *Network) tun(name string) *os.File {
	n.t.Helper()
	f, err := openTUN(name)
	if err != nil {
		n.t.Fatal(err)
	}
	return f
}

func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunDevice, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make TUN device %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// carrier carries the packets of one way.
type carrier struct {
	from, to *os.File
	wake     chan struct{}
	done     chan struct{}

	mu      sync.Mutex
	lane    *lane
	waiting flight
	number  int
	counts  Counts
}

func newCarrier(from, to *os.File, l *lane) *carrier {
	return &carrier{from: from, to: to, lane: l, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

func (c *carrier) stop() { close(c.done) }

// read takes packets until the device is closed.
func (c *carrier) read() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.from.Read(buffer)
		if err != nil {
			return
		}
		c.take(time.Now(), buffer[:n])
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

func (c *carrier) take(now time.Time, packet []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := c.lane.due(now, len(packet))
	if len(due) == 0 || len(c.waiting) >= maxPackets {
		c.counts.Lost++
		return
	}
	c.counts.Doubled += len(due) - 1
	data := append([]byte(nil), packet...)
	for _, at := range due {
		c.number++
		heap.Push(&c.waiting, packetAt{at: at, number: c.number, data: data})
	}
}

// write delivers packets when they are due, until stop.
func (c *carrier) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(c.deliver(time.Now()))
		select {
		case <-c.done:
			return
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// deliver writes what is due and returns how long the next packet has to wait.
func (c *carrier) deliver(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting) > 0 {
		if wait := c.waiting[0].at.Sub(now); wait > 0 {
			return wait
		}
		p := heap.Pop(&c.waiting).(packetAt)
		if c.lane.faults.Cut {
			c.counts.Lost++
		} else if _, err := c.to.Write(p.data); err != nil {
			c.counts.Lost++ // the device is down, or full
		} else {
			c.counts.Passed++
		}
	}
	return time.Hour
}

// packetAt is a packet that is due at a time.
type packetAt struct {
	at     time.Time
	number int
	data   []byte
}

// flight is a heap of packets, the next one first.
type flight []packetAt

func (f flight) Len() int      { return len(f) }
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f flight) Less(i, j int) bool {
	if !f[i].at.Equal(f[j].at) {
		return f[i].at.Before(f[j].at)
	}
	return f[i].number < f[j].number
}
func (f *flight) Push(x any) { *f = append(*f, x.(packetAt)) }
func (f *flight) Pop() any {
	old := *f
	last := old[len(old)-1]
	*f = old[:len(old)-1]
	return last
}
