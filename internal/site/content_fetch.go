package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Fetcher gets content from elsewhere. It is called from several goroutines.
type Fetcher interface {
	// Fetch returns a reader of the blob from byte offset on, which the caller closes. What it yields is
	// not trusted. An error that wraps fleet.ErrDigest says that the other side has other content than was
	// asked for, so that what was fetched before is of no use.
	Fetch(ctx context.Context, repository string, ref ContentRef, offset int64) (io.ReadCloser, error)
}

// ErrDisk is wrapped by errors of Ensure that are the site's own disk's: it is full, read-only or bad. Asking
// the hub again would be in vain; the caller says so and tries again later.
var ErrDisk = errors.New("this site's disk fails")

const (
	// maxWrong is how many times in a row content may arrive complete and wrong.
	maxWrong = 5
	// firstBackOff and maxBackOff bound the time between two tries.
	firstBackOff = 200 * time.Millisecond
	maxBackOff   = time.Minute
	// copyBuffer is the size of the pieces in which content is written.
	copyBuffer = 64 << 10
)

// jitteredBackOff doubles from firstBackOff to maxBackOff and takes a random part between a half and the
// whole, so that sites that lost their hub together do not come back together.
func jitteredBackOff(failures int) time.Duration {
	d := maxBackOff
	if shift := failures - 1; shift < 16 {
		d = min(d, firstBackOff<<shift)
	}
	return d/2 + rand.N(d/2)
}

// flight is the download of one blob, shared by all who ask for it at the same time. All fields but done
// are guarded by ContentDir.mu, err until done is closed.
type flight struct {
	ref     ContentRef
	repos   []string // where those who ask expect it; tried in turn
	waiters int
	cancel  context.CancelFunc
	done    chan struct{} // closed when the download is over
	err     error
}

// join waits for the download of a blob, which the first who asks begins and the last who leaves ends.
func (c *ContentDir) join(ctx context.Context, repository string, ref ContentRef) error {
	for {
		f, err := c.enter(repository, ref)
		if err != nil {
			return err
		}
		select {
		case <-f.done:
			c.leave(f)
			// Cancelled by others who left just before this caller came: begin again.
			if errors.Is(f.err, context.Canceled) && ctx.Err() == nil {
				continue
			}
			return f.err
		case <-ctx.Done():
			if c.leave(f) {
				<-f.done
			}
			return waitedFor(ctx.Err(), f)
		}
	}
}

// waitedFor adds what went wrong last to the reason why the caller stopped waiting.
func waitedFor(ended error, f *flight) error {
	select {
	case <-f.done:
		if f.err == nil || errors.Is(f.err, ended) {
			return errors.Join(f.err, ended)
		}
		return fmt.Errorf("%w, after: %w", ended, f.err)
	default:
		return ended
	}
}

func (c *ContentDir) enter(repository string, ref ContentRef) (*flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.flights[ref.Digest]
	if f == nil {
		ctx, cancel := context.WithCancel(context.Background())
		f = &flight{ref: ref, cancel: cancel, done: make(chan struct{})}
		c.flights[ref.Digest] = f
		go c.fly(ctx, f)
	}
	if f.ref.Size != ref.Size {
		return nil, fmt.Errorf("announced with %d and with %d bytes: %w", f.ref.Size, ref.Size, fleet.ErrDigest)
	}
	if !slices.Contains(f.repos, repository) {
		f.repos = append(f.repos, repository)
	}
	f.waiters++
	return f, nil
}

// leave reports whether nobody waits any more, so that the download was told to end.
func (c *ContentDir) leave(f *flight) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.waiters--
	if f.waiters > 0 {
		return false
	}
	f.cancel()
	return true
}

// fly runs one download to its end.
func (c *ContentDir) fly(ctx context.Context, f *flight) {
	err := c.download(ctx, f)
	c.mu.Lock()
	f.err = err
	delete(c.flights, f.ref.Digest)
	c.mu.Unlock()
	close(f.done)
}

// download tries until the blob is there, ctx ends, the disk fails, or the content was wrong too many times.
func (c *ContentDir) download(ctx context.Context, f *flight) error {
	var failures, wrong int
	for try := 0; ; try++ {
		progress, err := c.takeTurn(ctx, f, try)
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrDisk) {
			return err
		}
		if progress {
			failures = 0
		}
		failures++
		if errors.Is(err, fleet.ErrDigest) {
			wrong++
		}
		if wrong >= maxWrong {
			return fmt.Errorf("gave up after %d tries: %w", wrong, err)
		}
		wait := c.backOff(failures)
		c.log.Warn("content not fetched yet", "digest", f.ref.Digest, "try", try+1, "retry", wait.Round(time.Millisecond), "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: last error: %w", ctx.Err(), err)
		}
	}
}

// takeTurn makes one attempt in one of the slots, which is free again while the download waits.
func (c *ContentDir) takeTurn(ctx context.Context, f *flight, try int) (progress bool, err error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return c.attempt(ctx, c.repository(f, try), f.ref)
}

func (c *ContentDir) repository(f *flight, try int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.repos[try%len(f.repos)]
}

// attempt goes on where the partial file ends. It reports whether bytes arrived. A partial file whose
// content turns out to be wrong is emptied.
func (c *ContentDir) attempt(ctx context.Context, repository string, ref ContentRef) (progress bool, err error) {
	file, err := os.OpenFile(c.partial(ref.Digest), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, fmt.Errorf("open partial file: %w: %w", ErrDisk, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	// What is there is hashed again each time: a kill or a full disk may have left anything behind.
	sum := fleet.NewVerifier()
	have, err := io.Copy(sum, file)
	if err != nil {
		return false, fmt.Errorf("read partial file: %w: %w", ErrDisk, err)
	}
	if have < ref.Size {
		n, err := c.receive(ctx, repository, ref, have, io.MultiWriter(diskWriter{file}, sum))
		progress = n > 0
		have += n
		if errors.Is(err, fleet.ErrDigest) {
			return progress, errors.Join(err, file.Truncate(0))
		}
		if err != nil {
			return progress, err
		}
	}
	if got := sum.Digest(); got != ref.Digest {
		err := fmt.Errorf("what arrived is %s: %w", got, fleet.ErrDigest)
		return progress, errors.Join(err, file.Truncate(0))
	}
	return progress, c.finish(file, ref.Digest)
}

// diskWriter tells errors of the disk from those of the network.
type diskWriter struct{ w io.Writer }

// Write implements io.Writer.
func (d diskWriter) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	if err != nil {
		err = fmt.Errorf("write partial file: %w: %w", ErrDisk, err)
	}
	return n, err
}

// receive writes what is missing of the blob, and not one byte more.
func (c *ContentDir) receive(ctx context.Context, repository string, ref ContentRef, have int64, w io.Writer) (int64, error) {
	body, err := c.fetch.Fetch(ctx, repository, ref, have)
	if err != nil {
		return 0, err
	}
	missing := ref.Size - have
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(body, missing), make([]byte, copyBuffer))
	switch {
	case err == nil && n == 0:
		// It ended in order where a break would have failed: there is no more to be had.
		err = fmt.Errorf("there are only %d of the %d bytes that were announced: %w", have, ref.Size, fleet.ErrDigest)
	case err == nil && n < missing:
		err = fmt.Errorf("broke off after %d of %d bytes: %w", have+n, ref.Size, io.ErrUnexpectedEOF)
	}
	if err == nil {
		err = expectEnd(body, ref.Size)
	}
	return n, errors.Join(err, body.Close())
}

// expectEnd refuses a blob that goes on beyond its size.
func expectEnd(body io.Reader, size int64) error {
	var extra [1]byte
	if n, _ := io.ReadFull(body, extra[:]); n > 0 {
		return fmt.Errorf("more than the %d bytes that were announced: %w", size, fleet.ErrDigest)
	}
	return nil
}

// finish gives a complete download its name, on disk when it returns.
func (c *ContentDir) finish(file *os.File, digest fleet.Digest) error {
	err := errors.Join(file.Sync(), file.Chmod(0o400))
	if err == nil {
		err = os.Rename(file.Name(), c.blob(digest))
	}
	if err == nil {
		err = errors.Join(syncDir(c.blobDir()), syncDir(c.partialDir()))
	}
	if err != nil {
		return fmt.Errorf("store content: %w: %w", ErrDisk, err)
	}
	return nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
