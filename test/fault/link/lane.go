package link

import (
	"math/rand/v2"
	"time"
)

// Faults are what happens to packets on one way of a Relay. The zero value passes each at once.
type Faults struct {
	// Loss and Double are the parts of packets, 0 to 1, that are dropped and that arrive twice.
	Loss, Double float64
	// Delay is how long each packet takes, Jitter how much longer one may take by chance: packets overtake
	// each other then.
	Delay, Jitter time.Duration
	// Rate bounds the way to so many bits a second; zero does not. What would wait longer than a second
	// for its turn is dropped.
	Rate int
	// Cut drops everything, also what is on its way.
	Cut bool
}

// Counts are what became of packets on one way.
type Counts struct {
	// Passed arrived, copies among them. Lost were dropped by chance, a full queue or a cut.
	Passed, Lost, Doubled int
}

// Bounds of what is on its way.
const (
	maxBacklog = time.Second
	maxPackets = 4096
)

// lane decides what becomes of each packet of one way. It has no goroutine and no clock of its own.
type lane struct {
	rand   *rand.Rand
	faults Faults
	free   time.Time // when the slow way has sent what it has
}

func newLane(seed, way uint64) *lane { return &lane{rand: rand.New(rand.NewPCG(seed, way))} }

// due returns when each copy of a packet that comes at now arrives; none when it is lost. It asks chance
// equally often whatever the faults are, so that the same seed loses the same packets.
func (l *lane) due(now time.Time, size int) []time.Time {
	lost, twice := l.rand.Float64() < l.faults.Loss, l.rand.Float64() < l.faults.Double
	late := [2]float64{l.rand.Float64(), l.rand.Float64()}
	if lost || l.faults.Cut {
		return nil
	}
	sent := now
	if l.faults.Rate > 0 {
		if l.free.Before(now) {
			l.free = now
		}
		if l.free.Sub(now) > maxBacklog {
			return nil
		}
		l.free = l.free.Add(time.Duration(size) * 8 * time.Second / time.Duration(l.faults.Rate))
		sent = l.free
	}
	copies := 1
	if twice {
		copies = 2
	}
	var out []time.Time
	for _, part := range late[:copies] {
		out = append(out, sent.Add(l.faults.Delay+time.Duration(part*float64(l.faults.Jitter))))
	}
	return out
}
