// Package faultclock builds skerry-site such that its wall clock can be set wrong, and set while it runs.
//
// The fault is in the standard library's time.Now, which go build replaces by an overlay: so also TLS, the
// bus' client and every other library see the wrong time, and the program itself has no line for it. The
// monotonic clock, by which timers run, stays right, as when somebody sets a machine's clock. A program
// that was not built here, with the tag and the overlay, has none of this. Only tests import the package.
package faultclock

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Env names the file that holds by how many seconds the wall clock is wrong; Tag is the build tag.
const (
	Env = "SKERRY_FAULTCLOCK"
	Tag = "faultclock"
)

// ErrSource means that this Go's package time is not as this package knows it.
var ErrSource = errors.New("package time of this Go is written otherwise: mend package faultclock")

// Build builds skerry-site, of the module in the working directory, into dir.
func Build(ctx context.Context, dir string) (program string, err error) {
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find Go: %w", err)
	}
	overlay, err := writeOverlay(dir, filepath.Join(strings.TrimSpace(string(goroot)), "src", "time"))
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "skerry-site")
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", Tag, "-overlay", overlay, "-o", program, "github.com/skerry-dev/skerry/cmd/skerry-site")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build skerry-site with a clock that can be wrong: %w\n%s", err, out)
	}
	return program, nil
}

// writeOverlay writes package time's changed file, the one that is new, and what tells go build of both.
func writeOverlay(dir, source string) (path string, err error) {
	original := filepath.Join(source, "time.go")
	code, err := os.ReadFile(original)
	if err != nil {
		return "", fmt.Errorf("read package time: %w", err)
	}
	const from, to = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += wrongBy()\n"
	if bytes.Count(code, []byte(from)) != 1 {
		return "", fmt.Errorf("%s: %w", original, ErrSource)
	}
	files := map[string]string{
		"time.go":       strings.Replace(string(code), from, to, 1),
		"faultclock.go": "//go:build " + Tag + "\n\n" + strings.ReplaceAll(fault, "ENV", strconv.Quote(Env)),
		"rightclock.go": "//go:build !" + Tag + "\n\n" + right,
	}
	replace := map[string]string{}
	for name, text := range files {
		there := filepath.Join(dir, "time_"+name)
		if err := os.WriteFile(there, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write overlay: %w", err)
		}
		replace[filepath.Join(source, name)] = there
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err == nil {
		path = filepath.Join(dir, "overlay.json")
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	return path, nil
}

const right = `package time

func wrongBy() int64 { return 0 }
`

// fault reads the seconds from the file, which is mapped into memory: the runtime asks for the time where no
// system call is allowed. A file that is not there is no fault.
const fault = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var wrongSeconds = mapWrong()

func mapWrong() *atomic.Int64 {
	path, ok := syscall.Getenv(ENV)
	if !ok {
		return new(atomic.Int64)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return new(atomic.Int64)
	}
	defer syscall.Close(fd)
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return new(atomic.Int64)
	}
	return (*atomic.Int64)(unsafe.Pointer(&page[0]))
}

func wrongBy() int64 { return wrongSeconds.Load() }
`

// Clock is the wrong clock of one machine.
type Clock struct{ path string }

// New returns a clock in dir that is right.
func New(dir string) (Clock, error) {
	c := Clock{filepath.Join(dir, "clock")}
	return c, c.Wrong(0)
}

// Env is what a program's environment needs to run by this clock.
func (c Clock) Env() string { return Env + "=" + c.path }

// Set makes the clock say at; it goes on from there.
func (c Clock) Set(at time.Time) error { return c.Wrong(time.Until(at)) }

// Wrong makes the clock wrong by d, in whole seconds.
func (c Clock) Wrong(d time.Duration) error {
	// In place and in one write: programs have the file in their memory.
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(d/time.Second))), 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}
