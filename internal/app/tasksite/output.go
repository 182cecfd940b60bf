package tasksite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/skerry-dev/skerry/internal/app/task"
)

// output keeps the newest bytes of what one run prints, in two files that take turns. What the disk does not
// take is counted and lost: a run does not fail for want of room for its output.
type output struct {
	path string
	// most is for both files together.
	most int64

	mu   sync.Mutex
	f    *os.File
	size int64
	tail []byte
	lost int64
}

// oldSuffix is that of the file that was filled before.
const oldSuffix = ".old"

// openOutput goes on with what is there, since all tries of a run have one output.
func openOutput(path string, most int64) (*output, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of output: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open output: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open output: %w", err), f.Close())
	}
	return &output{path: path, most: most, f: f, size: info.Size()}, nil
}

// Write implements io.Writer. It never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, p[max(0, len(p)-task.MaxTail):]...)
	o.tail = append(o.tail[:0], o.tail[max(0, len(o.tail)-task.MaxTail):]...)
	for rest := p; len(rest) > 0; {
		if o.size >= o.most/2 {
			o.turn()
		}
		part := rest[:min(int64(len(rest)), max(1, o.most/2-o.size))]
		rest = rest[len(part):]
		n, err := 0, fs.ErrClosed
		if o.f != nil {
			n, err = o.f.Write(part)
		}
		o.size += int64(n)
		if err != nil {
			o.lost += int64(len(part) - n)
		}
	}
	return len(p), nil
}

// turn puts the full file in the place of the old one and begins a new one. The caller holds the lock.
func (o *output) turn() {
	if o.f != nil {
		_ = o.f.Close() // what it did not take is counted
	}
	o.f, o.size = nil, 0
	if os.Rename(o.path, o.path+oldSuffix) != nil {
		return
	}
	if f, err := os.OpenFile(o.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err == nil {
		o.f = f
	}
}

// end closes the output and returns the last of it as text.
func (o *output) end() (tail string, lost int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.f != nil {
		_ = o.f.Close()
		o.f = nil
	}
	return string(o.tail), o.lost
}

// copyOutput writes what is kept of a run.
func copyOutput(path string, to io.Writer) error {
	for _, part := range []string{path + oldSuffix, path} {
		f, err := os.Open(part)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read output: %w", err)
		}
		_, err = io.Copy(to, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("read output: %w", err)
		}
	}
	return nil
}

func removeOutput(path string) error {
	var errs []error
	for _, part := range []string{path, path + oldSuffix} {
		if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove output: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (m *Module) outputDir(uid string) string { return filepath.Join(m.host.Dir, "output", uid) }

func (m *Module) outputPath(uid, run string) string {
	return filepath.Join(m.outputDir(uid), run+".log")
}

// errNoRun says that there is nothing to show.
var errNoRun = errors.New("this site has no such run")

// output answers the hub's question for what a run printed.
func (m *Module) output(req task.OutputRequest, to io.Writer) error {
	m.mu.Lock()
	w := m.tasks[req.Ref]
	m.mu.Unlock()
	if w == nil {
		return fmt.Errorf("%s: %w", req.Ref, errNoRun)
	}
	id, ok := w.runID(req.UID, req.Run)
	if !ok {
		return fmt.Errorf("%s, run %d: %w", req.Ref, req.Run, errNoRun)
	}
	return copyOutput(m.outputPath(req.UID, id), to)
}
