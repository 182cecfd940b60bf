package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

const (
	// stallTimeout ends a download from which nothing arrives for so long.
	stallTimeout = 30 * time.Second
	// maxRefusal bounds what is read of an answer that is not content.
	maxRefusal = 4 << 10
)

// FetchError is an answer of the registry that is not the content.
type FetchError struct {
	// Status is the HTTP status.
	Status int
	// Path is what was asked for.
	Path string
	// Message is what the registry said, as far as it can be read; it may be empty.
	Message string
}

// Error names path, status and message.
func (e *FetchError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("GET %s: %d %s: %s", e.Path, e.Status, http.StatusText(e.Status), e.Message), ": ")
}

// Unwrap makes the answer "there is nothing from there on" one about other content.
func (e *FetchError) Unwrap() error {
	if e.Status == http.StatusRequestedRangeNotSatisfiable {
		return fleet.ErrDigest
	}
	return nil
}

// httpFetcher gets content by the paths of the OCI distribution specification.
type httpFetcher struct {
	client http.Client
	bases  func() []string
	stall  time.Duration
}

// NewHTTPFetcher returns a Fetcher over the registry at the URLs that bases returns, such as
// "https://hub:6443", tried in order until one answers; none means that they are not known yet. The client
// authenticates as the site, so redirects are not followed. The client must not have a Timeout; a download
// that stalls is ended.
func NewHTTPFetcher(client *http.Client, bases func() []string) Fetcher {
	f := &httpFetcher{client: *client, bases: bases, stall: stallTimeout}
	f.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return f
}

// Fetch implements Fetcher.
func (f *httpFetcher) Fetch(ctx context.Context, repository string, ref ContentRef, offset int64) (io.ReadCloser, error) {
	bases := f.bases()
	if len(bases) == 0 {
		return nil, errors.New("the hub's address is not known yet")
	}
	path, err := contentPath(repository, ref)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, base := range bases {
		body, err := f.fetchFrom(ctx, base, path, ref, offset)
		if err == nil {
			return body, nil
		}
		errs = append(errs, err)
		var answer *FetchError
		if errors.As(err, &answer) || errors.Is(err, fleet.ErrDigest) || ctx.Err() != nil {
			break // the hub is there: another way to it leads to the same answer
		}
	}
	return nil, errors.Join(errs...)
}

func (f *httpFetcher) fetchFrom(ctx context.Context, base, path string, ref ContentRef, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(f.stall, func() { cancel(fmt.Errorf("nothing arrived for %s", f.stall)) })
	body, err := f.get(ctx, strings.TrimSuffix(base, "/")+path, path, ref, offset)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("GET %s: %w", path, cause)
		}
		timer.Stop()
		cancel(nil)
		return nil, err
	}
	return &stallReader{body: body, ctx: ctx, cancel: cancel, timer: timer, stall: f.stall}, nil
}

// contentPath refuses a repository that would lead to another path.
func contentPath(repository string, ref ContentRef) (string, error) {
	for part := range strings.SplitSeq(repository, "/") {
		if part == "" || part == "." || part == ".." || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
			return "", fmt.Errorf("repository %q: want <namespace>/<name>: %w", repository, fleet.ErrInvalidName)
		}
	}
	noun := "blobs"
	if ref.Manifest {
		noun = "manifests"
	}
	return wire.PathRegistry + repository + "/" + noun + "/" + string(ref.Digest), nil
}

func (f *httpFetcher) get(ctx context.Context, url, path string, ref ContentRef, offset int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	// Bytes are what the digest is about: no encoding on the way.
	req.Header.Set("Accept-Encoding", "identity")
	if ref.Manifest {
		req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json")
	}
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
		req.Header.Set("If-Range", `"`+string(ref.Digest)+`"`)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(resp, path, ref, offset); err != nil {
		err = errors.Join(err, resp.Body.Close())
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
			// A connection shows the certificate with which it began for as long as it lives, and attempts
			// would keep it alive. The next one shows the newest.
			f.client.CloseIdleConnections()
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK && offset > 0 {
		// The other side does not know ranges: what is here already arrives again.
		if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
			return nil, errors.Join(fmt.Errorf("GET %s: %w", path, err), resp.Body.Close())
		}
	}
	return resp.Body, nil
}

// checkAnswer accepts the whole blob, or the part from offset on, of the size that was announced.
func checkAnswer(resp *http.Response, path string, ref ContentRef, offset int64) error {
	want := ref.Size
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		want -= offset
		if got, expect := resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", offset, ref.Size-1, ref.Size); got != expect {
			return fmt.Errorf("GET %s: Content-Range is %q, want %q: %w", path, got, expect, fleet.ErrDigest)
		}
	default:
		return &FetchError{Status: resp.StatusCode, Path: path, Message: refusalMessage(resp)}
	}
	if resp.ContentLength >= 0 && resp.ContentLength != want {
		return fmt.Errorf("GET %s: %d bytes are offered, want %d: %w", path, resp.ContentLength, want, fleet.ErrDigest)
	}
	return nil
}

// refusalMessage reads the specification's JSON error, or else the text.
func refusalMessage(resp *http.Response) string {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // what arrived is told, however little
	var said struct {
		Errors []struct{ Message string }
	}
	if err := json.Unmarshal(body, &said); err == nil && len(said.Errors) > 0 {
		return said.Errors[0].Message
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(body)), "?")
}

// stallReader ends the request when no byte arrives for a while.
type stallReader struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

// Read gives the other side a new while for each piece.
func (r *stallReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if n > 0 {
		r.timer.Reset(r.stall)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(r.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

// Close ends the request.
func (r *stallReader) Close() error {
	r.timer.Stop()
	err := r.body.Close()
	r.cancel(nil)
	return err
}
