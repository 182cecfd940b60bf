package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

// fetchFunc is a Fetcher.
type fetchFunc func(ctx context.Context, repository string, ref ContentRef, offset int64) (io.ReadCloser, error)

func (f fetchFunc) Fetch(ctx context.Context, repository string, ref ContentRef, offset int64) (io.ReadCloser, error) {
	return f(ctx, repository, ref, offset)
}

// source is a Fetcher that has content, breaks each download after some bytes, and counts.
type source struct {
	mu      sync.Mutex
	content map[fleet.Digest][]byte
	breaks  int64 // bytes after which a download breaks; zero never
	offsets []int64
}

func (s *source) Fetch(_ context.Context, _ string, ref ContentRef, offset int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offsets = append(s.offsets, offset)
	data, ok := s.content[ref.Digest]
	if !ok {
		return nil, errors.New("not here yet")
	}
	r := io.Reader(bytes.NewReader(data[offset:]))
	if s.breaks > 0 && s.breaks < int64(len(data))-offset {
		r = io.MultiReader(io.LimitReader(r, s.breaks), broken{})
	}
	return io.NopCloser(r), nil
}

func (s *source) add(content []byte) ContentRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := fleet.DigestOf(content)
	s.content[d] = content
	return ContentRef{Digest: d, Size: int64(len(content))}
}

func (s *source) fetches() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.offsets)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func randomBytes(n int) []byte {
	seed := [32]byte{1}
	out := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(out) // never fails
	return out
}

func openBucket(t *testing.T, dir string) *store.Bucket {
	t.Helper()
	s, err := store.Open(filepath.Join(dir, "site.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b, err := s.Bucket("content")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// content is an open directory that tries again at once.
func content(t *testing.T, f Fetcher) *ContentDir {
	t.Helper()
	dir := t.TempDir()
	return reopen(t, dir, openBucket(t, dir), f)
}

func reopen(t *testing.T, dir string, bucket *store.Bucket, f Fetcher) *ContentDir {
	t.Helper()
	c, err := OpenContent(filepath.Join(dir, "content"), bucket, f, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.backOff = func(int) time.Duration { return 0 }
	return c
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestEnsureReadPath(t *testing.T) {
	src := &source{content: map[fleet.Digest][]byte{}}
	c := content(t, src)
	big, small, empty := randomBytes(300_000), []byte("small"), []byte{}
	refs := []ContentRef{src.add(big), src.add(small), src.add(empty)}
	if _, err := c.Read(refs[0].Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read before Ensure: %v, want fs.ErrNotExist", err)
	}
	if err := c.Ensure(t.Context(), "default/hello", refs...); err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]byte{big, small, empty} {
		got, err := c.Read(refs[i].Digest)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("Read of %d bytes gave %d, %v", len(want), len(got), err)
		}
	}
	path, err := c.Path(refs[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o400 || info.Size() != int64(len(big)) {
		t.Errorf("the file is %v, %v; want it read-only and whole", info, err)
	}
	if left := files(t, c.partialDir()); len(left) != 0 {
		t.Errorf("partial files are left: %v", left)
	}
	before := len(src.fetches())
	if err := c.Ensure(t.Context(), "default/hello", refs...); err != nil || len(src.fetches()) != before {
		t.Errorf("what is there was fetched again, or %v", err)
	}
	if err := c.Ensure(t.Context(), "default/hello"); err != nil {
		t.Errorf("Ensure of nothing: %v", err)
	}

	huge := src.add(make([]byte, MaxRead+1))
	if err := c.Ensure(t.Context(), "default/hello", huge); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(huge.Digest); err == nil || !strings.Contains(err.Error(), "use Path") {
		t.Errorf("Read beyond MaxRead: %v", err)
	}
}

func TestBadReferencesAreRefusedAtOnce(t *testing.T) {
	src := &source{content: map[fleet.Digest][]byte{}}
	c := content(t, src)
	ref := src.add([]byte("content"))
	for reason, bad := range map[string]ContentRef{
		"no digest":       {Digest: "sha256:../../x", Size: 1},
		"a negative size": {Digest: ref.Digest, Size: -1},
	} {
		if err := c.Ensure(t.Context(), "r", ref, bad); err == nil {
			t.Errorf("%s was taken", reason)
		}
	}
	if n := len(src.fetches()); n != 0 {
		t.Errorf("%d blobs were fetched", n)
	}
	for _, d := range []fleet.Digest{"", "x", "sha256:../../etc/passwd"} {
		if _, err := c.Read(d); !errors.Is(err, fleet.ErrDigest) {
			t.Errorf("Read %q: %v", d, err)
		}
		if _, err := c.Path(d); !errors.Is(err, fleet.ErrDigest) {
			t.Errorf("Path %q: %v", d, err)
		}
		if err := c.Keep("o", []fleet.Digest{d}); !errors.Is(err, fleet.ErrDigest) {
			t.Errorf("Keep %q: %v", d, err)
		}
	}
	if err := c.Keep("", nil); err == nil {
		t.Error("Keep for nobody was taken")
	}
	if err := c.Ensure(t.Context(), "r", ref); err != nil {
		t.Fatal(err)
	}
	if err := c.Ensure(t.Context(), "r", ContentRef{Digest: ref.Digest, Size: 3}); !errors.Is(err, fleet.ErrDigest) {
		t.Errorf("another size of what is there: %v", err)
	}
}

func TestDownloadsGoOnAfterEachBreak(t *testing.T) {
	src := &source{content: map[fleet.Digest][]byte{}, breaks: 70_000}
	c := content(t, src)
	data := randomBytes(300_000)
	ref := src.add(data)
	if err := c.Ensure(t.Context(), "r", ref); err != nil {
		t.Fatal(err)
	}
	if got := src.fetches(); !slices.Equal(got, []int64{0, 70_000, 140_000, 210_000, 280_000}) {
		t.Errorf("downloads began at %v, want each where the last one broke", got)
	}
	if got, err := c.Read(ref.Digest); err != nil || !bytes.Equal(got, data) {
		t.Errorf("Read: %v", err)
	}
}

func TestDownloadsGoOnAfterARestart(t *testing.T) {
	data := randomBytes(200_000)
	tests := []struct {
		reason  string
		partial []byte
		offsets []int64
	}{
		{"what arrived before is not fetched again", data[:120_000], []int64{120_000}},
		{"a download that was complete but not named is named", data, nil},
		{"bytes that a bad disk changed are found at the end, and all is fetched again", append([]byte("bad"), data[3:120_000]...), []int64{120_000, 0}},
		{"a file that is too long is not what was asked for", append(slices.Clone(data), 'x'), []int64{0}},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			src := &source{content: map[fleet.Digest][]byte{}}
			ref := src.add(data)
			c := content(t, src)
			if err := os.WriteFile(c.partial(ref.Digest), tt.partial, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.Ensure(t.Context(), "r", ref); err != nil {
				t.Fatal(err)
			}
			if got := src.fetches(); !slices.Equal(got, tt.offsets) {
				t.Errorf("downloads began at %v, want %v", got, tt.offsets)
			}
			if got, err := c.Read(ref.Digest); err != nil || !bytes.Equal(got, data) {
				t.Errorf("Read: %v", err)
			}
		})
	}
}

func TestCorruptContentIsRemovedAndFetchedAgain(t *testing.T) {
	for name, find := range map[string]func(*ContentDir, fleet.Digest) error{
		"Read":   func(c *ContentDir, d fleet.Digest) error { _, err := c.Read(d); return err },
		"Path":   func(c *ContentDir, d fleet.Digest) error { _, err := c.Path(d); return err },
		"Ensure": nil,
	} {
		t.Run(name, func(t *testing.T) {
			src := &source{content: map[fleet.Digest][]byte{}}
			c := content(t, src)
			ref := src.add([]byte("what an app runs"))
			if err := c.Ensure(t.Context(), "r", ref); err != nil {
				t.Fatal(err)
			}
			file := c.blob(ref.Digest)
			if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("what an app rung"), 0o600)); err != nil {
				t.Fatal(err)
			}
			if find != nil {
				if err := find(c, ref.Digest); !errors.Is(err, fleet.ErrDigest) {
					t.Errorf("corrupt content: %v, want fleet.ErrDigest", err)
				}
				if err := find(c, ref.Digest); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the second time: %v, want fs.ErrNotExist", err)
				}
			}
			if err := c.Ensure(t.Context(), "r", ref); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(ref.Digest); err != nil {
				t.Errorf("after the next Ensure: %v", err)
			}
		})
	}
}

func TestContentThatStaysWrongIsGivenUp(t *testing.T) {
	ref := ContentRef{Digest: fleet.DigestOf([]byte("right")), Size: 5}
	for reason, answer := range map[string]string{
		"other bytes": "wrong",
		"too many":    "right and more",
	} {
		t.Run(reason, func(t *testing.T) {
			tries := 0
			c := content(t, fetchFunc(func(_ context.Context, _ string, _ ContentRef, offset int64) (io.ReadCloser, error) {
				tries++
				return io.NopCloser(strings.NewReader(answer[offset:])), nil
			}))
			if err := c.Ensure(t.Context(), "r", ref); !errors.Is(err, fleet.ErrDigest) {
				t.Errorf("error %v, want fleet.ErrDigest", err)
			}
			if tries != maxWrong {
				t.Errorf("%d tries, want %d", tries, maxWrong)
			}
			if _, err := c.Read(ref.Digest); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Read: %v", err)
			}
			info, err := os.Stat(c.partial(ref.Digest))
			if err != nil || info.Size() != 0 {
				t.Errorf("of the wrong content %v, %v is left", info, err)
			}
		})
	}
}

// Without a network Ensure waits: tries come ever more seldom, and it ends with ctx and says what was wrong.
func TestEnsureWaitsForTheNetwork(t *testing.T) {
	dir := t.TempDir()
	bucket := openBucket(t, dir)
	synctest.Test(t, func(t *testing.T) {
		unreachable := errors.New("no route to host")
		var times []time.Time
		c := reopen(t, dir, bucket, fetchFunc(func(context.Context, string, ContentRef, int64) (io.ReadCloser, error) {
			times = append(times, time.Now())
			return nil, unreachable
		}))
		c.backOff = jitteredBackOff
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := c.Ensure(ctx, "default/hello", ContentRef{Digest: fleet.DigestOf([]byte("x")), Size: 1})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, unreachable) || !strings.Contains(err.Error(), "default/hello") {
			t.Errorf("error %v, want the deadline and the reason", err)
		}
		if n := len(times); n < 60 || n > 140 {
			t.Errorf("%d tries in an hour, want about one a minute at the end", n)
		}
		for i := 1; i < len(times); i++ {
			if gap := times[i].Sub(times[i-1]); gap < firstBackOff/2 || gap > maxBackOff {
				t.Errorf("try %d came after %s", i, gap)
			}
		}
	})
}

func TestOneDownloadForAllWhoAsk(t *testing.T) {
	data := randomBytes(100_000)
	ref := ContentRef{Digest: fleet.DigestOf(data), Size: int64(len(data))}
	var fetches atomic.Int64
	began, goOn := make(chan struct{}), make(chan struct{})
	c := content(t, fetchFunc(func(context.Context, string, ContentRef, int64) (io.ReadCloser, error) {
		if fetches.Add(1) == 1 {
			close(began)
		}
		<-goOn
		return io.NopCloser(bytes.NewReader(data)), nil
	}))
	first, cancelFirst := context.WithCancel(t.Context())
	firstDone := make(chan error, 1)
	go func() { firstDone <- c.Ensure(first, "a/a", ref) }()
	<-began
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if err := c.Ensure(t.Context(), fmt.Sprintf("a/%d", i%2), ref, ref); err != nil {
				t.Error(err)
			}
		})
	}
	awaitWaiters(c, ref.Digest, 11)
	cancelFirst() // the one who began it leaves: the others still get it
	if err := <-firstDone; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	close(goOn)
	wg.Wait()
	if n := fetches.Load(); n != 1 {
		t.Errorf("%d downloads, want one", n)
	}
	if len(c.flights) != 0 || len(c.slots) != 0 {
		t.Errorf("flights %v and %d slots are left", c.flights, len(c.slots))
	}
}

func TestWhoAsksAfterAllLeftBeginsAgain(t *testing.T) {
	data := []byte("content")
	ref := ContentRef{Digest: fleet.DigestOf(data), Size: int64(len(data))}
	var tries atomic.Int64
	began, ended, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	c := content(t, fetchFunc(func(ctx context.Context, _ string, _ ContentRef, _ int64) (io.ReadCloser, error) {
		if tries.Add(1) == 1 {
			close(began)
			<-ctx.Done()
			close(ended)
			<-release
			return nil, ctx.Err()
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- c.Ensure(ctx, "r", ref) }()
	<-began
	cancel()
	<-ended
	go func() { second <- c.Ensure(t.Context(), "r", ref) }()
	awaitWaiters(c, ref.Digest, 1) // the second meets the download that is ending
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the second: %v", err)
	}
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
}

// awaitWaiters returns once so many wait for a download.
func awaitWaiters(c *ContentDir, d fleet.Digest, want int) {
	for {
		c.mu.Lock()
		f := c.flights[d]
		there := f != nil && f.waiters >= want
		c.mu.Unlock()
		if there {
			return
		}
		runtime.Gosched()
	}
}

func TestOneRepositoryThatRefusesDoesNotBlockAnother(t *testing.T) {
	data := []byte("shared layer")
	ref := ContentRef{Digest: fleet.DigestOf(data), Size: int64(len(data))}
	var once sync.Once
	refused := make(chan struct{})
	c := content(t, fetchFunc(func(_ context.Context, repo string, _ ContentRef, _ int64) (io.ReadCloser, error) {
		if repo == "closed/app" {
			once.Do(func() { close(refused) })
			return nil, errors.New("403")
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Ensure(t.Context(), "closed/app", ref); err != nil {
			t.Error(err)
		}
	})
	<-refused
	if err := c.Ensure(t.Context(), "open/app", ref); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestKeepAndCollect(t *testing.T) {
	src := &source{content: map[fleet.Digest][]byte{}}
	dir := t.TempDir()
	bucket := openBucket(t, dir)
	c := reopen(t, dir, bucket, src)
	var refs []ContentRef
	for i := range 4 {
		refs = append(refs, src.add(fmt.Appendf(nil, "blob %d", i)))
	}
	shared, apps, routes, fresh := refs[0].Digest, refs[1].Digest, refs[2].Digest, refs[3].Digest
	if err := c.Ensure(t.Context(), "r", refs...); err != nil {
		t.Fatal(err)
	}
	there := func(c *ContentDir, want ...fleet.Digest) {
		t.Helper()
		var hex []string
		for _, d := range want {
			hex = append(hex, d.Hex())
		}
		slices.Sort(hex)
		if got := files(t, c.blobDir()); !slices.Equal(got, hex) {
			t.Errorf("blobs are %v, want %v", got, hex)
		}
	}
	keep := func(c *ContentDir, owner string, digests ...fleet.Digest) {
		t.Helper()
		if err := c.Keep(owner, digests); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	keep(c, "apps", shared, apps)
	keep(c, "routes", shared, routes)
	there(c, shared, apps, routes, fresh) // fresh was just brought; its owner had no time to name it

	now = now.Add(2 * contentGrace)
	if err := c.Ensure(t.Context(), "r", refs[3]); err != nil {
		t.Fatal(err)
	}
	keep(c, "apps", apps)
	there(c, shared, apps, routes, fresh) // routes still names what apps gave up
	keep(c, "routes")
	there(c, apps, fresh)

	again := reopen(t, dir, bucket, src) // a restart: only what was named counts
	if err := again.Collect(); err != nil {
		t.Fatal(err)
	}
	there(again, apps)
	keep(again, "apps")
	there(again)
}

func TestOldPartialsAreCollected(t *testing.T) {
	src := &source{content: map[fleet.Digest][]byte{}}
	c := content(t, src)
	now := time.Now()
	want := map[string]time.Time{"young": now.Add(-time.Hour)}
	all := map[string]time.Time{"young": now.Add(-time.Hour), "old": now.Add(-2 * partialAge), "of a clock that ran ahead": now.Add(2 * partialAge)}
	for name, at := range all {
		d := fleet.DigestOf([]byte(name))
		if err := errors.Join(os.WriteFile(c.partial(d), []byte("x"), 0o600), os.Chtimes(c.partial(d), at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(c.partialDir(), "no digest"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Collect(); err != nil {
		t.Fatal(err)
	}
	left := files(t, c.partialDir())
	if len(left) != len(want) || left[0] != fleet.DigestOf([]byte("young")).Hex() {
		t.Errorf("left are %v, want the young one", left)
	}
}

// Many ask, keep and give up at once: what is kept at the end is there.
func TestContentConcurrency(t *testing.T) {
	src := &source{content: map[fleet.Digest][]byte{}, breaks: 1000}
	c := content(t, src)
	var refs []ContentRef
	for i := range 8 {
		refs = append(refs, src.add(bytes.Repeat([]byte{byte(i)}, 3500)))
	}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			owner := fmt.Sprint("owner", w)
			for i := range 20 {
				ref := refs[(w+i)%len(refs)]
				if err := c.Ensure(t.Context(), "r", ref); err != nil {
					t.Error(err)
				}
				if err := c.Keep(owner, []fleet.Digest{ref.Digest}); err != nil {
					t.Error(err)
				}
			}
			last := refs[(w+19)%len(refs)]
			if err := c.Ensure(t.Context(), "r", last); err != nil {
				t.Error(err)
			}
			if _, err := c.Path(last.Digest); err != nil {
				t.Errorf("kept by %s: %v", owner, err)
			}
		})
	}
	wg.Wait()
}

// TestContentSaysThatTheDiskFails: asking the hub again does not mend a disk, so the caller is told, and the
// next Ensure after it was mended works.
func TestContentSaysThatTheDiskFails(t *testing.T) {
	s := &source{content: map[fleet.Digest][]byte{}}
	c := content(t, s)
	ref := s.add([]byte("hello"))
	inTheWay := c.partial(ref.Digest)
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Ensure(t.Context(), "default/hello", ref); !errors.Is(err, ErrDisk) {
		t.Errorf("with a disk that cannot be written: %v", err)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	if err := c.Ensure(t.Context(), "default/hello", ref); err != nil {
		t.Errorf("when the disk is well: %v", err)
	}
}
