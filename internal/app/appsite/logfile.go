package appsite

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of an app's log.
const (
	maxLogLine   = 16 << 10
	maxLogFile   = 5 << 20
	maxLogFiles  = 3
	maxFollowing = 1 << 20 // bytes that wait for one reader
)

// appLog is one app's log: a current file and older ones, and whoever follows it. All releases of the app
// write to it. It is safe for concurrent use; what cannot be written is dropped and counted.
type appLog struct {
	dir string

	mu        sync.Mutex
	file      *os.File
	size      int64
	followers map[*follower]bool
	// lost counts lines that the disk did not take.
	lost uint64
}

func newAppLog(dir string) *appLog { return &appLog{dir: dir, followers: map[*follower]bool{}} }

// name is the file's name, the current one at zero.
func (l *appLog) name(n int) string {
	if n == 0 {
		return filepath.Join(l.dir, "current.log")
	}
	return filepath.Join(l.dir, fmt.Sprintf("older.%d.log", n))
}

// write adds one line, without its newline.
func (l *appLog) write(stream, release string, line []byte) {
	full := make([]byte, 0, len(line)+len(release)+48)
	full = time.Now().UTC().AppendFormat(full, time.RFC3339Nano)
	full = append(append(append(full, ' '), stream...), ' ')
	full = append(append(append(append(full, release...), ' '), line...), '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(full); err != nil {
		l.lost++
	}
	for f := range l.followers {
		f.offer(full)
	}
}

func (l *appLog) append(line []byte) error {
	if l.file == nil {
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			return err
		}
		f, err := os.OpenFile(l.name(0), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		l.file, l.size = f, info.Size()
	}
	if l.size+int64(len(line)) > maxLogFile && l.size > 0 {
		if err := l.rotate(); err != nil {
			return err
		}
		return l.append(line)
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return err
}

func (l *appLog) rotate() error {
	err := l.file.Close()
	l.file, l.size = nil, 0
	for n := maxLogFiles - 2; n >= 0; n-- {
		if e := os.Rename(l.name(n), l.name(n+1)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// close closes the file. A later write opens it again.
func (l *appLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// remove ends every follower and removes the files.
func (l *appLog) remove() error {
	l.mu.Lock()
	followers := l.followers
	l.followers = map[*follower]bool{}
	l.mu.Unlock()
	for f := range followers {
		f.end()
	}
	if err := errors.Join(l.close(), os.RemoveAll(l.dir)); err != nil {
		return fmt.Errorf("remove log: %w", err)
	}
	return nil
}

func (l *appLog) lostLines() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// open returns the last lines as they are now and, when follow is set, everything that is written from then on.
func (l *appLog) open(tail int, follow bool) ([]string, *follower, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var f *follower
	if follow {
		f = &follower{log: l, ready: make(chan struct{}, 1), ended: make(chan struct{})}
		l.followers[f] = true
	}
	lines, err := l.tail(tail)
	if err != nil && f != nil {
		delete(l.followers, f)
	}
	return lines, f, err
}

// tail reads the last n lines. The files are small enough to read them whole, newest first.
func (l *appLog) tail(n int) ([]string, error) {
	var out []string
	for k := 0; k < maxLogFiles && len(out) < n; k++ {
		lines, err := lastLines(l.name(k), n-len(out))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		out = append(lines, out...)
	}
	return out, nil
}

func lastLines(path string, n int) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ring := make([]string, 0, n)
	next := 0
	for r := bufio.NewReaderSize(f, 64<<10); ; {
		line, err := r.ReadString('\n')
		if line != "" && strings.HasSuffix(line, "\n") { // a line that a power cut halved is left out
			if len(ring) < n {
				ring = append(ring, line)
			} else {
				ring[next] = line
				next = (next + 1) % n
			}
		}
		if errors.Is(err, io.EOF) {
			return slices.Concat(ring[next:], ring[:next]), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// follower is one reader of what is being written.
type follower struct {
	log   *appLog
	ready chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	waiting []byte
	dropped int
	over    bool
}

// offer adds a line, or counts it when the reader is too slow.
func (f *follower) offer(line []byte) {
	f.mu.Lock()
	if f.dropped > 0 || len(f.waiting)+len(line) > maxFollowing {
		f.dropped++ // and so is the rest until the reader comes: a gap is told where it is
	} else {
		f.waiting = append(f.waiting, line...)
	}
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// take returns what is waiting, with a line about what was dropped after it.
func (f *follower) take() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.waiting
	if f.dropped > 0 {
		out = fmt.Appendf(out, "... %d lines were dropped here, as they were not read in time\n", f.dropped)
		f.dropped = 0
	}
	f.waiting = nil
	return out
}

func (f *follower) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.over {
		f.over = true
		close(f.ended)
	}
}

// close ends the reading.
func (f *follower) close() {
	f.log.mu.Lock()
	delete(f.log.followers, f)
	f.log.mu.Unlock()
	f.end()
}

// lineWriter cuts what one stream of one instance prints into lines.
type lineWriter struct {
	log             *appLog
	stream, release string

	mu   sync.Mutex
	part []byte
}

// Write implements io.Writer; it never fails.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		end := slices.Index(p, '\n')
		room := maxLogLine - len(w.part)
		switch {
		case end >= 0 && end <= room:
			w.log.write(w.stream, w.release, append(w.part, p[:end]...))
			w.part, p = w.part[:0], p[end+1:]
		case len(p) < room:
			w.part, p = append(w.part, p...), nil
		default:
			w.log.write(w.stream, w.release, append(w.part, p[:room]...))
			w.part, p = w.part[:0], p[room:]
		}
	}
	return n, nil
}

// flush writes a last line that has no newline.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.part) > 0 {
		w.log.write(w.stream, w.release, w.part)
		w.part = w.part[:0]
	}
}
