package wasm

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app/wasm/cgi"
)

// An answer waits a little for more to come before it is sent, and not longer than this or for more than
// that: one that is over soon leaves in one piece and with its length, and one that fails soon leaves as a
// failure.
const (
	flushAfter = 4 * time.Millisecond
	holdBytes  = 16 << 10
)

// response takes a guest's standard output: a CGI header (RFC 3875, section 6), then the body, which is sent
// on as it comes. What is wrong with it ends the guest.
type response struct {
	w           http.ResponseWriter
	control     *http.ResponseController
	in          *bodyReader
	fail        func(*failure)
	headerBytes int
	outputBytes int64
	noBody      bool // the answer to HEAD

	// These are the guest's goroutine's alone. head gathers the header until it is whole.
	head  []byte
	body  int64
	bad   *failure
	whole bool

	// mu guards the rest, and w's body and flushing, which a timer does too.
	mu     sync.Mutex
	status int
	fields http.Header
	held   []byte
	// sent says that the header is on its way, and what is written now cannot be taken back.
	sent    bool
	timer   *time.Timer
	pending bool // the timer runs
	closed  bool
}

// Write implements io.Writer, for the guest's goroutine.
func (r *response) Write(p []byte) (int, error) {
	if r.bad != nil {
		return 0, r.bad
	}
	n := len(p)
	if !r.whole {
		rest, err := r.header(p)
		if err != nil {
			return 0, r.reject(err)
		}
		if !r.whole {
			return n, nil
		}
		p = rest
	}
	if r.body += int64(len(p)); r.body > r.outputBytes {
		return 0, r.reject(failures[reasonOutput].with("At most %d bytes are allowed.", r.outputBytes))
	}
	if r.noBody {
		p = nil
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

// header takes what comes of the header. When it is whole, what it returns is body.
func (r *response) header(p []byte) (body []byte, err *failure) {
	r.head = append(r.head, p...)
	end, next := cgi.HeaderEnd(r.head)
	if end > r.headerBytes || end < 0 && len(r.head) > r.headerBytes {
		return nil, failures[reasonHeader].with("It is longer than %d bytes.", r.headerBytes)
	}
	if end < 0 {
		return nil, nil
	}
	status, fields, wrong := cgi.ParseHeader(r.head[:end])
	if wrong != nil {
		return nil, failures[reasonHeader].with("%v", wrong)
	}
	body = r.head[next:]
	r.head, r.whole = nil, true
	r.status, r.fields = status, fields
	r.noBody = r.noBody || status == http.StatusNoContent || status == http.StatusNotModified
	return body, nil
}

func (r *response) send(p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sent && len(r.held)+len(p) <= holdBytes {
		r.held = append(r.held, p...)
	} else {
		if err := r.commit(); err != nil {
			return err
		}
		if _, err := r.w.Write(p); err != nil {
			return err
		}
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

// commit sends the header and what was held. The caller holds the lock.
func (r *response) commit() error {
	if r.sent {
		return nil
	}
	r.sent = true
	h := r.w.Header()
	for name, values := range r.fields {
		h[name] = values
	}
	if r.in.left.Load() > 0 {
		// What is left of the body must never be read as the next request.
		h.Set("Connection", "close")
	}
	r.w.WriteHeader(r.status)
	held := r.held
	r.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := r.w.Write(held)
	return err
}

func (r *response) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || !r.pending {
		return
	}
	r.pending = false
	// What fails here fails the next write too.
	_ = r.commit()
	_ = r.control.Flush()
}

// close ends the answer, and reports whether any of it was sent. One that is held is sent when it is good.
func (r *response) close(good bool) (sent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
	if good && !r.sent {
		if r.fields["Content-Length"] == nil && !r.noBody {
			r.fields.Set("Content-Length", strconv.Itoa(len(r.held)))
		}
		_ = r.commit() // a caller that is gone cannot be told
	}
	return r.sent
}
