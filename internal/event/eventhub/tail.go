package eventhub

import (
	"sync"

	"github.com/skerry-dev/skerry/internal/event"
	"github.com/skerry-dev/skerry/internal/wire"
)

// maxTail bounds the entries in memory: about 10 MiB of them.
const maxTail = 20_000

// tail is the newest entries of all sites. It is safe for concurrent use.
type tail struct {
	mu      sync.Mutex
	ledger  event.Ledger
	entries []event.Entry
	// dropped is how many entries were before the first.
	dropped uint64
	bytes   uint64
	ready   chan struct{} // closed when what was stored before is read
	isReady bool
	more    chan struct{} // closed and replaced when an entry comes
}

func newTail() *tail {
	return &tail{ready: make(chan struct{}), more: make(chan struct{})}
}

func (t *tail) begin(bytes uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes = bytes
}

func (t *tail) storedBytes() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return float64(t.bytes)
}

func (t *tail) caughtUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isReady {
		t.isReady = true
		close(t.ready)
	}
}

// take adds what is new in a batch, and returns it.
func (t *tail) take(b wire.EventBatch) []event.Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.ledger.Take(b)
	if len(taken) == 0 {
		return nil
	}
	t.entries = append(t.entries, taken...)
	// Moved seldom, so that an entry costs little.
	if over := len(t.entries) - maxTail; over > maxTail/4 {
		t.entries = append([]event.Entry(nil), t.entries[over:]...)
		t.dropped += uint64(over)
	}
	close(t.more)
	t.more = make(chan struct{})
	return taken
}

// since returns the entries from number from on, the number after the last of them, and what is closed when there
// are more. When the first are gone already, it begins with the oldest that is left.
func (t *tail) since(from uint64) (entries []event.Entry, next uint64, more <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next = t.dropped + uint64(len(t.entries))
	if from < t.dropped {
		from = t.dropped
	}
	if from < next {
		entries = append(entries, t.entries[from-t.dropped:]...)
	}
	return entries, next, t.more
}
