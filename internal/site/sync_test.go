package site_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/wire"
)

func TestSync(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.wantDiary("a site that was told nothing")
		r.tell("A", 1, map[string]string{"apps": "one", "rules": "r"}, true)
		r.wantDiary("the first manifest", "apps = one", "rules = r")
		r.tell("A", 2, map[string]string{"apps": "two", "rules": "r"}, true)
		r.wantDiary("what did not change is not applied again", "apps = two")
		r.hint()
		r.wantDiary("a hint at what is known")
		r.tell("A", 3, map[string]string{"rules": "r"}, true)
		r.wantDiary("a section that is gone", "apps gone")
		if got := r.stored("section/apps"); got != "" {
			r.t.Errorf("a section that is gone is still stored: %q", got)
		}
		r.tell("A", 4, map[string]string{"rules": "r", "later": "x"}, true)
		r.wantDiary("a section of a newer hub, which nobody here knows")
		if got := r.wantReport(); got.Generation != 4 || len(got.Problems) > 0 {
			r.t.Errorf("the report says generation %d, problems %v", got.Generation, got.Problems)
		}
	})
}

// TestOnDiskBeforeApplied looks into the store from within Apply.
func TestOnDiskBeforeApplied(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		check := func(body []byte) error {
			b, err := r.store.Bucket("agent")
			if err != nil {
				return err
			}
			kept, err := b.GetBytes("section/apps")
			if body == nil && errors.Is(err, store.ErrNotFound) {
				err = nil
			}
			var m wire.Manifest
			if err := errors.Join(err, b.Get("manifest", &m)); err != nil {
				t.Errorf("while %q is applied: %v", body, err)
			}
			if string(kept) != string(body) {
				t.Errorf("while %q is applied %q is stored", body, kept)
			}
			if _, ok := m.Sections["apps"]; ok != (body != nil) {
				t.Errorf("while %q is applied the stored manifest is %+v", body, m)
			}
			if rules, err := b.GetBytes("section/rules"); err != nil || string(rules) != "r" {
				t.Errorf("a module hears of a manifest that is stored by halves: %q, %v", rules, err)
			}
			return nil
		}
		r.apps.set(func(m *module) { m.applying = check })
		r.tell("A", 1, map[string]string{"apps": "one", "rules": "r"}, true)
		r.tell("A", 2, map[string]string{"apps": "two", "rules": "r"}, true)
		r.tell("A", 3, map[string]string{"rules": "r"}, true)
		r.wantDiary("three manifests", "apps = one", "rules = r", "apps = two", "apps gone")
	})
}

// TestOfflineStart starts an agent with no network, in order, and connects it later.
func TestOfflineStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.tell("A", 7, map[string]string{"apps": `{"facts":{"name":"shop-1","zone":"north"}}`, "rules": "r"}, true)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		r.diary.read()

		r.make()
		r.bus.SetConnected(false)
		r.run()
		defer r.end()
		r.wantDiary("without the hub everything comes back",
			"start gateway", "start apps", "start rules", "gateway gone", `apps = {"facts":{"name":"shop-1","zone":"north"}}`, "rules = r")
		if diff := cmp.Diff(fleet.Facts{Name: "shop-1", Zone: "north"}, r.rules.facts); diff != "" {
			t.Errorf("facts are unknown without the hub (-want +got):\n%s", diff)
		}
		pass(time.Hour)
		r.wantDiary("an hour without the hub changes nothing")
		r.tell("A", 8, map[string]string{"apps": "eight", "rules": "r"}, false)
		r.connect(true)
		r.wantDiary("the hub is there", "apps = eight")
	})
}

// TestKilledBeforeApply ends an agent after it stored a manifest and before any module heard of it.
func TestKilledBeforeApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.tell("A", 1, map[string]string{"apps": "one", "rules": "r"}, true)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(filepath.Join(r.dir, "store.db"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Bucket("agent")
		if err != nil {
			t.Fatal(err)
		}
		next := manifest("A", 2, map[string]string{"rules": "s"})
		err = b.Update(func(w store.Writer) error {
			return errors.Join(w.Delete("section/apps"), w.PutBytes("section/rules", []byte("s")), w.Put("manifest", next))
		})
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		r.diary.read()
		r.make()
		r.run()
		defer r.end()
		r.wantDiary("what was stored is applied, what was removed is taken away",
			"start gateway", "start apps", "start rules", "gateway gone", "apps gone", "rules = s")
	})
}

func TestOrderOfGenerations(t *testing.T) {
	tests := []struct {
		reason     string
		epoch      string
		generation uint64
		taken      bool
	}{
		{"a higher generation", "A", 6, true},
		{"the same generation says the same", "A", 5, false},
		{"an older generation must never come back", "A", 4, false},
		{"another epoch is newer, whatever its generation", "B", 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.start()
				r.tell("A", 5, map[string]string{"apps": "old"}, true)
				r.diary.read()
				r.tell(tt.epoch, tt.generation, map[string]string{"apps": "new"}, true)
				want := []string{}
				if tt.taken {
					want = append(want, "apps = new")
				}
				r.wantDiary(tt.reason, want...)
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				// Nor after a restart.
				r.diary.read()
				r.start()
				defer r.end()
				body := map[bool]string{true: "new", false: "old"}[tt.taken]
				r.wantDiary(tt.reason+", after a restart", "start gateway", "start apps", "start rules", "gateway gone", "apps = "+body, "rules gone")
			})
		})
	}
}

// TestSectionOfAnotherManifest meets a hub between its two writes: nothing is applied by halves, and the
// rest is taken when it is there, hint or not.
func TestSectionOfAnotherManifest(t *testing.T) {
	for _, hint := range []bool{true, false} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.tell("A", 1, map[string]string{"apps": "one", "rules": "r"}, true)
			r.diary.read()
			bodies := map[string]string{"apps": "two", "rules": "s"}
			r.put("rules", "s")
			r.put("apps", "not two")
			r.manifest(manifest("A", 2, bodies), true)
			r.wantDiary("a section that does not match its digest")
			if got := r.stored("section/rules"); got != "r" {
				t.Errorf("half of a manifest was stored: %q", got)
			}
			if got := r.wantReport(); got.Generation != 1 || !strings.Contains(got.Problems["sync"], "section apps") {
				t.Errorf("the report says generation %d, problems %v", got.Generation, got.Problems)
			}
			r.put("apps", "two")
			if hint {
				r.hint()
			} else {
				pass(4 * time.Second)
			}
			r.wantDiary("the section is there", "apps = two", "rules = s")
			if got := r.wantReport(); got.Generation != 2 || len(got.Problems) > 0 {
				t.Errorf("the report says generation %d, problems %v", got.Generation, got.Problems)
			}
		})
	}
}

func TestManifestThatCannotBeRead(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.tell("A", 1, map[string]string{"apps": "one"}, true)
		r.diary.read()
		r.put(wire.ManifestSection, `{"protocol":2,"hubEpoch":"A","generation":2}`)
		r.hint()
		r.wantDiary("a manifest of a newer protocol")
		if got := r.wantReport(); !strings.Contains(got.Problems["sync"], "upgrade") || got.Generation != 1 {
			t.Errorf("the report says generation %d, problems %v", got.Generation, got.Problems)
		}
		r.tell("A", 3, map[string]string{"apps": "three"}, true)
		r.wantDiary("one that can be read", "apps = three")
	})
}

// TestLostHint changes what is desired without a hint: the site finds it by itself.
func TestLostHint(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.tell("A", 1, map[string]string{"apps": "one"}, false)
		pass(2 * time.Minute)
		r.wantDiary("too early")
		pass(6 * time.Minute)
		r.wantDiary("the recheck", "apps = one")
		r.connect(false)
		r.tell("A", 2, map[string]string{"apps": "two"}, true)
		r.connect(true)
		r.wantDiary("the link is back", "apps = two")
		r.tell("A", 3, map[string]string{"apps": "three"}, true)
		r.wantDiary("hints arrive again", "apps = three")
	})
}

// refusing is a bus that refuses subscriptions to hints for a while.
type refusing struct {
	wire.Bus
	times int
}

func (b *refusing) Subscribe(ctx context.Context, subject string, fn wire.Handler) (func(), error) {
	if subject == wire.HintSubject("shop-1") && b.times > 0 {
		b.times--
		return nil, wire.ErrDisconnected
	}
	return b.Bus.Subscribe(ctx, subject, fn)
}

func TestHintsAreSubscribedAgain(t *testing.T) {
	synctest.Test(t, func(_ *testing.T) {
		r := newRig(t)
		r.wrap = func(b wire.Bus) wire.Bus { return &refusing{Bus: b, times: 2} }
		r.start()
		defer r.end()
		pass(10 * time.Second)
		r.diary.read()
		r.tell("A", 1, map[string]string{"apps": "one"}, true)
		r.wantDiary("a hint after the subscription failed at first", "apps = one")
	})
}

func TestApplyFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.apps.set(func(m *module) { m.applying = func([]byte) error { return errors.New("apps[0]: no such runtime") } })
		r.tell("A", 1, map[string]string{"apps": "bad", "rules": "r"}, true)
		r.wantDiary("one module's error is not another's", "apps = bad", "rules = r")
		if got := r.wantReport(); got.Problems["apps"] != "apps[0]: no such runtime" || got.Generation != 1 {
			t.Errorf("the report says generation %d, problems %v", got.Generation, got.Problems)
		}
		r.apps.set(func(m *module) { m.applying = nil })
		r.tell("A", 2, map[string]string{"apps": "good", "rules": "r"}, true)
		if got := r.wantReport(); len(got.Problems) > 0 {
			t.Errorf("the problem stays: %v", got.Problems)
		}
	})
}

// TestDamagedRecords damages what the agent keeps, one record after the other: it starts, and gets from the
// hub what it lost.
func TestDamagedRecords(t *testing.T) {
	for _, key := range []string{"section/apps", "manifest", "sequence", "epoch"} {
		t.Run(key, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.start()
				r.tell("A", 1, map[string]string{"apps": "one", "rules": "r"}, true)
				before := r.wantReport()
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				damage(t, filepath.Join(r.dir, "store.db"), key)
				r.diary.read()
				r.make()
				r.bus.SetConnected(false)
				r.run()
				defer r.end()
				for _, line := range r.diary.read() {
					if line == "apps gone" {
						t.Error("what is damaged was taken for gone")
					}
				}
				r.connect(true)
				pass(10 * time.Second)
				if r.stored("section/apps") != "one" || r.stored("section/rules") != "r" {
					t.Errorf("sections are %q and %q", r.stored("section/apps"), r.stored("section/rules"))
				}
				after := r.wantReport()
				if !after.Newer(before) || after.Generation != 1 || len(after.Problems) > 0 {
					t.Errorf("report %s/%d after %s/%d, generation %d, problems %v",
						after.Epoch, after.Sequence, before.Epoch, before.Sequence, after.Generation, after.Problems)
				}
			})
		})
	}
}

// damage flips the last bit of a record of the agent in its closed store.
func damage(t *testing.T, path, key string) {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Bucket("agent")
	if err != nil {
		t.Fatal(err)
	}
	body, err := b.GetBytes(key)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// bbolt keeps a record's value right behind its key; four bytes of checksum stand between.
	found := 0
	for i := 0; i+len(key)+4+len(body) <= len(data); i++ {
		if string(data[i:i+len(key)]) == key && string(data[i+len(key)+4:i+len(key)+4+len(body)]) == string(body) {
			data[i+len(key)+4+len(body)-1] ^= 1
			found++
		}
	}
	if found == 0 {
		t.Fatalf("record %s was not found in the file", key)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func wipe(epoch string, generation uint64) wire.Manifest {
	return wire.Manifest{HubEpoch: epoch, Generation: generation, Wipe: true}
}

func TestWipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.tell("A", 1, map[string]string{"apps": "one"}, true)
		r.diary.read()
		r.manifest(wipe("A", 2), true)
		if err := <-r.done; !errors.Is(err, site.ErrWiped) {
			t.Fatalf("Run returned %v, want ErrWiped", err)
		}
		r.wantDiary("a deleted site", "gateway gone", "wipe gateway", "apps gone", "wipe apps", "rules gone", "wipe rules",
			"stop rules", "stop apps", "stop gateway")
		report, err := r.report()
		if err != nil || !report.Wiped || report.Generation != 2 {
			t.Errorf("the last report is %+v, %v", report, err)
		}
		if r.forgotten != 1 {
			t.Errorf("the identity was forgotten %d times", r.forgotten)
		}
		if got := r.stored("section/apps"); got != "" {
			t.Errorf("a section survived: %q", got)
		}
		r.close()

		// The hub sees the site off; the machine joins again, in the same directory.
		if err := r.hub.Purge(context.Background(), wire.DesiredPattern("shop-1")); err != nil {
			t.Fatal(err)
		}
		r.start()
		defer r.end()
		r.diary.read()
		r.tell("A2", 1, map[string]string{"apps": "again"}, true)
		r.wantDiary("a machine that joined again", "apps = again")
		if got := r.wantReport(); got.Wiped || got.Generation != 1 {
			t.Errorf("it still reports that it is wiped: %+v", got)
		}
	})
}

// TestWipeGoesOn fails or ends in the middle of a wipe, which must not be forgotten.
func TestWipeGoesOn(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.start()
			r.tell("A", 1, map[string]string{"apps": "one"}, true)
			busy := errors.New("directory is busy")
			r.apps.set(func(m *module) { m.wiping = func() error { return busy } })
			r.manifest(wipe("A", 2), true)
			if got := r.wantReport(); got.Wiped || !strings.Contains(got.Problems["sync"], "busy") {
				t.Errorf("after a wipe that failed the report is %+v", got)
			}
			if r.forgotten > 0 {
				t.Error("the identity was forgotten before everything was removed")
			}
			if restart {
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				r.start()
			} else {
				r.apps.set(func(m *module) { m.wiping = nil })
			}
			pass(10 * time.Second)
			select {
			case err := <-r.done:
				if !errors.Is(err, site.ErrWiped) {
					t.Errorf("Run returned %v", err)
				}
			default:
				t.Error("the wipe was given up")
				r.cancel()
				<-r.done
			}
			r.close()
			r.hub.Close()
		})
	}
}

// TestWipeWithoutWord loses the network between the wipe and its report.
func TestWipeWithoutWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.apps.set(func(m *module) { m.wiping = func() error { r.bus.SetConnected(false); return nil } })
		r.manifest(wipe("A", 1), true)
		if err := <-r.done; !errors.Is(err, site.ErrWiped) {
			t.Errorf("Run returned %v", err)
		}
		if r.forgotten != 1 {
			t.Errorf("the identity was forgotten %d times", r.forgotten)
		}
		r.close()
		r.hub.Close()
	})
}
