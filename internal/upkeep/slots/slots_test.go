package slots

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const installed = "/usr/local/bin/skerry-site"

func program(t *testing.T, content string) (path, digest string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(content))
	return path, hex.EncodeToString(sum[:])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask stages a program and asks for its trial.
func ask(t *testing.T, s *Slots, content string, attempts int) {
	t.Helper()
	path, digest := program(t, content)
	slot, err := s.Stage(path, digest)
	must(t, err)
	must(t, s.Begin(Record{ID: content, Version: content, Digest: digest, To: slot, Attempts: attempts, DeadlineSeconds: 1}))
}

// runs is the content of the program that would be started.
func runs(t *testing.T, s *Slots) (content string, trial bool) {
	t.Helper()
	path, _, trial, err := s.Next(installed)
	must(t, err)
	if path == installed {
		return "installed", trial
	}
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data), trial
}

func want(t *testing.T, s *Slots, when, content string, trial bool) {
	t.Helper()
	if got, tried := runs(t, s); got != content || tried != trial {
		t.Errorf("%s: %s runs, tried %v; want %s, %v", when, got, tried, content, trial)
	}
}

func TestUpgrades(t *testing.T) {
	dir := t.TempDir()
	s := Open(dir)
	want(t, s, "at first", "installed", false)
	ask(t, s, "v1", 2)
	want(t, s, "asked for", "v1", true)
	if _, err := s.Stage(installed, "x"); !errors.Is(err, ErrTrial) {
		t.Errorf("a slot is written during a trial: %v", err)
	}
	if err := s.Begin(Record{To: slotB, Attempts: 1}); !errors.Is(err, ErrTrial) {
		t.Errorf("a second trial: %v", err)
	}
	must(t, s.Confirm())
	want(t, s, "confirmed", "v1", false)
	ask(t, s, "v2", 2)
	want(t, s, "asked for", "v2", true)
	must(t, s.Fail("it hangs"))
	want(t, Open(dir), "failed", "v1", false)
	if r, ok, err := s.Record(); err != nil || !ok || r.State != Failed || r.Reason != "it hangs" || r.ID != "v2" {
		t.Errorf("what is known of it: %+v, %v, %v", r, ok, err)
	}
	ask(t, s, "v3", 2)
	want(t, s, "the next", "v3", true)
	want(t, Open(dir), "after a power cut in its trial", "v3", true)
	want(t, Open(dir), "after as many as it had attempts", "v1", false)
	must(t, s.Refuse(Record{ID: "v4", Version: "v4"}, "exec format error"))
	want(t, s, "one that was never tried", "v1", false)
	must(t, Reset(dir))
	want(t, Open(dir), "the installed one is new", "installed", false)
	if err := Reset(t.TempDir()); err != nil {
		t.Errorf("nothing to forget: %v", err)
	}
}

func TestBackToTheInstalledOne(t *testing.T) {
	s := Open(t.TempDir())
	ask(t, s, "v1", 1)
	want(t, s, "asked for", "v1", true)
	must(t, s.Fail("no"))
	want(t, s, "failed", "installed", false)
}

func TestStageRefuses(t *testing.T) {
	s := Open(t.TempDir())
	path, _ := program(t, "v1")
	if _, err := s.Stage(path, "00"); !errors.Is(err, ErrDigest) {
		t.Errorf("another digest: %v", err)
	}
	if _, err := os.Stat(s.Path(slotA)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is kept: %v", err)
	}
	if _, err := s.Stage(filepath.Join(t.TempDir(), "none"), "00"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
}

// TestDamage: what a disk may lose must not stop a site.
func TestDamage(t *testing.T) {
	for reason, damage := range map[string]func(s *Slots) error{
		"the record is cut short": func(s *Slots) error { return os.WriteFile(filepath.Join(s.dir, recordName), []byte("{"), 0o600) },
		"the record names no slot": func(s *Slots) error {
			return os.WriteFile(filepath.Join(s.dir, recordName), []byte(`{"to":"../x"}`), 0o600)
		},
		"the record is gone":      func(s *Slots) error { return os.Remove(filepath.Join(s.dir, recordName)) },
		"the program was damaged": func(s *Slots) error { return os.WriteFile(s.Path(slotB), []byte("lost"), 0o755) },
		"the program is gone":     func(s *Slots) error { return os.Remove(s.Path(slotB)) },
		"the link leads elsewhere": func(s *Slots) error {
			return errors.Join(os.Remove(filepath.Join(s.dir, linkName)), os.Symlink("/bin/sh", filepath.Join(s.dir, linkName)))
		},
	} {
		s := Open(t.TempDir())
		ask(t, s, "v1", 2)
		want(t, s, "tried", "v1", true)
		must(t, s.Confirm())
		ask(t, s, "v2", 2)
		must(t, damage(s))
		got, _ := runs(t, s)
		if allowed := map[bool][]string{true: {"v2", "installed"}, false: {"v1"}}[reason == "the link leads elsewhere"]; !slices.Contains(allowed, got) {
			t.Errorf("%s: %s runs, want one of %v", reason, got, allowed)
		}
	}
}

// crash is what a step panics with in the place of a power cut.
type crash struct{ step string }

// untilStep runs fn and cuts the power before the step of that number; it returns the step, empty when fn ended.
func untilStep(s *Slots, n int, fn func() error) (step string, err error) {
	taken := 0
	s.step = func(name string) {
		if taken++; taken > n {
			panic(crash{name})
		}
	}
	defer func() {
		if c, ok := recover().(crash); ok {
			step = c.step
		}
	}()
	return "", fn()
}

// TestPowerCuts cuts the power at every step of an upgrade that succeeds, and of one that fails, and starts again: one of
// the two programs runs whole, and in the end the right one.
func TestPowerCuts(t *testing.T) {
	for _, succeeds := range []bool{true, false} {
		seen := map[string]bool{}
		for n := 0; ; n++ {
			dir := t.TempDir()
			s := Open(dir)
			ask(t, s, "v1", 1)
			want(t, s, "v1 is tried", "v1", true)
			must(t, s.Confirm())
			path, digest := program(t, "v2")
			upgrade := func(s *Slots) error {
				slot, err := s.Stage(path, digest)
				if err == nil {
					err = s.Begin(Record{ID: "v2", Version: "v2", Digest: digest, To: slot, Attempts: 3})
				}
				if err == nil {
					_, _, _, err = s.Next(installed)
				}
				if err == nil && succeeds {
					return s.Confirm()
				}
				if err == nil {
					err = s.Fail("bad")
				}
				return err
			}
			step, err := untilStep(s, n, func() error { return upgrade(s) })
			must(t, err)
			if step == "" {
				break
			}
			seen[step] = true
			// The machine starts again.
			s = Open(dir)
			got, trial := runs(t, s)
			if got != "v1" && got != "v2" || trial && got != "v2" {
				t.Fatalf("cut before %q: %s runs, tried %v", step, got, trial)
			}
			record, ok, err := s.Record()
			must(t, err)
			if got == "v2" && (!ok || record.State == Failed) || ok && record.ID == "v2" && record.State == Failed && got != "v1" {
				t.Fatalf("cut before %q: %s runs and the record says %+v", step, got, record)
			}
			// What is left of it goes on to its end.
			if !trial && got == "v1" && (!ok || record.ID != "v2") {
				must(t, upgrade(s))
			} else if trial && succeeds {
				must(t, s.Confirm())
			} else if trial {
				must(t, s.Fail("bad"))
			}
			want(t, Open(dir), fmt.Sprintf("cut before %q, succeeds %v, in the end", step, succeeds), map[bool]string{true: "v2", false: "v1"}[succeeds], false)
		}
		steps := []string{"attempt", "begin", "rename b", "rename upgrade.json", "stage", "switch", map[bool]string{true: "confirm", false: "fail"}[succeeds]}
		if !succeeds {
			steps = append(steps, "return")
		}
		slices.Sort(steps)
		var got []string
		for step := range seen {
			got = append(got, step)
		}
		slices.Sort(got)
		if diff := cmp.Diff(steps, got); diff != "" {
			t.Errorf("the power was cut at other steps (-want +got):\n%s", diff)
		}
	}
}
