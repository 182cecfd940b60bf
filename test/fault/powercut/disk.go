package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/internal/testenv"
)

// Needs is what a test that mounts a disk requires of the machine.
func Needs() []testenv.Need {
	return []testenv.Need{testenv.Root(), {Name: "FUSE", Met: func() bool {
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err == nil
	}}}
}

// Counts are what programs did to a disk.
type Counts struct {
	// Bytes were written by Writes operations; Syncs are of files and directories.
	Bytes, Writes, Syncs int64
}

// Disk is a file system in memory. It is safe for concurrent use, but mounts, cuts and unmounts are one at
// a time.
type Disk struct {
	mu     sync.Mutex
	names  Names
	root   *inode
	log    []change // names that are not synced
	last   uint64
	limit  int64 // in bytes; zero: none
	used   int64
	broken syscall.Errno // of every write; zero: none
	counts Counts

	power power
	dir   string
	mount *fuse.Server
}

// power stops everything while it is off.
type power struct {
	cond *sync.Cond
	// off: operations wait. gone: they fail, because nobody is there to see it.
	off, gone bool
	// after is how many writes and syncs happen before it goes off; negative: it does not.
	after int
	went  chan struct{} // closed when it went off
}

// Names is what a disk promises of names: of files that were made, renamed or removed.
type Names int

const (
	// Strict is POSIX: a name is safe after a sync of its directory, and what was not synced survives in any
	// selection.
	Strict Names = iota
	// Journal is what ext4 and XFS do beyond that, and databases rely on: names change in order, and any sync
	// makes safe all that changed before.
	Journal
)

// New returns an empty disk with its power on.
func New(names Names) *Disk {
	d := &Disk{names: names}
	d.power.cond = sync.NewCond(&d.mu)
	d.root = d.make(syscall.S_IFDIR | 0o755)
	d.powerOn()
	return d
}

func (d *Disk) powerOn() {
	d.power.off, d.power.gone, d.power.after, d.power.went = false, false, -1, make(chan struct{})
}

// make makes an inode without a name.
func (d *Disk) make(mode uint32) *inode {
	d.last++
	i := &inode{number: d.last, mode: mode, links: 1, modified: time.Now()}
	if i.is(syscall.S_IFDIR) {
		i.entries, i.syncedEntries = map[string]*inode{}, map[string]*inode{}
	}
	return i
}

// Mount shows the disk at dir, which is made when it is not there.
func (d *Disk) Mount(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("mount disk: %w", err)
	}
	forever := time.Hour // the kernel is the only one who changes anything
	server, err := fs.Mount(dir, &node{disk: d, inode: d.root}, &fs.Options{
		EntryTimeout: &forever, AttrTimeout: &forever,
		RootStableAttr: &fs.StableAttr{Ino: d.root.number},
		MountOptions:   fuse.MountOptions{DirectMountStrict: true, AllowOther: true, FsName: "powercut", Name: "powercut", DisableXAttrs: true, MaxWrite: 128 << 10},
	})
	if err != nil {
		return fmt.Errorf("mount disk at %s: %w", dir, err)
	}
	d.dir, d.mount = dir, server
	return keepFromChildren()
}

// keepFromChildren closes the connections of FUSE in programs that are started from now on: one of them would
// keep the disk answering nobody, and its users waiting, after the test has died.
func keepFromChildren() error {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("find connection of FUSE: %w", err)
	}
	for _, f := range files {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && to == "/dev/fuse" {
			if fd, err := strconv.Atoi(f.Name()); err == nil {
				unix.CloseOnExec(fd)
			}
		}
	}
	return nil
}

// unmountPatience bounds the wait for programs that were killed to let go of the disk.
const unmountPatience = 10 * time.Second

// Unmount takes the disk away in order: everything is synced. It does nothing when it is not mounted.
func (d *Disk) Unmount() error {
	if d.mount == nil {
		return nil
	}
	err := d.unmount()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.log {
		c.apply(true)
	}
	d.log = nil
	walk(d.root, (*inode).sync)
	return err
}

func (d *Disk) unmount() error {
	deadline := time.Now().Add(unmountPatience)
	for {
		err := unix.Unmount(d.dir, 0)
		if err == nil || errors.Is(err, unix.EINVAL) {
			break
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("unmount %s: %w", d.dir, err), unix.Unmount(d.dir, unix.MNT_DETACH))
		}
		time.Sleep(5 * time.Millisecond)
	}
	d.mount.Wait()
	d.mount = nil
	return nil
}

// CutAfter lets the power go off after so many more writes, syncs and changes of names. The channel is closed
// when it did. Everything that uses the disk waits from then on; end it, and call Cut.
func (d *Disk) CutAfter(operations int) (went <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.power.after = operations
	return d.power.went
}

// Freeze lets the power go off now.
func (d *Disk) Freeze() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.goOff()
}

func (d *Disk) goOff() {
	if !d.power.off {
		d.power.off = true
		close(d.power.went)
	}
}

// Cut takes the power away, if it is still there, calls kill, which must end every program that uses the
// disk, and mounts what survived.
func (d *Disk) Cut(r *rand.Rand, kill func()) error {
	d.Freeze()
	killed := make(chan struct{})
	go func() { defer close(killed); kill() }()
	// A program that waits for the disk cannot end before it has an answer. The answer comes after the signal.
	select {
	case <-killed:
	case <-time.After(100 * time.Millisecond):
	}
	d.mu.Lock()
	d.power.gone = true
	d.power.cond.Broadcast()
	d.mu.Unlock()
	<-killed
	if err := d.unmount(); err != nil {
		return err
	}
	d.mu.Lock()
	f := newFate(r)
	f.ordered = f.ordered || d.names == Journal
	f.survivors(d.root, d.log)
	d.log, d.used = nil, 0
	walk(d.root, func(i *inode) { d.used += int64(len(i.data)) })
	d.powerOn()
	d.mu.Unlock()
	return d.Mount(d.dir)
}

// enter begins an operation: it waits while the power is off. change says that the operation changes the
// disk. The caller holds d.mu.
func (d *Disk) enter(change bool) syscall.Errno {
	if change && !d.power.off && d.power.after >= 0 {
		if d.power.after == 0 {
			d.goOff()
		}
		d.power.after--
	}
	for d.power.off && !d.power.gone {
		d.power.cond.Wait()
	}
	if d.power.gone {
		return syscall.EIO
	}
	if change {
		return d.broken
	}
	return 0
}

// room takes space for a file that grows, or gives it back.
func (d *Disk) room(grow int64) syscall.Errno {
	if grow > 0 && d.limit > 0 && d.used+grow > d.limit {
		return syscall.ENOSPC
	}
	d.used += grow
	return 0
}

// Fill leaves so many bytes free; Empty takes that away.
func (d *Disk) Fill(free int64) { d.mu.Lock(); defer d.mu.Unlock(); d.limit = max(d.used+free, 1) }

// Empty lets the disk hold whatever is written.
func (d *Disk) Empty() { d.mu.Lock(); defer d.mu.Unlock(); d.limit = 0 }

// Break makes every change fail, such as with EROFS for a disk that went read-only; zero mends it.
func (d *Disk) Break(errno syscall.Errno) { d.mu.Lock(); defer d.mu.Unlock(); d.broken = errno }

// Counts returns what programs did so far.
func (d *Disk) Counts() Counts { d.mu.Lock(); defer d.mu.Unlock(); return d.counts }

// errNoFile means that a path names no file of the disk.
var errNoFile = errors.New("no such file on the disk")

// Edit changes a file's content behind the back of programs, as a bad disk does.
func (d *Disk) Edit(path string, edit func([]byte) []byte) error {
	shown, err := d.edit(path, edit)
	if err != nil || shown == nil {
		return err
	}
	// The kernel keeps a copy. Without the lock, since it may ask in turn.
	if errno := shown.NotifyContent(0, 0); errno != 0 && errno != syscall.ENOENT {
		return fmt.Errorf("tell the kernel that %s changed: %w", path, errno)
	}
	return nil
}

func (d *Disk) edit(path string, edit func([]byte) []byte) (*fs.Inode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.root
	for _, name := range strings.Split(filepath.Clean(path), "/") {
		if i = i.entries[name]; i == nil {
			return nil, fmt.Errorf("%s: %w", path, errNoFile)
		}
	}
	i.sync()
	d.used -= int64(len(i.data))
	i.data = edit(i.data)
	d.used += int64(len(i.data))
	i.synced = append([]byte(nil), i.data...)
	return i.shown, nil
}
