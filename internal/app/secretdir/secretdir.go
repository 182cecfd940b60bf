// Package secretdir keeps the files of secrets that apps read, in memory: on a tmpfs or ramfs, never on a
// disk. It is a leaf of the feature of apps, for Linux, and is imported by its site half.
//
// An instance's directory is laid out as Kubernetes does it, so that a program that follows one follows the
// other: each file is reached through a symbolic link "..data", which is exchanged as a whole, so that a
// program sees all old values or all new ones. The directory may belong to the user that the app runs as,
// who can therefore change it: all that is done in it goes through os.Root, which cannot be led out of it.
package secretdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// ErrNoMemory means that this machine has no directory in memory that can be used.
var ErrNoMemory = errors.New("no directory in memory for files of secrets")

// Names of the layout. No path of a file may begin with "..".
const (
	dataLink    = "..data"
	newLink     = "..data.new"
	versionName = "..v-"
)

// Modes: the user of the app reads and nobody writes.
const (
	modeBase = 0o711
	modeOpen = 0o700 // while something is written
	modeDir  = 0o500
	modeFile = 0o400
)

// Root is one agent's place in memory. It is safe for concurrent use, for one instance by one caller at a time.
type Root struct {
	dir string
	mu  sync.Mutex // held while dir itself is made or removed
}

// Places are where a directory in memory is looked for, in order: /run and /dev/shm when the agent is root,
// else the user's own runtime directory and /dev/shm.
func Places() []string {
	if os.Geteuid() == 0 {
		return []string{"/run", "/dev/shm"}
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return []string{dir, "/dev/shm"}
	}
	return []string{"/dev/shm"}
}

// Open finds the first of places that is in memory and makes the agent's directory of this name there,
// after removing what an earlier life left in any of them. The name must be the agent's own, and always the
// same. An error wraps ErrNoMemory and says what is wrong with each place.
func Open(places []string, name string) (*Root, error) {
	var errs []error
	var found *Root
	for _, place := range places {
		r := &Root{dir: filepath.Join(place, name)}
		if err := r.sweep(place); err != nil {
			errs = append(errs, err)
			continue
		}
		if found == nil {
			found = r
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %w: mount a tmpfs on /dev/shm", ErrNoMemory, errors.Join(errs...))
	}
	return found, nil
}

// sweep removes what is there, when place is in memory and the directory is this user's own.
func (r *Root) sweep(place string) error {
	if err := inMemory(place); err != nil {
		return err
	}
	if err := r.own(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("files of secrets: %w", err)
	}
	for _, e := range entries {
		if err := r.Remove(e.Name()); err != nil {
			return err
		}
	}
	return r.Close()
}

// inMemory reports whether a directory is on a file system that has no disk. Types: statfs(2).
func inMemory(place string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(place, &s); err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	const ramfs = 0x858458f6
	if kind := uint32(s.Type); kind != unix.TMPFS_MAGIC && kind != ramfs {
		return fmt.Errorf("%s is not in memory (file system type %#x)", place, kind)
	}
	return nil
}

// own makes sure that the agent's directory is no trap that another user laid in a place that all may write.
func (r *Root) own() error {
	info, err := os.Lstat(r.dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not this agent's own directory: remove it", r.dir)
	}
	return nil
}

// base makes the agent's directory, which others may enter but not list.
func (r *Root) base() error {
	err := os.Mkdir(r.dir, modeOpen)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := r.own(); err != nil {
		return err
	}
	return os.Chmod(r.dir, modeBase)
}

// Close removes the agent's directory, if nothing is left in it.
func (r *Root) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := os.Remove(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("files of secrets: %w", err)
	}
	return nil
}

// Write makes files, by slash-separated clean local path, all that instance id has, at once, and returns its
// directory. What is written belongs to whom the directory belongs to.
func (r *Root) Write(id string, files map[string]fleet.SecretValue) (string, error) {
	dir := filepath.Join(r.dir, id)
	if err := r.write(dir, files); err != nil {
		return "", fmt.Errorf("files of secrets: %w", err)
	}
	return dir, nil
}

func (r *Root) write(dir string, files map[string]fleet.SecretValue) error {
	r.mu.Lock()
	err := r.base()
	if err == nil {
		err = os.Mkdir(dir, modeOpen)
	}
	r.mu.Unlock()
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	w := writer{Root: root}
	if err := w.begin(); err != nil {
		return err
	}
	return errors.Join(w.replace(files), root.Chmod(".", modeDir))
}

// Remove removes what instance id has.
func (r *Root) Remove(id string) error {
	dir := filepath.Join(r.dir, id)
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = openDir(p)
		}
		return err
	})
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		return fmt.Errorf("files of secrets: %w", err)
	}
	return nil
}

// openDir lets an agent that is not root remove what lies in its own directory. One that is root needs no
// mode for that, and must not change that of what an app may have put in the directory's place.
func openDir(dir string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return os.Chmod(dir, modeOpen)
}

// writer writes in an instance's directory, for the user that it belongs to.
type writer struct {
	*os.Root
	uid, gid int
}

// begin finds whose the directory is, and opens it for writing.
func (w *writer) begin() error {
	info, err := w.Stat(".")
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("the owner of a directory cannot be read")
	}
	w.uid, w.gid = int(stat.Uid), int(stat.Gid)
	return w.Chmod(".", modeOpen)
}

// foreign says that what is written is to be given to another user.
func (w *writer) foreign() bool { return w.uid != os.Geteuid() }

// seal closes a directory and gives it away, through itself: its name may mean something else by now.
func (w *writer) seal(name string) error {
	dir, err := w.OpenRoot(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Chmod(".", modeDir); err != nil || !w.foreign() {
		return err
	}
	return dir.Chown(".", w.uid, w.gid)
}

func (w *writer) replace(files map[string]fleet.SecretValue) error {
	old, err := w.names()
	if err != nil {
		return err
	}
	version := versionName + rand.Text()
	if err := w.fill(version, files); err != nil {
		return errors.Join(err, w.drop(version))
	}
	_ = w.Root.Remove(newLink) // of a life that was cut short
	if err := errors.Join(w.Symlink(version, newLink), w.Rename(newLink, dataLink)); err != nil {
		return errors.Join(err, w.drop(version))
	}
	tops := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		tops[top] = true
	}
	var errs []error
	for top := range tops {
		if !slices.Contains(old, top) {
			errs = append(errs, w.Symlink(path.Join(dataLink, top), top))
		}
	}
	for _, name := range old {
		if name != dataLink && name != newLink && !tops[name] {
			errs = append(errs, w.drop(name))
		}
	}
	return errors.Join(errs...)
}

func (w *writer) names() ([]string, error) {
	dir, err := w.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// fill writes one version of the files.
func (w *writer) fill(version string, files map[string]fleet.SecretValue) error {
	dirs := map[string]bool{version: true}
	for name := range files {
		for dir := path.Dir(path.Join(version, name)); dir != version; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	ordered := slices.Sorted(maps.Keys(dirs)) // a directory comes before what lies in it
	for _, dir := range ordered {
		if err := w.Mkdir(dir, modeOpen); err != nil {
			return err
		}
	}
	for name, value := range files {
		if err := w.file(path.Join(version, name), value); err != nil {
			return err
		}
	}
	for _, dir := range slices.Backward(ordered) {
		if err := w.seal(dir); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) file(name string, value fleet.SecretValue) error {
	f, err := w.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, modeFile)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	if err == nil {
		err = f.Chmod(modeFile)
	}
	if err == nil && w.foreign() {
		err = f.Chown(w.uid, w.gid)
	}
	return errors.Join(err, f.Close())
}

// drop removes a name with all below it.
func (w *writer) drop(name string) error {
	info, err := w.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.IsDir() && os.Geteuid() != 0 {
		err = fs.WalkDir(w.FS(), name, func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				err = w.Chmod(p, modeOpen)
			}
			return err
		})
	}
	return errors.Join(err, w.RemoveAll(name))
}
