package link

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// run sends n packets of size bytes, one each gap, and returns when each copy arrives, by packet, counted
// from the first.
func run(l *lane, n, size int, gap time.Duration) [][]time.Duration {
	start := time.Unix(1_000_000, 0)
	var out [][]time.Duration
	for i := range n {
		var copies []time.Duration
		for _, at := range l.due(start.Add(time.Duration(i)*gap), size) {
			copies = append(copies, at.Sub(start))
		}
		out = append(out, copies)
	}
	return out
}

// TestSameSeedSameFate: a printed seed must replay what happened.
func TestSameSeedSameFate(t *testing.T) {
	faults := Faults{Loss: 0.2, Double: 0.2, Delay: time.Second, Jitter: time.Second}
	fate := func(seed uint64) [][]time.Duration {
		l := newLane(seed, 0)
		l.faults = faults
		return run(l, 500, 100, time.Millisecond)
	}
	if diff := cmp.Diff(fate(7), fate(7)); diff != "" {
		t.Errorf("the same seed has another fate:\n%s", diff)
	}
	if cmp.Equal(fate(7), fate(8)) {
		t.Error("another seed has the same fate")
	}
}

// TestLane counts, in virtual time, what each fault does to a thousand packets.
func TestLane(t *testing.T) {
	const n = 1000
	for _, test := range []struct {
		reason string
		faults Faults
		check  func(t *testing.T, arrived [][]time.Duration)
	}{
		{"without faults each packet arrives once, at once", Faults{}, func(t *testing.T, arrived [][]time.Duration) {
			for i, copies := range arrived {
				if len(copies) != 1 || copies[0] != time.Duration(i)*time.Millisecond {
					t.Fatalf("packet %d arrives at %v", i, copies)
				}
			}
		}},
		{"a third is lost", Faults{Loss: 0.3}, func(t *testing.T, arrived [][]time.Duration) {
			between(t, "arrived", count(arrived, 1), 600, 800)
		}},
		{"a fifth arrives twice", Faults{Double: 0.2}, func(t *testing.T, arrived [][]time.Duration) {
			between(t, "doubled", count(arrived, 2), 130, 270)
			between(t, "arrived once", count(arrived, 1), 730, 870)
		}},
		{"each is late by the delay", Faults{Delay: 2 * time.Second}, func(t *testing.T, arrived [][]time.Duration) {
			for i, copies := range arrived {
				if len(copies) != 1 || copies[0] != 2*time.Second+time.Duration(i)*time.Millisecond {
					t.Fatalf("packet %d arrives at %v", i, copies)
				}
			}
		}},
		{"jitter lets packets overtake each other", Faults{Jitter: 100 * time.Millisecond}, func(t *testing.T, arrived [][]time.Duration) {
			overtaken := 0
			for i := range arrived[1:] {
				if arrived[i+1][0] < arrived[i][0] {
					overtaken++
				}
			}
			between(t, "overtaken", overtaken, 300, 700)
		}},
		{"a slow way passes what its rate allows, with a second's queue", Faults{Rate: 64_000}, func(t *testing.T, arrived [][]time.Duration) {
			// 100 bytes are 12.5 ms: 80 in the second in which they come, and about 81 more that waited.
			between(t, "arrived", count(arrived, 1), 159, 163)
			if last := arrived[0][0]; last != 12500*time.Microsecond {
				t.Errorf("the first takes %s", last)
			}
		}},
		{"a cut passes nothing", Faults{Cut: true}, func(t *testing.T, arrived [][]time.Duration) {
			between(t, "lost", count(arrived, 0), n, n)
		}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			l := newLane(1, 0)
			l.faults = test.faults
			test.check(t, run(l, n, 100, time.Millisecond))
		})
	}
}

// count returns how many packets arrived in so many copies.
func count(arrived [][]time.Duration, copies int) int {
	n := 0
	for _, a := range arrived {
		if len(a) == copies {
			n++
		}
	}
	return n
}

func between(t *testing.T, what string, got, low, high int) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: %d, want %d to %d", what, got, low, high)
	}
}
