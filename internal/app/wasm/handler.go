package wasm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/skerry-dev/skerry/internal/app/wasm/cgi"
)

// answerGrace is how long a caller may take to read that the time is over.
const answerGrace = 2 * time.Second

// maxSpool is how much of a body of unknown length is read to learn its length.
const maxSpool = 256 << 10

// handler answers requests with instances of its program. It is what the gateway calls.
type handler struct{ i *instance }

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.i.admit() {
		failures[reasonStopped].answer(w, h.i.p.spec.App.String())
		return
	}
	defer h.i.requests.Done()
	begun := time.Now()
	control := http.NewResponseController(w)
	f, sent := h.serve(w, r, control)
	h.i.p.metrics.request(h.i.p.spec.App.String(), f, time.Since(begun))
	switch {
	case f == nil:
	case sent:
		// The caller sees that the answer is not whole.
		panic(http.ErrAbortHandler)
	default:
		_ = control.SetWriteDeadline(time.Now().Add(answerGrace))
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close")
		}
		f.answer(w, h.i.p.spec.App.String())
	}
	_ = control.SetWriteDeadline(time.Time{})
}

// serve reports what went wrong, and whether the answer had begun.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, control *http.ResponseController) (f *failure, sent bool) {
	p := h.i.p
	if f := h.i.enter(r.Context()); f != nil {
		return f, false
	}
	defer h.i.leave()
	deadline := time.Now().Add(p.timeout())
	// Not every writer has deadlines; where they are missing a slow caller holds its instance longer.
	_ = control.SetWriteDeadline(deadline)
	body, length, f := readLength(r, control, deadline)
	if f != nil {
		return f, false
	}
	g := h.i.take()
	in := &bodyReader{r: body, guest: g}
	in.left.Store(length)
	out := &response{
		w: w, in: in, fail: func(f *failure) { g.cancel(f) }, control: control, noBody: r.Method == http.MethodHead,
		headerBytes: p.limits.HeaderBytes, outputBytes: p.limits.OutputBytes,
	}
	leave := context.AfterFunc(r.Context(), func() { g.cancel(failures[reasonGone]) })
	defer leave()
	limit := time.AfterFunc(time.Until(deadline), func() { g.cancel(failures[reasonTime].with("The limit is %s.", p.timeout())) })
	defer limit.Stop()
	g.assign(&job{env: cgi.Environ(r, length), stdin: in, stdout: out})
	<-g.ended
	f = outcome(g, out, deadline)
	sent = out.close(f == nil)
	in.finish(control)
	return f, sent
}

// outcome is the failure of a request, nil when all went well.
func outcome(g *guest, out *response, deadline time.Time) *failure {
	var f *failure
	switch {
	case errors.As(g.err, &f):
		if f.reason == reasonGone && !time.Now().Before(deadline) {
			return failures[reasonTime] // a write failed since the caller read too slowly
		}
		return f
	case out.bad != nil:
		return out.bad
	case !out.whole && len(out.head) > 0:
		return failures[reasonHeader].with("No empty line ends it.")
	case !out.whole:
		return failures[reasonHeader].with("The app wrote nothing.")
	}
	return nil
}

// readLength finds out how long the body is. One of unknown length is read, as CGI has no other way to say
// where it ends.
func readLength(r *http.Request, control *http.ResponseController, deadline time.Time) (io.Reader, int64, *failure) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, 0, nil
	}
	_ = control.SetReadDeadline(deadline)
	// Without it the server reads on, and drops, what is left of the body when the answer begins. HTTP/2 needs
	// no leave.
	_ = control.EnableFullDuplex()
	if r.ContentLength > 0 {
		return r.Body, r.ContentLength, nil
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxSpool+1))
	if err != nil {
		return nil, 0, bodyFailure(err)
	}
	if len(data) > maxSpool {
		return nil, 0, failures[reasonLength].with("The most without it is %d bytes.", maxSpool)
	}
	return bytes.NewReader(data), int64(len(data)), nil
}

// bodyReader ends the guest when the body cannot be read: half a body must not pass for a whole one.
type bodyReader struct {
	r     io.Reader
	left  atomic.Int64
	guest *guest
}

// finish is called after the guest's end. The server must see the end of a body that was read as a whole: it
// looks for it at the wrong moment otherwise (EnableFullDuplex). The rest of one that was not goes with the
// connection.
func (b *bodyReader) finish(control *http.ResponseController) {
	if b.r == nil {
		return
	}
	if b.left.Load() > 0 {
		_ = control.SetReadDeadline(time.Now().Add(answerGrace))
		return
	}
	_, _ = b.r.Read(make([]byte, 1))
	_ = control.SetReadDeadline(time.Time{})
}

// Read implements io.Reader.
func (b *bodyReader) Read(p []byte) (int, error) {
	if b.r == nil {
		return 0, io.EOF
	}
	n, err := b.r.Read(p)
	b.left.Add(-int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		b.guest.cancel(bodyFailure(err))
	}
	return n, err
}

func bodyFailure(err error) *failure {
	var tooLarge *http.MaxBytesError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &tooLarge):
		return failures[reasonTooBig].with("At most %d bytes are allowed.", tooLarge.Limit)
	case errors.As(err, &timeout) && timeout.Timeout():
		return failures[reasonTime].with("The body did not come in time.")
	}
	return failures[reasonGone]
}
