package appsite

import (
	"fmt"
	"slices"
	"sync"
)

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
