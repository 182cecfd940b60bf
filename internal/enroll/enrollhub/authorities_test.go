package enrollhub

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/enroll"
)

func openAuthority(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := OpenAuthority(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// states names the authorities by the order in which they were made.
func states(t *testing.T, a *Authority, made ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, one := range a.List() {
		name := "?"
		for i, digest := range made {
			if digest == one.Digest {
				name = string(rune('A' + i))
			}
		}
		out[name] = one.State
	}
	return out
}

// TestRotationOnDisk takes each step and starts the hub anew after it.
func TestRotationOnDisk(t *testing.T) {
	dir := t.TempDir()
	a := openAuthority(t, dir)
	first := a.List()[0].Digest
	if err := errors.Join(a.Use(), a.Drop()); !errors.Is(err, ErrAuthority) || len(a.List()) != 1 {
		t.Fatalf("nothing to use or drop: %v", err)
	}
	if err := a.Add(); err != nil {
		t.Fatal(err)
	}
	second := a.List()[1].Digest
	check := func(when string, want map[string]string) {
		t.Helper()
		for what, a := range map[string]*Authority{"running": a, "started anew": openAuthority(t, dir)} {
			if diff := cmp.Diff(want, states(t, a, first, second)); diff != "" {
				t.Errorf("%s, %s: -want +got:\n%s", when, what, diff)
			}
		}
	}
	check("added", map[string]string{"A": enroll.AuthorityInUse, "B": enroll.AuthorityNext})
	if err := a.Add(); !errors.Is(err, ErrAuthority) {
		t.Errorf("a third: %v", err)
	}
	if err := a.Use(); err != nil {
		t.Fatal(err)
	}
	check("used", map[string]string{"A": enroll.AuthorityPrevious, "B": enroll.AuthorityInUse})
	if err := a.Add(); !errors.Is(err, ErrAuthority) {
		t.Errorf("a third while the first is trusted: %v", err)
	}
	if err := a.Drop(); err != nil {
		t.Fatal(err)
	}
	check("dropped", map[string]string{"B": enroll.AuthorityInUse})
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("%d files are left: %v", len(files), err)
	}
	if err := errors.Join(a.Add(), a.Drop()); err != nil {
		t.Errorf("a next one that is not wanted after all: %v", err)
	}
	check("added and dropped", map[string]string{"B": enroll.AuthorityInUse})
}

// TestUseInterrupted cuts the power before the rename that decides.
func TestUseInterrupted(t *testing.T) {
	dir := t.TempDir()
	a := openAuthority(t, dir)
	first := a.List()[0].Digest
	if err := a.Add(); err != nil {
		t.Fatal(err)
	}
	second := a.List()[1].Digest
	if err := a.current.write(filepath.Join(dir, previousFile)); err != nil {
		t.Fatal(err)
	}
	a = openAuthority(t, dir)
	want := map[string]string{"A": enroll.AuthorityInUse, "B": enroll.AuthorityNext}
	if diff := cmp.Diff(want, states(t, a, first, second)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := a.Use(); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{"A": enroll.AuthorityPrevious, "B": enroll.AuthorityInUse}
	if diff := cmp.Diff(want, states(t, openAuthority(t, dir), first, second)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDamagedAuthority(t *testing.T) {
	for _, file := range []string{inUseFile, nextFile, previousFile} {
		dir := t.TempDir()
		openAuthority(t, dir)
		if err := os.WriteFile(filepath.Join(dir, file), []byte("lost"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(dir, time.Now); err == nil {
			t.Errorf("a damaged %s is taken", file)
		}
	}
}
