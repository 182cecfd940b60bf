package powercut

import (
	"maps"
	"math/rand/v2"
)

// fate decides what survives a cut of that which was not synced.
type fate struct {
	rand *rand.Rand
	// names is the part of changes of names that survive; ordered: those before some point, as a file system
	// with a journal has it.
	names   float64
	ordered bool
	// content is the part of unsynced sectors that survive, of each file anew; sector their size.
	sector int
}

func newFate(r *rand.Rand) *fate {
	return &fate{
		rand: r, names: []float64{0, 0.5, 0.9, 1}[r.IntN(4)], ordered: r.IntN(2) == 0, sector: []int{512, 4096}[r.IntN(2)],
	}
}

// survivors turns the disk below root into what survived. log are the changes of names that were not synced.
func (f *fate) survivors(root *inode, log []change) {
	last := f.rand.IntN(len(log) + 1)
	for k, c := range log {
		lucky := f.rand.Float64() < f.names
		if f.ordered && k < last || !f.ordered && lucky {
			c.apply(true)
		}
	}
	var name func(*inode)
	seen := map[*inode]bool{}
	name = func(i *inode) { // what programs see from now on are the synced names
		if seen[i] {
			return
		}
		seen[i] = true
		i.entries = maps.Clone(i.syncedEntries)
		for _, child := range i.entries {
			name(child)
		}
	}
	name(root)
	walk(root, func(i *inode) {
		luck := []float64{0, 0.5, 1}[f.rand.IntN(3)]
		for _, w := range i.pending {
			for _, part := range f.sectors(w) {
				if f.rand.Float64() < luck {
					i.synced = put(i.synced, part)
				}
			}
		}
		i.pending = nil
		i.data = append([]byte(nil), i.synced...)
	})
	links := map[*inode]uint32{}
	walk(root, func(i *inode) {
		for _, child := range i.entries {
			links[child]++
		}
	})
	walk(root, func(i *inode) { i.links = max(links[i], 1) })
}

// sectors splits a write at the borders of sectors: each reaches the disk or not.
func (f *fate) sectors(w write) []write {
	if w.data == nil {
		return []write{w}
	}
	var out []write
	for len(w.data) > 0 {
		n := min(len(w.data), f.sector-int(w.offset%int64(f.sector)))
		out = append(out, write{w.offset, w.data[:n]})
		w = write{w.offset + int64(n), w.data[n:]}
	}
	return out
}
