package ociregistry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/skerry-dev/skerry/internal/fleet"
)

const day = 24 * time.Hour

func noTags(Tag) bool { return false }

func (s *server) push(ref string, idx v1.ImageIndex) fleet.Digest {
	s.t.Helper()
	if err := remote.WriteIndex(s.ref(ref), idx); err != nil {
		s.t.Fatal(err)
	}
	return indexDigest(s.t, idx)
}

func (s *server) collect(keep Keep) Stats {
	s.t.Helper()
	stats, err := s.Collect(context.Background(), keep, day)
	if err != nil {
		s.t.Fatal(err)
	}
	return stats
}

// whole reports whether all of an index is still served.
func (s *server) whole(ref string) bool {
	s.t.Helper()
	idx, err := remote.Index(s.ref(ref))
	return err == nil && validate.Index(idx) == nil
}

func (s *server) blobs() int {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, blobDir))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(entries)
}

func TestCollectRules(t *testing.T) {
	s := serve(t, Options{})
	live := s.push("default/hello:1.0.0", testIndex(t))
	gone := s.push("default/hello:0.9.0", testIndex(t))
	kept := s.push("default/other:1.0.0", testIndex(t))
	loose := s.pushBlob("default/loose", []byte("nothing names this"))

	if stats := s.collect(Keep{Tag: noTags}); stats.Blobs != 0 || stats.Tags != 0 || stats.Links != 0 {
		t.Fatalf("within the grace period %+v was removed", stats)
	}
	s.clock.add(2 * day)
	young := s.push("default/hello:1.1.0", testIndex(t))
	if stats := s.collect(Keep{}); stats.Tags != 0 || stats.Blobs != 1 {
		t.Errorf("with all tags kept %+v was removed, want the one loose blob", stats)
	}
	if _, err := s.ReadBlob("default/loose", loose, 100); err == nil {
		t.Error("the loose blob is still there")
	}
	stats := s.collect(Keep{
		Live: []fleet.Digest{live},
		Tag: func(tag Tag) bool {
			return tag.Repository == "default/other" && tag.Digest == kept && !tag.Pushed.IsZero()
		},
	})
	if stats.Tags != 2 || stats.Blobs != 9 || stats.Bytes < 4*70_000 {
		t.Errorf("removed %+v, want two tags and the nine blobs of one index", stats)
	}
	for ref, want := range map[string]bool{
		"default/hello@" + string(live):  true,  // a release names it, though its tag went
		"default/hello@" + string(gone):  false, // nothing does
		"default/other:1.0.0":            true,  // its tag is kept
		"default/hello@" + string(young): true,  // young, tag and all
		"default/hello:1.1.0":            true,
		"default/hello:1.0.0":            false,
	} {
		if got := s.whole(ref); got != want {
			t.Errorf("%s is served: %v, want %v", ref, got, want)
		}
	}
	if again := s.collect(Keep{Live: []fleet.Digest{live}}); again.Blobs != 0 || again.Links != 0 || again.Kept != s.blobs() {
		t.Errorf("a second run removed %+v", again)
	}
}

func TestCollectKeepsReferrers(t *testing.T) {
	s := serve(t, Options{})
	idx := testIndex(t)
	live := s.push("default/hello:1.0.0", idx)
	desc, err := partial.Descriptor(idx)
	if err != nil {
		t.Fatal(err)
	}
	sbom := attach(t, *desc, "application/vnd.example.sbom")
	d, err := sbom.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(s.ref("default/hello@"+d.String()), sbom); err != nil {
		t.Fatal(err)
	}
	s.clock.add(2 * day)
	s.collect(Keep{Live: []fleet.Digest{live}, Tag: noTags})
	if _, err := remote.Image(s.ref("default/hello@" + d.String())); err != nil {
		t.Errorf("the SBOM of live content is gone: %v", err)
	}
	s.clock.add(2 * day)
	s.collect(Keep{Tag: noTags})
	if n := s.blobs(); n != 0 {
		t.Errorf("%d blobs are left when nothing is live", n)
	}
	entries, err := s.disk.list(linkPath("default/hello", referrerLinks, live.Hex()))
	if err != nil || len(entries) != 0 {
		t.Errorf("referrers of what is gone: %v, %v", entries, err)
	}
}

// What a client was told is here must stay until it had time to name it.
func TestCollectSparesWhatAClientWasToldIsHere(t *testing.T) {
	for name, touch := range map[string]func(*server, fleet.Digest, fleet.Digest) error{
		"HEAD of a blob": func(s *server, _, blob fleet.Digest) error {
			s.want(http.StatusOK, "", "HEAD", "/v2/default/hello/blobs/"+string(blob), nil)
			return nil
		},
		"HEAD of a manifest": func(s *server, root, _ fleet.Digest) error {
			s.want(http.StatusOK, "", "HEAD", "/v2/default/hello/manifests/"+string(root), nil)
			return nil
		},
		"Resolve": func(s *server, root, _ fleet.Digest) error {
			_, err := s.Resolve("default/hello", string(root))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Options{})
			idx := testIndex(t)
			root := s.push("default/hello:1.0.0", idx)
			blob := layersOf(t, idx)[0]
			s.clock.add(2 * day)
			if err := touch(s, root, blob); err != nil {
				t.Fatal(err)
			}
			s.collect(Keep{Tag: noTags})
			if _, err := s.ReadBlob("default/hello", blob, 1<<20); err != nil {
				t.Errorf("the blob is gone: %v", err)
			}
		})
	}
}

func TestCollectRemovesNothingWhenWhatIsNeededCannotBeTold(t *testing.T) {
	s := serve(t, Options{})
	idx := testIndex(t)
	live := s.push("default/hello:1.0.0", idx)
	manifest := layersOf(t, idx)[3] // config, layers, then the manifest that names them
	before := s.blobs()
	// A hub that has just started remembers no closure.
	r, err := Open(s.dir, Options{Now: s.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.clock.add(2 * day)
	spoil(t, filepath.Join(s.dir, blobPath(manifest)))
	for range 2 { // the second time it is known from the quarantine
		stats, err := r.Collect(context.Background(), Keep{Live: []fleet.Digest{live}}, day)
		if err == nil || stats != (Stats{}) {
			t.Errorf("Collect = %+v, %v; want nothing and an error", stats, err)
		}
	}
	if n := s.blobs(); n != before-1 {
		t.Errorf("%d blobs are left, want %d", n, before-1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Collect(ctx, Keep{}, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled Collect: %v", err)
	}
}

// Old content that nothing names is collected over and over, while clients push indexes that reuse it.
func TestCollectDuringPushes(t *testing.T) {
	s := serve(t, Options{})
	base, err := random.Image(5000, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(s.ref("default/base:1"), base); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var collector, pushers sync.WaitGroup
	collector.Go(func() {
		for ctx.Err() == nil {
			s.clock.add(time.Minute)
			// The grace period is far longer than a push takes by this clock, far shorter than the test.
			if _, err := s.Collect(ctx, Keep{Tag: func(tag Tag) bool { return tag.Name != "1" }}, 30*time.Minute); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for p := range 3 {
		pushers.Go(func() {
			for i := range 8 {
				img, err := mutate.Config(base, v1.Config{Env: []string{fmt.Sprint(p, i)}})
				if err != nil {
					t.Error(err)
					return
				}
				idx := mutate.AppendManifests(mutate.IndexMediaType(emptyIndex(t), types.OCIImageIndex), mutate.IndexAddendum{Add: img})
				ref := fmt.Sprintf("default/base:v%d-%d", p, i)
				if err := remote.WriteIndex(s.ref(ref), idx); err != nil {
					t.Errorf("push %s: %v", ref, err)
				} else if !s.whole(ref) {
					t.Errorf("%s is not whole", ref)
				}
			}
		})
	}
	pushers.Wait()
	cancel()
	collector.Wait()
	for p := range 3 {
		for i := range 8 {
			if ref := fmt.Sprintf("default/base:v%d-%d", p, i); !s.whole(ref) {
				t.Errorf("%s is not whole at the end", ref)
			}
		}
	}
}

func emptyIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	idx, err := random.Index(1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	return idx
}
