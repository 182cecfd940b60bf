package wasm

import (
	"math"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tetratelabs/wazero/experimental"
)

// budget is how much linear memory all instances of the agent may have together.
type budget struct {
	most int64
	used atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.most {
		b.used.Add(-n)
		return false
	}
	return true
}

// room reports whether n more could be taken now.
func (b *budget) room(n int64) bool { return b.used.Load()+n <= b.most }

func (b *budget) give(n int64) { b.used.Add(-n) }

// memory is the linear memory of one instance: address space for as much as it may have, of which pages are
// taken as they are written. It never moves, and is given back to the kernel as a whole, so that nothing of
// one instance is seen by another. It implements wazero's MemoryAllocator and LinearMemory, and belongs to
// one instance.
type memory struct {
	limit  uint64
	budget *budget
	space  []byte
	size   uint64
	// refused is set when the guest asked for more than the limit or the budget has.
	refused atomic.Bool
	// fallback is used where no address space was to be had.
	fallback bool
}

// Allocate implements experimental.MemoryAllocator.
func (m *memory) Allocate(_, most uint64) experimental.LinearMemory {
	m.limit = min(m.limit, most)
	if m.limit == 0 || m.limit > math.MaxInt {
		m.fallback = true
		return m
	}
	// Pages of MAP_NORESERVE are counted when they are written, not before.
	space, err := unix.Mmap(-1, 0, int(m.limit), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		m.fallback = true
		return m
	}
	m.space = space
	return m
}

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.limit || size > m.size && !m.budget.take(int64(size-m.size)) {
		m.refused.Store(true)
		return nil
	}
	m.size = max(m.size, size)
	if m.fallback {
		grown := make([]byte, size)
		copy(grown, m.space)
		m.space = grown
		return grown
	}
	return m.space[:size:size]
}

// Free implements experimental.LinearMemory. wazero calls it when the instance is closed, from the goroutine
// that ran it.
func (m *memory) Free() {
	m.budget.give(int64(m.size))
	m.size = 0
	if m.space != nil && !m.fallback {
		_ = unix.Munmap(m.space) // fails for what was not mapped, which this was
	}
	m.space = nil
}
