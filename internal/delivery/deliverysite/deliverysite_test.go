package deliverysite

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skerry-dev/skerry/internal/delivery"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// hub is the far end of a link: it counts what is asked of it.
type hub struct {
	mu    sync.Mutex
	blob  []byte
	asked int
	err   error
}

func (h *hub) Fetch(_ context.Context, _ string, _ site.ContentRef, offset int64) (io.ReadCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if h.err != nil {
		return nil, h.err
	}
	return io.NopCloser(bytes.NewReader(h.blob[offset:])), nil
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// disk is a site's content.
type disk struct{ dir string }

func (d disk) Ensure(context.Context, string, ...site.ContentRef) error { return nil }
func (d disk) Read(fleet.Digest) ([]byte, error)                        { return nil, fs.ErrNotExist }
func (d disk) Keep(string, []fleet.Digest) error                        { return nil }
func (d disk) Path(digest fleet.Digest) (string, error) {
	path := filepath.Join(d.dir, digest.Hex())
	_, err := os.Stat(path)
	return path, err
}

// box is a site that takes part.
type box struct {
	name    fleet.SiteName
	key     ed25519.PrivateKey
	hub     *hub
	disk    disk
	fetcher *Fetcher
	module  *Module
}

func newBox(t *testing.T, name fleet.SiteName, blob []byte) *box {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{name: name, key: key, hub: &hub{blob: blob}, disk: disk{t.TempDir()}}
	b.fetcher = NewFetcher(b.hub, time.Now)
	b.module = New(&site.Host{Name: name, Log: slog.New(slog.DiscardHandler), Content: b.disk, Changed: func() {}},
		Options{Key: key, Listen: "127.0.0.1:0", Fetcher: b.fetcher})
	if err := b.module.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.module.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// described is what others are told of the box.
func (b *box) described() delivery.Neighbour {
	return delivery.Neighbour{Site: b.name, Keys: [][]byte{b.key.Public().(ed25519.PublicKey)}, Addresses: b.module.Report().(delivery.Report).Addresses}
}

func (b *box) told(t *testing.T, s delivery.Section) {
	t.Helper()
	body, err := s.Encode()
	if err == nil {
		err = b.module.Apply(t.Context(), body, fleet.Facts{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (b *box) has(t *testing.T, blob []byte) site.ContentRef {
	t.Helper()
	digest := fleet.DigestOf(blob)
	if err := os.WriteFile(filepath.Join(b.disk.dir, digest.Hex()), blob, 0o600); err != nil {
		t.Fatal(err)
	}
	return site.ContentRef{Digest: digest, Size: int64(len(blob))}
}

// awaitHears waits until one box hears another or does not.
func (b *box) awaitHears(t *testing.T, other fleet.SiteName, want bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if got, known := b.module.Hears()[other]; known && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s hears %v, want %s to be %v", b.name, b.module.Hears(), other, want)
		}
		b.module.rulesMoved <- struct{}{} // look now
	}
}

func (b *box) fetch(t *testing.T, ref site.ContentRef, offset int64) (string, error) {
	t.Helper()
	body, err := b.fetcher.Fetch(t.Context(), "default/hello", ref, offset)
	if err != nil {
		return "", err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return string(data), err
}

func TestContentFromANeighbour(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789"), 20_000)
	a, b := newBox(t, "shop-1", blob), newBox(t, "shop-2", blob)
	stranger := newBox(t, "shop-3", blob)
	ref := b.has(t, blob)
	a.told(t, delivery.Section{Neighbours: []delivery.Neighbour{b.described()}})
	b.told(t, delivery.Section{Neighbours: []delivery.Neighbour{a.described()}})
	a.awaitHears(t, "shop-2", true)
	b.awaitHears(t, "shop-1", true)

	if got, err := a.fetch(t, ref, 0); err != nil || got != string(blob) || a.hub.count() != 0 {
		t.Errorf("got %d bytes, %v, and asked the hub %d times", len(got), err, a.hub.count())
	}
	if got, err := a.fetch(t, ref, 1005); err != nil || got != string(blob[1005:]) || a.hub.count() != 0 {
		t.Errorf("the rest: got %d bytes, %v, and asked the hub %d times", len(got), err, a.hub.count())
	}
	other := site.ContentRef{Digest: fleet.DigestOf([]byte("other")), Size: int64(len(blob))}
	if _, err := a.fetch(t, other, 0); err != nil || a.hub.count() != 1 {
		t.Errorf("what no neighbour has: %v, the hub was asked %d times", err, a.hub.count())
	}
	manifest := ref
	manifest.Manifest = true
	if _, err := a.fetch(t, manifest, 0); err != nil || a.hub.count() != 2 {
		t.Errorf("a manifest: %v, the hub was asked %d times", err, a.hub.count())
	}

	// One whom the hub did not name gets nothing, and one that has another's name neither.
	stranger.told(t, delivery.Section{Neighbours: []delivery.Neighbour{b.described()}})
	stranger.awaitHears(t, "shop-2", false)
	if _, err := stranger.module.fetchFrom(t.Context(), b.described(), ref, 0); err == nil {
		t.Error("a stranger was given content")
	}
	impostor := b.described()
	impostor.Addresses = stranger.described().Addresses
	if _, err := a.module.fetchFrom(t.Context(), impostor, ref, 0); err == nil {
		t.Error("content was taken of an impostor")
	}

	// One that is gone is not heard any more, and content comes from the hub.
	if err := b.module.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.awaitHears(t, "shop-2", false)
	if _, err := a.fetch(t, ref, 0); err != nil || a.hub.count() != 3 {
		t.Errorf("with the neighbour gone: %v, the hub was asked %d times", err, a.hub.count())
	}
	a.told(t, delivery.Section{})
	if heard := a.module.Hears(); len(heard) != 0 {
		t.Errorf("without neighbours it hears %v", heard)
	}
}

// TestNeighbourSendsRubbish: the agent asks again when the digest is wrong, and must come to the hub.
func TestNeighbourSendsRubbish(t *testing.T) {
	blob := []byte("as it should be")
	a, b := newBox(t, "shop-1", blob), newBox(t, "shop-2", nil)
	ref := site.ContentRef{Digest: fleet.DigestOf(blob), Size: int64(len(blob))}
	if err := os.WriteFile(filepath.Join(b.disk.dir, ref.Digest.Hex()), []byte("as it should nt"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.told(t, delivery.Section{Neighbours: []delivery.Neighbour{b.described()}})
	b.told(t, delivery.Section{Neighbours: []delivery.Neighbour{a.described()}})
	a.awaitHears(t, "shop-2", true)
	for try := 1; ; try++ {
		got, err := a.fetch(t, ref, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got == string(blob) {
			break
		}
		if try > maxTries {
			t.Fatalf("after %d tries the neighbour is still asked", try)
		}
	}
}

func TestWithoutAnAddressNobodyIsAsked(t *testing.T) {
	f := NewFetcher(&hub{blob: []byte("x")}, time.Now)
	m := New(&site.Host{Log: slog.New(slog.DiscardHandler), Changed: func() {}}, Options{Fetcher: f})
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.Report() != nil || len(m.Hears()) != 0 {
		t.Errorf("it reports %v and hears %v", m.Report(), m.Hears())
	}
	if err := m.Apply(t.Context(), []byte(`{"bytesPerSecond":1}`), fleet.Facts{}); !errors.Is(err, delivery.ErrSection) {
		t.Errorf("rules that cannot be used: %v", err)
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := make([]byte, 600<<10)
		h := &hub{blob: blob}
		f := NewFetcher(h, time.Now)
		f.follow(delivery.Section{BytesPerSecond: 10 << 10})
		start := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				body, err := f.Fetch(t.Context(), "r", site.ContentRef{Size: int64(len(blob))}, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if n, err := io.Copy(io.Discard, body); err != nil || n != int64(len(blob)) {
					t.Errorf("got %d bytes, %v", n, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took < 118*time.Second || took > 122*time.Second {
			t.Errorf("two times 600 KiB at 10 KiB a second took %v, want two minutes", took)
		}
		// Faster in the midst of it.
		start = time.Now()
		go func() {
			time.Sleep(30 * time.Second)
			f.follow(delivery.Section{})
		}()
		body, err := f.Fetch(t.Context(), "r", site.ContentRef{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 29*time.Second || took > 32*time.Second {
			t.Errorf("a bound that was lifted after 30 s held for %v", took)
		}
	})
}

func TestHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A bubble begins at midnight UTC of 2000-01-01.
		h := &hub{blob: make([]byte, 100)}
		known := true
		f := NewFetcher(h, func() time.Time {
			if !known {
				return time.Time{}
			}
			return time.Now()
		})
		changes := 0
		f.onWait = func() { changes++ }
		f.follow(delivery.Section{Hours: []delivery.Window{{From: "02:00", To: "03:00"}}})
		body, err := f.Fetch(t.Context(), "r", site.ContentRef{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if at := time.Now().UTC(); at.Hour() != 2 || at.Minute() > 1 {
			t.Errorf("a download for 2 o'clock began at %v", at)
		}
		if changes != 2 {
			t.Errorf("that it waits, and then does not, was told %d times", changes)
		}
		if _, err := body.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if _, err := body.Read(make([]byte, 10)); err == nil || !strings.Contains(err.Error(), "hours") {
			t.Errorf("a download goes on after its hours: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := f.Fetch(ctx, "r", site.ContentRef{}, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("outside its hours it ends with %v", err)
		}
		if _, waiting := f.isWaiting(); waiting {
			t.Error("nobody waits any more")
		}
		known = false
		ctx, cancel = context.WithTimeout(t.Context(), 48*time.Hour)
		defer cancel()
		if _, err := f.Fetch(ctx, "r", site.ContentRef{}, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while the time is unknown it ends with %v", err)
		}
		go func() {
			time.Sleep(time.Minute)
			f.follow(delivery.Section{})
		}()
		if _, err := f.Fetch(t.Context(), "r", site.ContentRef{}, 0); err != nil {
			t.Errorf("rules without hours: %v", err)
		}
	})
}

func TestAddresses(t *testing.T) {
	if got := addresses(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 7444}); len(got) != 1 || got[0] != "192.0.2.7:7444" {
		t.Errorf("one address is %v", got)
	}
	for _, a := range addresses(&net.TCPAddr{IP: net.IPv4zero, Port: 7444}) {
		if err := delivery.CheckAddress(a); err != nil || strings.HasPrefix(a, "127.") {
			t.Errorf("of all addresses there is %s: %v", a, err)
		}
	}
}
