package wasm

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/tetratelabs/wazero"
	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/sys"
)

// maxOpenFiles is how many files one instance may have open: they are open files of the agent.
const maxOpenFiles = 64

// mount is a directory of the site that guests see. No path leads out of it: os.Root sees to that for every
// link that lies in it, and guests can make none.
type mount struct {
	at    string // in the guest, such as "/data/ledger"
	root  *os.Root
	under experimentalsys.FS
	write bool
}

func openMount(at, dir string, write bool) (*mount, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	m := &mount{at: at, root: root, write: write, under: &sysfs.AdaptFS{FS: root.FS()}}
	if write {
		m.under = sysfs.DirFS(dir)
	}
	return m, nil
}

type mounts []*mount

// config is what one guest sees of the mounts.
func (ms mounts) config(g *guest) wazero.FSConfig {
	c := wazero.NewFSConfig()
	for _, m := range ms {
		c = c.(sysfs.FSConfig).WithSysFSMount(&guestFS{mount: m, guest: g}, m.at)
	}
	return c
}

func (ms mounts) close() error {
	var errs []error
	for _, m := range ms {
		errs = append(errs, m.root.Close())
	}
	return errors.Join(errs...)
}

// guestFS is a mount as one instance has it. Calls come from the instance's goroutine alone.
type guestFS struct {
	experimentalsys.UnimplementedFS
	mount *mount
	guest *guest
}

const writing = experimentalsys.O_WRONLY | experimentalsys.O_RDWR | experimentalsys.O_CREAT | experimentalsys.O_TRUNC | experimentalsys.O_APPEND

// inside checks that a path, whose last part need not exist, stays in the mount.
func (f *guestFS) inside(name string) experimentalsys.Errno {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	if name == "." {
		return 0 // every start of a program looks at what its directories are; that tells nothing
	}
	f.guest.await()
	if !f.mount.write {
		return 0 // os.Root opens these files itself
	}
	_, err := f.mount.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := f.mount.root.Lstat(name); err == nil {
			return experimentalsys.EPERM // a link to what is not there
		}
		_, err = f.mount.root.Stat(path.Dir(name))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return experimentalsys.EPERM
	}
	return 0
}

// changes is inside for what changes the mount.
func (f *guestFS) changes(names ...string) experimentalsys.Errno {
	if !f.mount.write {
		f.guest.await()
		return experimentalsys.EROFS
	}
	for _, name := range names {
		if errno := f.inside(name); errno != 0 {
			return errno
		}
	}
	return 0
}

// OpenFile implements experimentalsys.FS.
func (f *guestFS) OpenFile(name string, flag experimentalsys.Oflag, perm fs.FileMode) (experimentalsys.File, experimentalsys.Errno) {
	if flag&writing != 0 {
		if errno := f.changes(name); errno != 0 {
			return nil, errno
		}
	}
	if errno := f.inside(name); errno != 0 {
		return nil, errno
	}
	if f.guest.open >= maxOpenFiles {
		return nil, experimentalsys.EAGAIN
	}
	file, errno := f.mount.under.OpenFile(name, flag, perm.Perm()&^0o077)
	if errno != 0 {
		return nil, errno
	}
	f.guest.open++
	return &guestFile{File: file, guest: f.guest}, 0
}

// Stat implements experimentalsys.FS.
func (f *guestFS) Stat(name string) (sys.Stat_t, experimentalsys.Errno) {
	if errno := f.inside(name); errno != 0 {
		return sys.Stat_t{}, errno
	}
	return f.mount.under.Stat(name)
}

// Lstat implements experimentalsys.FS.
func (f *guestFS) Lstat(name string) (sys.Stat_t, experimentalsys.Errno) {
	if errno := f.inside(name); errno != 0 {
		return sys.Stat_t{}, errno
	}
	return f.mount.under.Lstat(name)
}

// Mkdir implements experimentalsys.FS.
func (f *guestFS) Mkdir(name string, _ fs.FileMode) experimentalsys.Errno {
	if errno := f.changes(name); errno != 0 {
		return errno
	}
	return f.mount.under.Mkdir(name, 0o700)
}

// Rename implements experimentalsys.FS.
func (f *guestFS) Rename(from, to string) experimentalsys.Errno {
	if errno := f.changes(from, to); errno != 0 {
		return errno
	}
	return f.mount.under.Rename(from, to)
}

// Rmdir implements experimentalsys.FS.
func (f *guestFS) Rmdir(name string) experimentalsys.Errno {
	if errno := f.changes(name); errno != 0 {
		return errno
	}
	return f.mount.under.Rmdir(name)
}

// Unlink implements experimentalsys.FS.
func (f *guestFS) Unlink(name string) experimentalsys.Errno {
	if errno := f.changes(name); errno != 0 {
		return errno
	}
	return f.mount.under.Unlink(name)
}

// Utimens implements experimentalsys.FS.
func (f *guestFS) Utimens(name string, atim, mtim int64) experimentalsys.Errno {
	if errno := f.changes(name); errno != 0 {
		return errno
	}
	return f.mount.under.Utimens(name, atim, mtim)
}

// Link implements experimentalsys.FS: guests make no links.
func (f *guestFS) Link(_, _ string) experimentalsys.Errno { return experimentalsys.EPERM }

// Symlink implements experimentalsys.FS: guests make no links.
func (f *guestFS) Symlink(_, _ string) experimentalsys.Errno { return experimentalsys.EPERM }

// guestFile counts as open until it is closed.
type guestFile struct {
	experimentalsys.File
	guest  *guest
	closed bool
}

// Readdir implements experimentalsys.File.
func (f *guestFile) Readdir(n int) ([]experimentalsys.Dirent, experimentalsys.Errno) {
	f.guest.await()
	return f.File.Readdir(n)
}

// Close implements experimentalsys.File.
func (f *guestFile) Close() experimentalsys.Errno {
	if !f.closed {
		f.closed = true
		f.guest.open--
	}
	return f.File.Close()
}
