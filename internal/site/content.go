package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

const (
	// keepPrefix begins the keys of the records of Keep.
	keepPrefix = "keep/"
	// contentGrace is how long a blob stays at least after Ensure returned, so that who asked can name it.
	contentGrace = 15 * time.Minute
	// partialAge is how long an unfinished download stays that nobody asks for. The clock of a site may
	// jump: then a download begins anew, which costs no more than time.
	partialAge = 24 * time.Hour
	// parallelFetches bounds the downloads that run at once.
	parallelFetches = 4
)

// ContentDir is the Content of a site: a directory with
//
//	sha256/<hex>   blobs, complete and verified when they got this name, mode 0400
//	partial/<hex>  downloads that are not complete, mode 0600
//
// and, in the site's store, who needs which of them. All methods are safe for concurrent use. Every
// reader verifies: content that a bad disk changed is removed, answered with an error that wraps
// fleet.ErrDigest, and fetched again by the next Ensure.
type ContentDir struct {
	dir    string
	bucket *store.Bucket
	fetch  Fetcher
	log    *slog.Logger
	slots  chan struct{}
	// backOff returns how long to wait before the try after so many failures in a row.
	backOff func(failures int) time.Duration
	now     func() time.Time

	mu      sync.Mutex
	flights map[fleet.Digest]*flight
	pins    map[fleet.Digest]time.Time // asked for by Ensure, not to be collected before this time
}

var _ Content = (*ContentDir)(nil)

// OpenContent opens the content directory, making it (mode 0700) when there is none. The bucket must be
// used by nothing else. The directory must be open once.
func OpenContent(dir string, bucket *store.Bucket, fetch Fetcher, log *slog.Logger) (*ContentDir, error) {
	c := &ContentDir{
		dir: dir, bucket: bucket, fetch: fetch, log: log, slots: make(chan struct{}, parallelFetches), backOff: jitteredBackOff, now: time.Now,
		flights: map[fleet.Digest]*flight{}, pins: map[fleet.Digest]time.Time{},
	}
	for _, sub := range []string{c.blobDir(), c.partialDir()} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, fmt.Errorf("open content directory: %w", err)
		}
	}
	return c, nil
}

func (c *ContentDir) blobDir() string               { return filepath.Join(c.dir, "sha256") }
func (c *ContentDir) partialDir() string            { return filepath.Join(c.dir, "partial") }
func (c *ContentDir) blob(d fleet.Digest) string    { return filepath.Join(c.blobDir(), d.Hex()) }
func (c *ContentDir) partial(d fleet.Digest) string { return filepath.Join(c.partialDir(), d.Hex()) }

// Ensure implements Content. It also returns, with an error that wraps fleet.ErrDigest, when the other
// side repeatedly sends content that is not what was asked for.
func (c *ContentDir) Ensure(ctx context.Context, repository string, refs ...ContentRef) error {
	for _, ref := range refs {
		if err := ref.Digest.Validate(); err != nil {
			return fmt.Errorf("content of %s: %w", repository, err)
		}
		if ref.Size < 0 {
			return fmt.Errorf("content %s of %s: size is %d, must not be negative", ref.Digest, repository, ref.Size)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(refs))
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(len(refs), parallelFetches) {
		wg.Go(func() {
			for i := range next {
				if errs[i] = c.ensureOne(ctx, repository, refs[i]); errs[i] != nil {
					cancel() // one that cannot be had makes the others useless
				}
			}
		})
	}
	for i := range refs {
		next <- i
	}
	close(next)
	wg.Wait()
	return firstCause(errs)
}

// firstCause prefers the error that made the others be cancelled.
func firstCause(errs []error) error {
	var cancelled error
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		if cancelled == nil {
			cancelled = err
		}
	}
	return cancelled
}

// ensureOne returns when one blob is there and verified.
func (c *ContentDir) ensureOne(ctx context.Context, repository string, ref ContentRef) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("content %s of %s: %w", ref.Digest, repository, err)
	}
	c.pin(ref.Digest)
	switch size, err := c.verify(ref.Digest); {
	case err == nil && size == ref.Size:
		return nil
	case err == nil:
		return fmt.Errorf("content %s of %s has %d bytes, %d were announced: %w", ref.Digest, repository, size, ref.Size, fleet.ErrDigest)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fleet.ErrDigest):
		return fmt.Errorf("content %s: %w", ref.Digest, err)
	}
	err := c.join(ctx, repository, ref)
	c.pin(ref.Digest) // the grace period begins when the blob is there
	if err != nil {
		return fmt.Errorf("content %s of %s: %w", ref.Digest, repository, err)
	}
	return nil
}

func (c *ContentDir) pin(d fleet.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pins[d] = c.now().Add(contentGrace)
}

// Read implements Content.
func (c *ContentDir) Read(digest fleet.Digest) ([]byte, error) {
	f, info, err := c.open(digest)
	if err != nil {
		return nil, fmt.Errorf("read content %s: %w", digest, err)
	}
	defer f.Close()
	if info.Size() > MaxRead {
		return nil, fmt.Errorf("read content %s: it has %d bytes, Read returns at most %d: use Path", digest, info.Size(), MaxRead)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxRead))
	if err != nil {
		return nil, fmt.Errorf("read content %s: %w", digest, err)
	}
	if err := digest.Check(data); err != nil {
		return nil, errors.Join(fmt.Errorf("read content: %w", err), c.removeCorrupt(digest, info))
	}
	return data, nil
}

// Path implements Content. It reads the whole file, at the speed of disk and SHA-256 (about a second for
// a gigabyte), so a caller asks once for each use, not for each request.
func (c *ContentDir) Path(digest fleet.Digest) (string, error) {
	if _, err := c.verify(digest); err != nil {
		return "", fmt.Errorf("content %s: %w", digest, err)
	}
	return c.blob(digest), nil
}

func (c *ContentDir) open(digest fleet.Digest) (*os.File, fs.FileInfo, error) {
	if err := digest.Validate(); err != nil {
		return nil, nil, err
	}
	f, err := os.Open(c.blob(digest))
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// verify hashes a blob and returns its size. It removes one that is corrupt.
func (c *ContentDir) verify(digest fleet.Digest) (int64, error) {
	f, info, err := c.open(digest)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	got, size, err := fleet.DigestReader(f)
	if err != nil {
		return 0, err
	}
	if got != digest {
		err := fmt.Errorf("its content on disk is %s: %w", got, fleet.ErrDigest)
		return 0, errors.Join(err, c.removeCorrupt(digest, info))
	}
	return size, nil
}

// removeCorrupt removes the file that was found corrupt, unless it was replaced meanwhile.
func (c *ContentDir) removeCorrupt(digest fleet.Digest, found fs.FileInfo) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log.Error("content is corrupt on disk, removed", "digest", digest)
	if now, err := os.Lstat(c.blob(digest)); err != nil || !os.SameFile(now, found) {
		return nil
	}
	return os.Remove(c.blob(digest))
}

// Keep implements Content. What it says is on disk when it returns; then it collects.
func (c *ContentDir) Keep(owner string, digests []fleet.Digest) error {
	if owner == "" {
		return errors.New("keep content: owner is empty")
	}
	for _, d := range digests {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("keep content for %s: %w", owner, err)
		}
	}
	digests = slices.Compact(slices.Sorted(slices.Values(digests)))
	var before []fleet.Digest
	err := c.bucket.Get(keepPrefix+owner, &before)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("keep content for %s: %w", owner, err)
	}
	if slices.Equal(before, digests) {
		return nil
	}
	if len(digests) == 0 {
		err = c.bucket.Delete(keepPrefix + owner)
	} else {
		err = c.bucket.Put(keepPrefix+owner, digests)
	}
	if err != nil {
		return fmt.Errorf("keep content for %s: %w", owner, err)
	}
	return c.Collect()
}

// Collect removes blobs that no owner names, unless Ensure was asked for them in the last quarter of an
// hour, and unfinished downloads that nobody asked for in a day. Keep calls it; the agent calls it now and
// then, for what was too young at that time.
func (c *ContentDir) Collect() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept, err := c.kept()
	if err != nil {
		return fmt.Errorf("collect content: %w", err)
	}
	now := c.now()
	for d, until := range c.pins {
		if c.flights[d] == nil && now.After(until) {
			delete(c.pins, d)
		}
	}
	err = c.sweep(c.blobDir(), func(d fleet.Digest, _ fs.FileInfo) bool {
		_, pinned := c.pins[d]
		return kept[d] || pinned
	})
	perr := c.sweep(c.partialDir(), func(d fleet.Digest, info fs.FileInfo) bool {
		age := time.Duration(math.Abs(float64(now.Sub(info.ModTime()))))
		return c.flights[d] != nil || d.Validate() == nil && age < partialAge
	})
	if err := errors.Join(err, perr); err != nil {
		return fmt.Errorf("collect content: %w", err)
	}
	return nil
}

// kept returns what owners name.
func (c *ContentDir) kept() (map[fleet.Digest]bool, error) {
	keys, err := c.bucket.Keys()
	if err != nil {
		return nil, err
	}
	out := map[fleet.Digest]bool{}
	for _, key := range keys {
		if !strings.HasPrefix(key, keepPrefix) {
			continue
		}
		var digests []fleet.Digest
		if err := c.bucket.Get(key, &digests); err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		for _, d := range digests {
			out[d] = true
		}
	}
	return out, nil
}

// sweep removes the files of a directory that needed does not spare.
func (c *ContentDir) sweep(dir string, needed func(fleet.Digest, fs.FileInfo) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || needed(fleet.Digest("sha256:"+e.Name()), info) {
			continue // needed, or gone meanwhile
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		c.log.Debug("content removed", "file", e.Name(), "bytes", info.Size())
	}
	return nil
}
