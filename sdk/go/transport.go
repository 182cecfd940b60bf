package skerry

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// Transport sends requests by the site, which lets them go to what the bundle allows and nowhere else. It is
// an http.RoundTripper for an http.Client, which follows redirects, each judged anew. The zero value is ready.
type Transport struct{}

// Client sends requests by the site.
var Client = &http.Client{Transport: Transport{}}

// RoundTrip implements http.RoundTripper. The request's context is not looked at: the time of the module's own
// request bounds it.
func (Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	var raw bytes.Buffer
	if err := req.WriteProxy(&raw); err != nil { // with the whole URL in the first line
		return nil, fmt.Errorf("skerry: write request: %w", err)
	}
	answer, code := host.open(raw.Bytes())
	if err := result(req.Method+" "+req.URL.Redacted(), code); err != nil {
		return nil, err
	}
	body := &answerBody{answer: answer}
	res, err := http.ReadResponse(bufio.NewReader(body), req)
	if err != nil {
		return nil, fmt.Errorf("skerry: read answer: %w", closing(err, body))
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{res.Body, body}
	return res, nil
}

func closing(err error, c io.Closer) error {
	_ = c.Close() // it failed already
	return err
}

// answerBody reads the answer as the site hands it on.
type answerBody struct {
	answer uint32
	closed bool
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, code := host.read(b.answer, p)
	if err := result("read answer", code); err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	return int(n), nil
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	return result("close answer", host.close(b.answer))
}
