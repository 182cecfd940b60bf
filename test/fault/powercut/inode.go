package powercut

import (
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
)

// inode is a file, a directory, a link or a socket: as programs see it, and as the disk has it.
type inode struct {
	number   uint64
	mode     uint32 // with the type
	uid, gid uint32
	links    uint32
	modified time.Time
	target   string // of a symbolic link
	// shown is how the kernel knows it; nil until it does.
	shown *fs.Inode

	data    []byte
	synced  []byte
	pending []write // since, in order

	entries       map[string]*inode
	syncedEntries map[string]*inode
}

// write is one change of a file's content: data at an offset, or, when data is nil, a new size.
type write struct {
	offset int64
	data   []byte
}

// change is one atomic change of names: of one directory, or of two by a rename.
type change []entry

// entry says what a name stands for; nil: nothing.
type entry struct {
	dir   *inode
	name  string
	child *inode
}

func (i *inode) is(kind uint32) bool { return i.mode&syscall.S_IFMT == kind }

// put applies a write to content.
func put(content []byte, w write) []byte {
	if w.data == nil {
		return resize(content, w.offset)
	}
	if end := w.offset + int64(len(w.data)); end > int64(len(content)) {
		content = resize(content, end)
	}
	copy(content[w.offset:], w.data)
	return content
}

// resize returns content of a size; what is new is zero, also when the memory had something else.
func resize(content []byte, size int64) []byte {
	old := int64(len(content))
	if size <= old {
		return content[:size]
	}
	content = slices.Grow(content, int(size-old))[:size]
	clear(content[old:])
	return content
}

// do changes what programs see, and remembers it for a sync.
func (i *inode) do(w write) {
	i.data = put(i.data, w)
	i.pending = append(i.pending, w)
	i.modified = time.Now()
}

// sync makes the content safe.
func (i *inode) sync() {
	for _, w := range i.pending {
		i.synced = put(i.synced, w)
	}
	i.pending = nil
}

// apply makes a change in what programs see, or in what is synced.
func (c change) apply(synced bool) {
	for _, e := range c {
		names := e.dir.entries
		if synced {
			names = e.dir.syncedEntries
		}
		if e.child == nil {
			delete(names, e.name)
		} else {
			names[e.name] = e.child
		}
	}
}

func (c change) touches(dirs map[*inode]bool) bool {
	return slices.ContainsFunc(c, func(e entry) bool { return dirs[e.dir] })
}

// syncNames makes all changes of a directory safe, with those of other directories that they follow, and
// returns what is left to sync.
func syncNames(log []change, dir *inode) (left []change) {
	dirs := map[*inode]bool{dir: true}
	safe := make([]bool, len(log))
	for k := len(log) - 1; k >= 0; k-- {
		if safe[k] = log[k].touches(dirs); safe[k] {
			for _, e := range log[k] {
				dirs[e.dir] = true
			}
		}
	}
	for k, c := range log {
		if safe[k] {
			c.apply(true)
		} else {
			left = append(left, c)
		}
	}
	return left
}

// walk calls fn for root and all below it, in the order of names, each once.
func walk(root *inode, fn func(*inode)) {
	seen := map[*inode]bool{}
	var visit func(*inode)
	visit = func(i *inode) {
		if seen[i] {
			return
		}
		seen[i] = true
		fn(i)
		for _, name := range slices.Sorted(maps.Keys(i.entries)) {
			visit(i.entries[name])
		}
	}
	visit(root)
}
