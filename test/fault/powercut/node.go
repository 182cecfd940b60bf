package powercut

import (
	"context"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is an inode as FUSE knows it.
type node struct {
	fs.Inode
	disk  *Disk
	inode *inode
}

var _ = []any{
	fs.NodeLookuper(nil), fs.NodeGetattrer(nil), fs.NodeSetattrer(nil), fs.NodeCreater(nil), fs.NodeMkdirer(nil),
	fs.NodeMknoder(nil), fs.NodeSymlinker(nil), fs.NodeReadlinker(nil), fs.NodeLinker(nil), fs.NodeUnlinker(nil),
	fs.NodeRmdirer(nil), fs.NodeRenamer(nil), fs.NodeOpener(nil), fs.NodeReaddirer(nil), fs.NodeReader(nil),
	fs.NodeWriter(nil), fs.NodeFsyncer(nil), fs.NodeAllocater(nil), fs.NodeStatfser(nil),
}

// show returns the FUSE node of an inode; the disk is locked.
func (n *node) show(ctx context.Context, i *inode, out *fuse.EntryOut) *fs.Inode {
	i.attr(&out.Attr)
	i.shown = n.NewInode(ctx, &node{disk: n.disk, inode: i}, fs.StableAttr{Mode: i.mode & syscall.S_IFMT, Ino: i.number})
	return i.shown
}

const block = 512

func (i *inode) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink, out.Uid, out.Gid = i.number, i.mode, i.links, i.uid, i.gid
	out.Size = uint64(len(i.data) + len(i.target))
	out.Blocks, out.Blksize = (out.Size+block-1)/block, 4096
	out.SetTimes(&i.modified, &i.modified, &i.modified)
}

// begin locks the disk for an operation; end unlocks it, also when the operation may not begin.
func (n *node) begin(change bool) (errno syscall.Errno) {
	n.disk.mu.Lock()
	return n.disk.enter(change)
}

func (n *node) end() { n.disk.mu.Unlock() }

// rename makes an atomic change of names.
func (n *node) rename(c change) {
	c.apply(false)
	n.disk.log = append(n.disk.log, c)
	n.inode.modified = time.Now()
}

// add makes a new inode with a name.
func (n *node) add(ctx context.Context, name string, mode uint32, out *fuse.EntryOut, made func(*inode)) (*fs.Inode, syscall.Errno) {
	defer n.end()
	if errno := n.begin(true); errno != 0 {
		return nil, errno
	}
	if n.inode.entries[name] != nil {
		return nil, syscall.EEXIST
	}
	if n.disk.limit > 0 && n.disk.used >= n.disk.limit {
		return nil, syscall.ENOSPC
	}
	i := n.disk.make(mode)
	if caller, ok := fuse.FromContext(ctx); ok {
		i.uid, i.gid = caller.Uid, caller.Gid
	}
	made(i)
	n.rename(change{{n.inode, name, i}})
	return n.show(ctx, i, out), 0
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	defer n.end()
	if errno := n.begin(false); errno != 0 {
		return nil, errno
	}
	i := n.inode.entries[name]
	if i == nil {
		return nil, syscall.ENOENT
	}
	return n.show(ctx, i, out), 0
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	defer n.end()
	errno := n.begin(false)
	n.inode.attr(&out.Attr)
	return errno
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	defer n.end()
	if errno := n.begin(true); errno != 0 {
		return errno
	}
	i := n.inode
	if mode, ok := in.GetMode(); ok {
		i.mode = i.mode&syscall.S_IFMT | mode&0o7777
	}
	if uid, ok := in.GetUID(); ok {
		i.uid = uid
	}
	if gid, ok := in.GetGID(); ok {
		i.gid = gid
	}
	if at, ok := in.GetMTime(); ok {
		i.modified = at
	}
	if size, ok := in.GetSize(); ok {
		if errno := n.disk.room(int64(size) - int64(len(i.data))); errno != 0 {
			return errno
		}
		i.do(write{offset: int64(size)})
		n.disk.counts.Writes++
	}
	i.attr(&out.Attr)
	return 0
}

func (n *node) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child, errno := n.add(ctx, name, syscall.S_IFREG|mode&0o7777, out, func(*inode) {})
	return child, nil, 0, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.add(ctx, name, syscall.S_IFDIR|mode&0o7777, out, func(*inode) {})
}

func (n *node) Mknod(ctx context.Context, name string, mode, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.add(ctx, name, mode, out, func(*inode) {})
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.add(ctx, name, syscall.S_IFLNK|0o777, out, func(i *inode) { i.target = target })
}

func (n *node) Readlink(context.Context) ([]byte, syscall.Errno) {
	defer n.end()
	errno := n.begin(false)
	return []byte(n.inode.target), errno
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	defer n.end()
	if errno := n.begin(true); errno != 0 {
		return nil, errno
	}
	i := target.(*node).inode
	i.links++
	n.rename(change{{n.inode, name, i}})
	return n.show(ctx, i, out), 0
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	defer n.end()
	if errno := n.begin(true); errno != 0 {
		return errno
	}
	i := n.inode.entries[name]
	if i == nil {
		return syscall.ENOENT
	}
	n.release(i)
	n.rename(change{{n.inode, name, nil}})
	return 0
}

// release gives back the space of an inode that loses a name.
func (n *node) release(i *inode) {
	if i.links--; i.links == 0 {
		n.disk.used -= int64(len(i.data))
	}
}

func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	defer n.end()
	if errno := n.begin(true); errno != 0 {
		return errno
	}
	i := n.inode.entries[name]
	switch {
	case i == nil:
		return syscall.ENOENT
	case !i.is(syscall.S_IFDIR):
		return syscall.ENOTDIR
	case len(i.entries) > 0:
		return syscall.ENOTEMPTY
	}
	n.rename(change{{n.inode, name, nil}})
	return 0
}

const renameNoReplace = 1

func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, toName string, flags uint32) syscall.Errno {
	defer n.end()
	if errno := n.begin(true); errno != 0 {
		return errno
	}
	dir := to.EmbeddedInode().Operations().(*node).inode
	i, old := n.inode.entries[name], dir.entries[toName]
	switch {
	case i == nil:
		return syscall.ENOENT
	case flags == renameNoReplace && old != nil:
		return syscall.EEXIST
	case flags&^renameNoReplace != 0:
		return syscall.EINVAL
	case old == i:
		return 0
	case old != nil && len(old.entries) > 0:
		return syscall.ENOTEMPTY
	}
	if old != nil {
		n.release(old)
	}
	n.rename(change{{n.inode, name, nil}, {dir, toName, i}})
	return 0
}

func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	defer n.end()
	writes := flags&syscall.O_ACCMODE != syscall.O_RDONLY
	errno := n.begin(false)
	if errno == 0 && writes && n.disk.broken == syscall.EROFS {
		errno = syscall.EROFS
	}
	return nil, 0, errno
}

func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	defer n.end()
	if errno := n.begin(false); errno != 0 {
		return nil, errno
	}
	var list []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.inode.entries)) {
		i := n.inode.entries[name]
		list = append(list, fuse.DirEntry{Name: name, Ino: i.number, Mode: i.mode & syscall.S_IFMT})
	}
	return fs.NewListDirStream(list), 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	defer n.end()
	if errno := n.begin(false); errno != 0 {
		return nil, errno
	}
	if offset >= int64(len(n.inode.data)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, n.inode.data[offset:])]), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, offset int64) (uint32, syscall.Errno) {
	defer n.end()
	if errno := n.begin(true); errno != 0 {
		return 0, errno
	}
	if errno := n.disk.room(max(0, offset+int64(len(data))-int64(len(n.inode.data)))); errno != 0 {
		return 0, errno
	}
	n.inode.do(write{offset, append([]byte{}, data...)})
	n.disk.counts.Bytes += int64(len(data))
	n.disk.counts.Writes++
	return uint32(len(data)), 0
}

func (n *node) Allocate(_ context.Context, _ fs.FileHandle, offset, size uint64, mode uint32) syscall.Errno {
	defer n.end()
	if errno := n.begin(true); errno != 0 {
		return errno
	}
	end := int64(offset + size)
	if mode != 0 {
		return syscall.EOPNOTSUPP
	}
	if grow := end - int64(len(n.inode.data)); grow > 0 {
		if errno := n.disk.room(grow); errno != 0 {
			return errno
		}
		n.inode.do(write{offset: end})
	}
	return 0
}

// Fsync is for files and directories.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	defer n.end()
	if errno := n.begin(true); errno != 0 {
		return errno
	}
	n.disk.counts.Syncs++
	switch {
	case n.disk.names == Journal:
		for _, c := range n.disk.log {
			c.apply(true)
		}
		n.disk.log = nil
	case n.inode.is(syscall.S_IFDIR):
		n.disk.log = syncNames(n.disk.log, n.inode)
	}
	n.inode.sync()
	return 0
}

func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	defer n.end()
	errno := n.begin(false)
	const blocks = 1 << 30 / 4096
	out.Bsize, out.Frsize, out.NameLen, out.Blocks, out.Bfree = 4096, 4096, 255, blocks, blocks
	if n.disk.limit > 0 {
		out.Bfree = uint64(max(0, n.disk.limit-n.disk.used)) / 4096
	}
	out.Bavail = out.Bfree
	return errno
}
