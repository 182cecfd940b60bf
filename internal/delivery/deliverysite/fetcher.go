package deliverysite

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/skerry-dev/skerry/internal/delivery"
	"github.com/skerry-dev/skerry/internal/site"
)

// lookAgain is how often a download that waits for its hour asks the neighbours and the clock again.
const lookAgain = time.Minute

// Fetcher is a site.Fetcher that keeps to the rules of a section: it asks the neighbours first, then waits for the
// hours in which the hub may be asked, and takes no more of the link than is allowed. Until a Module gives it rules
// it only passes on. It is safe for concurrent use.
type Fetcher struct {
	hub site.Fetcher
	now func() time.Time

	mu      sync.Mutex
	rules   delivery.Section
	limiter *rate.Limiter
	// changed is closed and replaced when the rules change.
	changed chan struct{}
	// neighbour asks the neighbours; nil when there are none.
	neighbour func(ctx context.Context, ref site.ContentRef, offset int64) (io.ReadCloser, error)
	waiting   int
	onWait    func()
}

// NewFetcher returns a Fetcher in front of hub. now is the time by which hours are kept; it is zero while the time
// is unknown.
func NewFetcher(hub site.Fetcher, now func() time.Time) *Fetcher {
	return &Fetcher{hub: hub, now: now, changed: make(chan struct{})}
}

// follow makes rules what downloads keep to, those that are under way among them.
func (f *Fetcher) follow(rules delivery.Section) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case rules.BytesPerSecond == 0:
		f.limiter = nil
	case f.limiter == nil:
		f.limiter = rate.NewLimiter(rate.Limit(rules.BytesPerSecond), piece(rules.BytesPerSecond))
	default:
		f.limiter.SetLimit(rate.Limit(rules.BytesPerSecond))
		f.limiter.SetBurst(piece(rules.BytesPerSecond))
	}
	f.rules = rules
	close(f.changed)
	f.changed = make(chan struct{})
}

// piece is how much is read at once: a fifth of a second's worth, so that a slow download is never taken for one
// that stalls.
func piece(bytesPerSecond int64) int {
	return int(min(max(bytesPerSecond/5, 256), 64<<10))
}

// isWaiting reports whether a download waits for its hour.
func (f *Fetcher) isWaiting() (rules delivery.Section, waiting bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules, f.waiting > 0
}

// Fetch implements site.Fetcher.
func (f *Fetcher) Fetch(ctx context.Context, repository string, ref site.ContentRef, offset int64) (io.ReadCloser, error) {
	for waited := false; ; waited = true {
		f.mu.Lock()
		rules, changed, neighbour := f.rules, f.changed, f.neighbour
		f.mu.Unlock()
		if neighbour != nil && !ref.Manifest {
			if body, err := neighbour(ctx, ref, offset); err == nil {
				f.wait(waited, -1)
				return body, nil
			}
		}
		if rules.Open(f.now()) {
			f.wait(waited, -1)
			return f.fromHub(ctx, repository, ref, offset)
		}
		f.wait(!waited, +1)
		again := time.NewTimer(lookAgain)
		select {
		case <-ctx.Done():
			again.Stop()
			f.wait(true, -1)
			return nil, fmt.Errorf("downloads wait for their hours, %s: %w", rules.Describe(), ctx.Err())
		case <-again.C:
		case <-changed:
			again.Stop()
		}
	}
}

// wait counts the downloads that wait.
func (f *Fetcher) wait(count bool, n int) {
	if !count {
		return
	}
	f.mu.Lock()
	f.waiting += n
	onWait := f.onWait
	f.mu.Unlock()
	if onWait != nil {
		onWait()
	}
}

func (f *Fetcher) fromHub(ctx context.Context, repository string, ref site.ContentRef, offset int64) (io.ReadCloser, error) {
	body, err := f.hub.Fetch(ctx, repository, ref, offset)
	if err != nil {
		return nil, err
	}
	return &limited{body: body, ctx: ctx, fetcher: f}, nil
}

// limited reads no faster than the rules of the moment allow, and ends when their hours do.
type limited struct {
	body    io.ReadCloser
	ctx     context.Context
	fetcher *Fetcher
	// looked is when the hours were last asked for: not with each piece, which are many.
	looked time.Time
}

// lookEvery is how often a download that is under way asks whether its hours are over.
const lookEvery = time.Second

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	l.fetcher.mu.Lock()
	rules, limiter := l.fetcher.rules, l.fetcher.limiter
	l.fetcher.mu.Unlock()
	if time.Since(l.looked) >= lookEvery {
		if !rules.Open(l.fetcher.now()) {
			return 0, fmt.Errorf("the hours of downloads are over, %s: what has arrived is kept", rules.Describe())
		}
		l.looked = time.Now()
	}
	if limiter == nil {
		return l.body.Read(p)
	}
	n, err := l.body.Read(p[:min(len(p), limiter.Burst())])
	if n > 0 {
		if late := limiter.WaitN(l.ctx, min(n, limiter.Burst())); late != nil && err == nil {
			err = late
		}
	}
	return n, err
}

// Close implements io.Closer.
func (l *limited) Close() error { return l.body.Close() }
