package outbox

import (
	"cmp"
	"crypto/rand"
	"errors"
	"maps"
	"slices"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Batch returns the oldest events on the disk that nobody acknowledged, in order and at most about size bytes
// of them; no records when there are none. Site and member are left to the caller.
func (b *Outbox) Batch(size int) (wire.EventBatch, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := wire.EventBatch{Epoch: b.head.Epoch, Dropped: maps.Clone(b.head.Dropped)}
	m := merge{acked: b.head.Acked, files: map[fleet.EventClass][]*segment{}, heads: map[fleet.EventClass][]wire.EventRecord{}}
	for class, list := range b.files {
		m.files[class] = slices.Clone(list)
	}
	// What the disk did not take is sent from memory: a full disk must not keep an alarm from the hub.
	m.heads[waitingClass] = slices.Clone(b.waiting)
	m.files[waitingClass] = nil
	for used := 0; used < size && len(batch.Records) < wire.MaxEventRecords; {
		r, ok, err := m.next()
		if err != nil {
			return wire.EventBatch{}, err
		}
		if !ok {
			break
		}
		batch.Records = append(batch.Records, r)
		used += len(r.Reason) + len(r.Message) + len(r.Data) + recordOverhead
	}
	if len(batch.Records) > 0 {
		b.sent = max(b.sent, batch.Last())
	}
	return batch, nil
}

// waitingClass stands for what is in memory alone; it is no class of events.
const waitingClass fleet.EventClass = ""

// recordOverhead is about how much a record takes beside its texts.
const recordOverhead = 96

// merge yields the records of all classes in the order of their numbers.
type merge struct {
	acked uint64
	files map[fleet.EventClass][]*segment
	heads map[fleet.EventClass][]wire.EventRecord
}

func (m *merge) next() (wire.EventRecord, bool, error) {
	var best fleet.EventClass
	found := false
	for class := range m.files {
		for len(m.heads[class]) == 0 && len(m.files[class]) > 0 {
			records, err := m.files[class][0].records(m.acked)
			if err != nil {
				return wire.EventRecord{}, false, err
			}
			m.heads[class], m.files[class] = records, m.files[class][1:]
		}
		if len(m.heads[class]) > 0 && (!found || cmp.Less(m.heads[class][0].Sequence, m.heads[best][0].Sequence)) {
			best, found = class, true
		}
	}
	if !found {
		return wire.EventRecord{}, false, nil
	}
	r := m.heads[best][0]
	m.heads[best] = m.heads[best][1:]
	return r, true, nil
}

// Acknowledge says that the hub has every event of an epoch up to a number, and gives back their room on the
// disk. One of another epoch says nothing of these.
//
// A number that this life never sent, nor an earlier one left, means that the disk went back to an earlier state
// or that a crash took what was sent from memory: numbers of this life were used before. What was on the disk at
// its start is what the hub has; what came since is numbered on in a new epoch.
func (b *Outbox) Acknowledge(epoch string, last uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if epoch != b.head.Epoch || last <= b.head.Acked {
		return nil
	}
	if last > b.sent {
		b.log.Warn("the hub has events that this outbox does not know: its numbers go on in a new epoch", "hub has", last, "sent", b.sent)
		b.head.Epoch, b.head.Dropped, b.head.Acked = rand.Text(), nil, b.began-1
		return errors.Join(b.saveHead(), b.giveBack())
	}
	b.head.Acked = last
	b.waiting = slices.DeleteFunc(b.waiting, func(r wire.EventRecord) bool { return r.Sequence <= last })
	return b.giveBack()
}

// giveBack removes files that hold nothing to send. Those that are written to stay: to make them anew would
// cost more writes than they hold.
func (b *Outbox) giveBack() error {
	for _, list := range b.files {
		for _, s := range slices.Clone(list) {
			if s.last <= b.head.Acked && s.size >= segmentSize {
				if err := b.remove(s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
