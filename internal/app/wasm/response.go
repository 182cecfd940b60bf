package wasm

import (
	"net/http"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app/wasm/cgi"
)

// flushAfter is how long output waits for more before it is sent on. An answer that is over before leaves
// in one piece and with its length.
const flushAfter = 4 * time.Millisecond

// response takes a guest's standard output: a CGI header (RFC 3875, section 6), then the body, which is sent
// on as it comes. What is wrong with it ends the guest.
type response struct {
	w           http.ResponseWriter
	fail        func(*failure)
	headerBytes int
	outputBytes int64
	noBody      bool // the answer to HEAD

	// head gathers the header until it is whole.
	head []byte
	sent bool
	body int64
	bad  *failure

	// mu guards w's body and flushing, which a timer does too.
	mu      sync.Mutex
	flusher *http.ResponseController
	timer   *time.Timer
	pending bool
	closed  bool
}

// Write implements io.Writer, for the guest's goroutine.
func (r *response) Write(p []byte) (int, error) {
	if r.bad != nil {
		return 0, r.bad
	}
	n := len(p)
	if !r.sent {
		rest, done, err := r.header(p)
		if err != nil {
			return 0, r.reject(err)
		}
		if !done {
			return n, nil
		}
		p = rest
	}
	if r.body += int64(len(p)); r.body > r.outputBytes {
		return 0, r.reject(failures[reasonOutput].with("At most %d bytes are allowed.", r.outputBytes))
	}
	if len(p) == 0 || r.noBody {
		return n, nil
	}
	if err := r.send(p); err != nil {
		return 0, r.reject(failures[reasonGone])
	}
	return n, nil
}

// reject ends the guest for what it wrote.
func (r *response) reject(f *failure) error {
	r.bad = f
	r.fail(f)
	return f
}

func (r *response) send(p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.w.Write(p); err != nil {
		return err
	}
	if r.pending {
		return nil
	}
	r.pending = true
	if r.timer == nil {
		r.timer = time.AfterFunc(flushAfter, r.flush)
	} else {
		r.timer.Reset(flushAfter)
	}
	return nil
}

func (r *response) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || !r.pending {
		return
	}
	r.pending = false
	_ = r.flusher.Flush() // the next write fails as this does
}

// close ends the flushing; w is not used after it.
func (r *response) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// header takes what comes of the header. When it is whole it is sent, and the rest of p is body.
func (r *response) header(p []byte) (body []byte, done bool, err *failure) {
	r.head = append(r.head, p...)
	end, next := cgi.HeaderEnd(r.head)
	if end < 0 {
		if len(r.head) > r.headerBytes {
			return nil, false, failures[reasonHeader].with("It is longer than %d bytes.", r.headerBytes)
		}
		return nil, false, nil
	}
	if end > r.headerBytes {
		return nil, false, failures[reasonHeader].with("It is longer than %d bytes.", r.headerBytes)
	}
	status, fields, wrong := cgi.ParseHeader(r.head[:end])
	if wrong != nil {
		return nil, false, failures[reasonHeader].with("%v", wrong)
	}
	body = r.head[next:]
	r.head = nil
	h := r.w.Header()
	for name, values := range fields {
		h[name] = values
	}
	r.sent = true
	r.noBody = r.noBody || status == http.StatusNoContent || status == http.StatusNotModified
	r.w.WriteHeader(status)
	return body, true, nil
}
