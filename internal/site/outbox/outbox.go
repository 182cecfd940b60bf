package outbox

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Defaults and bounds.
const (
	// DefaultBudget is how much room on the disk an outbox takes when it is told nothing else.
	DefaultBudget = 32 << 20
	// segmentSize is from which size on a file is followed by another: as much is dropped, or given back, at once.
	segmentSize = 128 << 10
	// minBudget holds one file of each class beside the one that is written.
	minBudget = 8 * segmentSize
	// maxWaiting bounds the events in memory that are not on the disk yet.
	maxWaiting = 1024
)

// Options of an Outbox.
type Options struct {
	// Budget is how many bytes it may take on the disk; zero means DefaultBudget, and less than a MiB means
	// a MiB.
	Budget int64
	Log    *slog.Logger
	// Now is the site's clock, for the times that people read.
	Now func() time.Time
}

// Outbox keeps events until they are acknowledged. It is safe for concurrent use. One process may have a
// directory open; the site's store makes sure of that.
type Outbox struct {
	dir    string
	log    *slog.Logger
	now    func() time.Time
	budget int64
	ready  chan struct{}
	urgent chan struct{}

	mu      sync.Mutex
	head    head
	next    uint64 // the number of the next event
	began   uint64 // the first number of this life
	sent    uint64 // the highest number that a batch held, or that an earlier life gave
	waiting []wire.EventRecord
	files   map[fleet.EventClass][]*segment // oldest first
	before  Ending
}

// Open reads what an earlier life kept. Only a directory that cannot be used is an error: records that the disk
// damaged are left out, and logged.
func Open(dir string, o Options) (*Outbox, error) {
	if o.Budget == 0 {
		o.Budget = DefaultBudget
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	b := &Outbox{
		dir: dir, log: o.Log, now: o.Now, budget: max(o.Budget, minBudget),
		ready: make(chan struct{}, 1), urgent: make(chan struct{}, 1), files: map[fleet.EventClass][]*segment{},
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the outbox: %w", err)
	}
	if err := b.load(); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	return b, nil
}

func (b *Outbox) load() error {
	fresh := b.loadHead()
	found, err := findSegments(b.dir, b.log)
	if err != nil {
		return err
	}
	b.next = max(b.head.Next, b.head.Acked+1)
	for _, s := range found {
		b.next = max(b.next, s.last+1)
		b.files[s.class] = append(b.files[s.class], s)
	}
	for _, list := range b.files {
		slices.SortFunc(list, func(x, y *segment) int { return cmp.Compare(x.first, y.first) })
	}
	b.began, b.sent = b.next, b.next-1
	switch {
	case fresh:
	case b.head.Stopped:
		b.before = EndedOrderly
	default:
		b.before = EndedHard
	}
	b.head.Stopped = false
	// From now on a start that finds no orderly stop follows a crash. A disk that takes nothing says so again at
	// the first Flush, and must not keep the agent from starting.
	if err := b.saveHead(); err != nil {
		b.log.Error("the outbox cannot be written", "error", err)
	}
	return nil
}

// Before says how the life before this one ended.
func (b *Outbox) Before() Ending { return b.before }

// Ending is how a life of the outbox, and so of its agent, ended.
type Ending int

// The ways to end.
const (
	EndedNever   Ending = iota // there was none, or nobody knows
	EndedOrderly               // with Close
	EndedHard                  // without: it was killed, or power was lost
)

// Add takes an event. Its time is set when it has none. It is on the disk after the next Flush; an alarm asks
// for one at once, by Urgent. When more wait than memory holds, the least of them is dropped and counted.
func (b *Outbox) Add(e fleet.Event) {
	e = e.Bounded()
	if !slices.Contains(fleet.EventClasses(), e.Class) {
		e.Class = fleet.ClassEvent
	}
	if e.Time == 0 {
		e.Time = b.now().UnixMilli()
	}
	b.mu.Lock()
	b.waiting = append(b.waiting, wire.EventRecord{Sequence: b.next, Event: e})
	b.next++
	if len(b.waiting) > maxWaiting {
		b.dropWaiting()
	}
	b.mu.Unlock()
	poke(b.ready)
	if e.Class == fleet.ClassAlarm {
		poke(b.urgent)
	}
}

// dropWaiting drops the oldest of the least class that waits. The caller holds the lock.
func (b *Outbox) dropWaiting() {
	least := 0
	for i, r := range b.waiting {
		if rank(r.Class) > rank(b.waiting[least].Class) {
			least = i
		}
	}
	b.head.drop(b.waiting[least].Class, 1)
	b.waiting = slices.Delete(b.waiting, least, least+1)
}

// rank is a class's place in the order in which classes are kept: the highest goes first.
func rank(c fleet.EventClass) int {
	if i := slices.Index(fleet.EventClasses(), c); i >= 0 {
		return i
	}
	return len(fleet.EventClasses())
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ready holds a token when something was added since it was last read.
func (b *Outbox) Ready() <-chan struct{} { return b.ready }

// Urgent holds a token when what was added should be on the disk now.
func (b *Outbox) Urgent() <-chan struct{} { return b.urgent }

// Flush writes what waits to the disk and returns when it is there. When there is no room it drops the oldest
// of the least class and tries again; what still cannot be written waits for the next Flush.
func (b *Outbox) Flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	byClass := map[fleet.EventClass][]wire.EventRecord{}
	for _, r := range b.waiting {
		byClass[r.Class] = append(byClass[r.Class], r)
	}
	var failed error
	for _, class := range slices.SortedFunc(maps.Keys(byClass), func(x, y fleet.EventClass) int { return cmp.Compare(rank(x), rank(y)) }) {
		if err := b.flush(class, byClass[class]); err != nil {
			failed = errors.Join(failed, fmt.Errorf("keep events of class %s: %w", class, err))
		}
	}
	return errors.Join(failed, b.shrink())
}

// flush writes what waits of one class, some of it at a time.
func (b *Outbox) flush(class fleet.EventClass, records []wire.EventRecord) error {
	for len(records) > 0 {
		some := records[:min(len(records), flushTogether)]
		if err := b.write(class, some); err != nil {
			return err
		}
		first, last := some[0].Sequence, some[len(some)-1].Sequence
		b.waiting = slices.DeleteFunc(b.waiting, func(r wire.EventRecord) bool {
			return r.Class == class && r.Sequence >= first && r.Sequence <= last
		})
		records = records[len(some):]
	}
	return nil
}

// flushTogether is how many records are written and synced at once: no file grows far beyond its size.
const flushTogether = 32

// write appends records of one class, making room as long as there is something to drop that is no better.
func (b *Outbox) write(class fleet.EventClass, records []wire.EventRecord) error {
	for {
		err := b.append(class, records)
		if err == nil || !full(err) {
			return err
		}
		victim := b.least()
		if victim == nil || rank(victim.class) < rank(class) {
			return err
		}
		if err := b.remove(victim); err != nil {
			return err
		}
	}
}

func (b *Outbox) append(class fleet.EventClass, records []wire.EventRecord) error {
	list := b.files[class]
	if len(list) == 0 || list[len(list)-1].size >= segmentSize {
		s, err := createSegment(b.dir, class, records[0].Sequence)
		if err != nil {
			return err
		}
		b.files[class] = append(list, s)
	}
	list = b.files[class]
	return list[len(list)-1].append(records)
}

// shrink drops what is beyond the budget.
func (b *Outbox) shrink() error {
	for b.bytes() > b.budget {
		victim := b.least()
		if victim == nil {
			return nil
		}
		if err := b.remove(victim); err != nil {
			return err
		}
	}
	return nil
}

// least is the oldest file of the least class that has any.
func (b *Outbox) least() *segment {
	var least *segment
	for class, list := range b.files {
		if len(list) > 0 && (least == nil || rank(class) > rank(least.class)) {
			least = list[0]
		}
	}
	return least
}

// remove takes a file away. What it held that nobody acknowledged is counted as dropped, durably and before,
// unless the disk is so full that the count has no room either.
func (b *Outbox) remove(s *segment) error {
	if n := s.after(b.head.Acked); n > 0 {
		b.head.drop(s.class, n)
		b.log.Warn("the outbox is full: events were dropped before the hub had them", "class", s.class, "count", n)
	}
	saved := b.saveHead()
	if saved != nil && !full(saved) {
		return saved
	}
	b.files[s.class] = slices.DeleteFunc(b.files[s.class], func(o *segment) bool { return o == s })
	if err := s.remove(); err != nil {
		return err
	}
	if saved != nil {
		return b.saveHead()
	}
	return nil
}

func (b *Outbox) bytes() int64 {
	var n int64
	for _, list := range b.files {
		for _, s := range list {
			n += s.size
		}
	}
	return n
}

// Stats are what an outbox holds.
type Stats struct {
	// Pending is how many events the hub does not have yet, Alarms how many alarms are among them.
	Pending int `json:"pending,omitempty"`
	Alarms  int `json:"alarms,omitempty"`
	// Bytes is what the outbox takes on the disk.
	Bytes int64 `json:"bytes,omitempty"`
	// Dropped counts, by class, what was lost for want of room since the epoch began.
	Dropped map[fleet.EventClass]uint64 `json:"dropped,omitempty"`
}

// Stats returns what is held now.
func (b *Outbox) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Stats{Pending: len(b.waiting), Bytes: b.bytes(), Dropped: maps.Clone(b.head.Dropped)}
	for _, r := range b.waiting {
		if r.Class == fleet.ClassAlarm {
			s.Alarms++
		}
	}
	for class, list := range b.files {
		for _, f := range list {
			n := int(f.after(b.head.Acked))
			s.Pending += n
			if class == fleet.ClassAlarm {
				s.Alarms += n
			}
		}
	}
	return s
}

// Close writes what waits and remembers that the end was orderly.
func (b *Outbox) Close() error {
	err := b.Flush()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.head.Stopped = true
	err = errors.Join(err, b.saveHead())
	for _, list := range b.files {
		for _, s := range list {
			err = errors.Join(err, s.close())
		}
	}
	if err != nil {
		return fmt.Errorf("close outbox: %w", err)
	}
	return nil
}
