package link

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/testenv"
)

// arrival is a datagram that arrived, by its number.
type arrival struct {
	number int
	at     time.Time
}

// shoot sends n datagrams of size bytes from another host to this one, one each gap, or about twenty a
// millisecond when gap is zero, and returns what arrives until nothing came for quiet.
func shoot(t *testing.T, from *Namespace, n, size int, gap, quiet time.Duration) (arrived []arrival) {
	t.Helper()
	here, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from.Here)})
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	if err := here.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	conn, err := from.Dial(context.Background(), "udp4", here.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		packet := make([]byte, size)
		for i := range n {
			binary.BigEndian.PutUint32(packet, uint32(i))
			_, _ = conn.Write(packet) // a queue that is full drops it: that is what is counted
			if gap > 0 {
				time.Sleep(gap)
			} else if i%20 == 19 {
				time.Sleep(time.Millisecond) // so that no queue on the way is too short
			}
		}
	}()
	buffer := make([]byte, size)
	for {
		if err := here.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			t.Fatal(err)
		}
		_, _, err := here.ReadFromUDP(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return arrived
		}
		if err != nil {
			t.Fatal(err)
		}
		arrived = append(arrived, arrival{int(binary.BigEndian.Uint32(buffer)), time.Now()})
	}
}

// roundTrip measures how long one datagram takes to the other host and back, where an echo waits.
func roundTrip(t *testing.T, to *Namespace) time.Duration {
	t.Helper()
	var echo net.PacketConn
	var err error
	if entered := to.enter(func() { echo, err = net.ListenPacket("udp4", to.There+":0") }); entered != nil || err != nil {
		t.Fatal(entered, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 100)
		for {
			n, who, err := echo.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(buffer[:n], who)
		}
	}()
	defer func() { echo.Close(); <-done }()
	conn, err := net.Dial("udp4", echo.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begun := time.Now()
	if _, err := conn.Write([]byte("there and back")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(begun.Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	return time.Since(begun)
}

// TestRelay measures, with real datagrams through the kernel, that each fault of a relay happens.
func TestRelay(t *testing.T) {
	r := New(t).Relay(1)
	t.Run("without faults all arrive in order", func(t *testing.T) {
		arrived := shoot(t, r.Namespace, 200, 100, 0, 300*time.Millisecond)
		for i, a := range arrived {
			if a.number != i {
				t.Fatalf("datagram %d arrives as number %d", a.number, i)
			}
		}
		between(t, "arrived", len(arrived), 200, 200)
	})
	t.Run("a delay of 2 s each way makes a round trip of 4 s", func(t *testing.T) {
		r.SetBoth(Faults{Delay: 2 * time.Second})
		if took := roundTrip(t, r.Namespace); took < 4*time.Second || took > 6*time.Second {
			t.Errorf("it takes %s", took)
		}
	})
	t.Run("one of three is lost on the one way, none on the other", func(t *testing.T) {
		before := [2]Counts{r.Counts(To), r.Counts(From)}
		r.Set(To, Faults{})
		r.Set(From, Faults{Loss: 1.0 / 3})
		arrived := shoot(t, r.Namespace, 900, 100, 0, 300*time.Millisecond)
		between(t, "arrived", len(arrived), 510, 690)
		if lost := r.Counts(From).Lost - before[From].Lost; lost < 900-len(arrived) {
			t.Errorf("%d of 900 arrived, and %d are counted as lost", len(arrived), lost)
		}
		if lost := r.Counts(To).Lost - before[To].Lost; lost != 0 {
			t.Errorf("%d lost on the other way", lost)
		}
	})
	t.Run("one of four arrives twice", func(t *testing.T) {
		r.SetBoth(Faults{Double: 0.25})
		arrived := shoot(t, r.Namespace, 800, 100, 0, 300*time.Millisecond)
		between(t, "arrived", len(arrived), 930, 1070)
	})
	t.Run("jitter reorders", func(t *testing.T) {
		r.SetBoth(Faults{Jitter: 50 * time.Millisecond})
		arrived := shoot(t, r.Namespace, 200, 100, 0, 300*time.Millisecond)
		overtaken := 0
		for i := range arrived[1:] {
			if arrived[i+1].number < arrived[i].number {
				overtaken++
			}
		}
		between(t, "arrived", len(arrived), 200, 200)
		between(t, "overtaken", overtaken, 40, 160)
	})
	t.Run("64 kbit/s pass 16 kilobytes in two seconds", func(t *testing.T) {
		r.SetBoth(Faults{Rate: 64_000})
		slow(t, r.Namespace)
	})
	t.Run("a cut loses what is on its way too", func(t *testing.T) {
		r.SetBoth(Faults{Delay: 400 * time.Millisecond})
		cut := time.AfterFunc(200*time.Millisecond, func() { r.SetBoth(Faults{Cut: true}) })
		defer cut.Stop()
		arrived := shoot(t, r.Namespace, 50, 100, 0, 600*time.Millisecond)
		between(t, "arrived", len(arrived), 0, 0)
	})
	t.Run("and heals", func(t *testing.T) {
		r.SetBoth(Faults{})
		if took := roundTrip(t, r.Namespace); took > time.Second {
			t.Errorf("a round trip takes %s", took)
		}
	})
}

// TestAddress: another host reaches an address that this host took, and no longer when it gave it up.
func TestAddress(t *testing.T) {
	n := New(t)
	r, a := n.Relay(1), n.Address()
	reach := func() error {
		l, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		conn, err := r.Dial(ctx, "tcp4", net.JoinHostPort(a.IP, strconv.Itoa(l.Addr().(*net.TCPAddr).Port)))
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := reach(); err != nil {
		t.Errorf("while it is up: %v", err)
	}
	a.Down()
	if err := reach(); err == nil {
		t.Error("it is reached after it was given up")
	}
	a.Up()
	if err := reach(); err != nil {
		t.Errorf("when it is up again: %v", err)
	}
}

// slow checks that 16 datagrams of a kilobyte take as long as 64 kbit/s make them. They come slowly enough
// for the queue.
func slow(t *testing.T, from *Namespace) {
	t.Helper()
	begun := time.Now()
	arrived := shoot(t, from, 16, 1000, 80*time.Millisecond, time.Second)
	between(t, "arrived", len(arrived), 16, 16)
	// 16 of 1028 bytes are 2.06 s; tbf's burst saves half a second.
	if took := arrived[len(arrived)-1].at.Sub(begun); took < 1300*time.Millisecond || took > 6*time.Second {
		t.Errorf("16 kilobytes take %s", took)
	}
}

// TestCable measures that the kernel's faults of a veth pair happen.
func TestCable(t *testing.T) {
	testenv.Require(t, testenv.Tool("nft"), testenv.Tool("tc"))
	c := New(t).Cable()
	for _, test := range []struct {
		reason    string
		to, from  int // per mille
		low, high int // of 1000
	}{
		{"without loss all arrive", 0, 0, 1000, 1000},
		{"one in a hundred is lost", 0, 10, 970, 999},
		{"three of ten are lost", 0, 300, 620, 780},
		{"loss on the way there does not touch the way back", 1000, 0, 1000, 1000},
		{"an asymmetric cut of the way back passes nothing", 0, 1000, 0, 0},
		{"it heals", 0, 0, 1000, 1000},
	} {
		t.Run(test.reason, func(t *testing.T) {
			c.Lose(test.to, test.from)
			arrived := shoot(t, c.Namespace, 1000, 100, 0, 300*time.Millisecond)
			between(t, "arrived", len(arrived), test.low, test.high)
		})
	}
	t.Run("64 kbit/s", func(t *testing.T) {
		c.Slow(64_000)
		slow(t, c.Namespace)
		c.Slow(0)
		if took := roundTrip(t, c.Namespace); took > 200*time.Millisecond {
			t.Errorf("a round trip on the cable that is fast again takes %s", took)
		}
	})
	t.Run("pulled", func(t *testing.T) {
		c.Pull()
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if conn, err := c.Dial(ctx, "tcp4", c.Here+":9"); err == nil {
			conn.Close()
			t.Error("a connection through a pulled cable")
		} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("not lost, but refused: %v", err)
			}
		}
		c.Plug()
		// The kernel needs a moment to see the carrier.
		arrived := shoot(t, c.Namespace, 40, 100, 50*time.Millisecond, 2500*time.Millisecond)
		if len(arrived) == 0 || arrived[len(arrived)-1].number != 39 {
			t.Errorf("of 40 datagrams after it was plugged in %d arrived, not the last among them", len(arrived))
		}
	})
}
