// Package dirs decides where the programs keep their data, and lets one process at a time have it. Only the
// programs below cmd import it.
package dirs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Home is the environment variable that places everything, when no flag does.
const Home = "SKERRY_HOME"

// rootData is the default for root: apps run as users of their own, who may not enter root's home.
const rootData = "/var/lib/skerry"

// Data returns the data directory, absolute: flag, then SKERRY_HOME, then the XDG base directory
// specification's data home, or /var/lib/skerry for root.
func Data(flag string) (string, error) {
	dir := flag
	if dir == "" {
		dir = os.Getenv(Home)
	}
	if dir == "" && os.Geteuid() == 0 && os.Getenv("XDG_DATA_HOME") == "" {
		dir = rootData
	}
	if dir == "" {
		base := os.Getenv("XDG_DATA_HOME")
		if !filepath.IsAbs(base) { // the specification ignores relative paths
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("find a place for data: %w: name one with --data-dir", err)
			}
			base = filepath.Join(home, ".local", "share")
		}
		dir = filepath.Join(base, "skerry")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("data directory %q: %w", dir, err)
	}
	return abs, nil
}

// What stands in the data directory of a hub.
const (
	CA         = "ca"
	Bus        = "bus"
	Kubernetes = "kubernetes"
	Registry   = "registry"
	// PortsFile is that of Ports.
	PortsFile = "ports.json"
	// URLFile holds the URL by which sites reached the hub when it ran last.
	URLFile = "hub.url"
)

// Make makes a data directory that apps' own users may pass through but not look into, and opens one that
// is there, such as a new temporary one, as far. The files below it are each for their owner alone.
func Make(dir string) error {
	if err := os.MkdirAll(dir, passable); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err == nil && os.Geteuid() == 0 && info.Mode().Perm()&0o011 != 0o011 {
		err = os.Chmod(dir, info.Mode().Perm()|0o011)
	}
	if err != nil {
		return fmt.Errorf("open data directory to apps' own users: %w", err)
	}
	return nil
}

const passable = 0o711

// ErrBarred means that apps could not run below a directory.
var ErrBarred = errors.New("apps could not enter the data directory")

// CheckPassable returns an error that wraps ErrBarred when root's apps, which run as users of their own,
// could not reach dir because a directory above it is closed to others.
func CheckPassable(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	for parent := filepath.Dir(dir); parent != "/" && parent != "."; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s is closed to other users (mode %04o), and apps run as users of their own: %w", parent, info.Mode().Perm(), ErrBarred)
		}
	}
	return nil
}

// ErrInUse means that another process has the data directory.
var ErrInUse = errors.New("the data directory is in use by another process")

// Lock makes dir and takes it for this process under name; the lock ends with the process or
// with release.
func Lock(dir, name string) (release func(), err error) {
	if err := Make(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name+".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		pid := readPID(f)
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w (process %d)", dir, ErrInUse, pid)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	return func() {
		_ = f.Truncate(0)
		_ = f.Close()
	}, nil
}

// Holder returns the process that has dir under name, zero when none has. It looks without taking the lock,
// so it is in nobody's way: neither of a Lock nor of another Holder.
func Holder(dir, name string) int {
	f, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_RDWR, 0o600)
	if err != nil {
		return 0
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK {
		return 0
	}
	return readPID(f)
}

// readPID returns the process that a lock's file names, zero when it names none.
func readPID(f *os.File) int {
	data := make([]byte, 20)
	n, _ := f.ReadAt(data, 0)
	pid, err := strconv.Atoi(string(data[:n]))
	if err != nil || pid <= 0 {
		return 0
	}
	return pid
}

// Ports remembers which port each listener of an installation got, so that the next start takes the same.
type Ports struct {
	path  string
	ports map[string]int
}

// OpenPorts reads what was remembered in dir.
func OpenPorts(dir string) *Ports {
	p := &Ports{path: filepath.Join(dir, PortsFile), ports: map[string]int{}}
	if data, err := os.ReadFile(p.path); err == nil {
		// A damaged file costs nothing but other ports.
		if json.Unmarshal(data, &p.ports) != nil || p.ports == nil {
			p.ports = map[string]int{}
		}
	}
	return p
}

// Listen listens on address, or on the port that name had before, or, when it is taken, on any free one of
// the same host. An address that was given by a person is taken as it is: exact.
func (p *Ports) Listen(name, address string, exact bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	tries := []string{address}
	if !exact {
		if port, ok := p.ports[name]; ok {
			tries = []string{net.JoinHostPort(host, strconv.Itoa(port)), address}
		}
		tries = append(tries, net.JoinHostPort(host, "0"))
	}
	var all error
	for _, try := range tries {
		l, err := net.Listen("tcp", try)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		if err := p.remember(name, l); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		return l, nil
	}
	return nil, fmt.Errorf("listen for %s: %w", name, all)
}

func (p *Ports) remember(name string, l net.Listener) error {
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok || p.ports[name] == addr.Port {
		return nil
	}
	p.ports[name] = addr.Port
	data, err := json.Marshal(p.ports)
	if err != nil {
		return fmt.Errorf("remember ports: %w", err)
	}
	if err := writeFile(p.path, data); err != nil {
		return fmt.Errorf("remember ports: %w", err)
	}
	return nil
}

// writeFile replaces a file, mode 0600, such that a power cut leaves the old one or the new one: sites look
// for the hub where it was.
func writeFile(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
