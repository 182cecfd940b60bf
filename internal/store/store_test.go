package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/store"
)

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func bucket(t *testing.T, s *store.Store, name string) *store.Bucket {
	t.Helper()
	b, err := s.Bucket(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type record struct {
	N int `json:"n"`
}

func TestRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "store.db")
	s := open(t, path)
	a, b := bucket(t, s, "a"), bucket(t, s, "b")
	if err := a.Get("k", &record{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a record that is not there was answered with %v", err)
	}
	if err := a.Put("k", record{1}); err != nil {
		t.Fatal(err)
	}
	if err := b.Put("k", record{2}); err != nil {
		t.Fatal(err)
	}
	var got record
	if err := a.Get("k", &got); err != nil || got.N != 1 {
		t.Errorf("a/k = %v, %v: buckets must not meet", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, path)
	a = bucket(t, s, "a")
	if err := a.Get("k", &got); err != nil || got.N != 1 {
		t.Errorf("after opening again a/k = %v, %v", got, err)
	}
	if err := a.Get("k", new(string)); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("a record of another shape was answered with %v", err)
	}
	if err := a.Delete("k"); err != nil {
		t.Fatal(err)
	}
	if err := a.Delete("k"); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	if _, err := a.GetBytes("k"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a deleted record was answered with %v", err)
	}
	if err := a.Update(func(w store.Writer) error { return w.PutBytes("empty", nil) }); err != nil {
		t.Fatal(err)
	}
	if data, err := a.GetBytes("empty"); err != nil || len(data) != 0 {
		t.Errorf("an empty record = %q, %v: it is not a missing one", data, err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "store.db")
	open(t, path)
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
}

func TestGetBytesIsACopy(t *testing.T) {
	b := bucket(t, open(t, filepath.Join(t.TempDir(), "store.db")), "a")
	if err := b.Update(func(w store.Writer) error { return w.PutBytes("k", []byte("abc")) }); err != nil {
		t.Fatal(err)
	}
	data, err := b.GetBytes("k")
	if err != nil {
		t.Fatal(err)
	}
	copy(data, "xyz") // the file's own memory is read-only: this would end the process
	if again, err := b.GetBytes("k"); err != nil || string(again) != "abc" {
		t.Errorf("after changing what was returned: %q, %v", again, err)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	b := bucket(t, open(t, filepath.Join(t.TempDir(), "store.db")), "a")
	if err := b.Put("kept", record{1}); err != nil {
		t.Fatal(err)
	}
	mine := errors.New("mine")
	err := b.Update(func(w store.Writer) error {
		if err := errors.Join(w.Put("new", record{2}), w.Delete("kept")); err != nil {
			return err
		}
		return mine
	})
	if !errors.Is(err, mine) {
		t.Errorf("Update returned %v, want what the function returned", err)
	}
	if err := b.Update(func(w store.Writer) error {
		return errors.Join(w.Delete("kept"), w.Put("bad", func() {}))
	}); err == nil {
		t.Error("a value that is no JSON was stored")
	}
	keys, err := b.Keys()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"kept"}, keys); diff != "" {
		t.Errorf("half of a failed update was stored (-want +got):\n%s", diff)
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	first := open(t, path)
	if _, err := store.Open(path); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("a second Open returned %v, want ErrLocked", err)
	}
	if err := bucket(t, first, "a").Put("k", record{1}); err != nil {
		t.Errorf("the holder cannot write after another tried: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func TestUseAfterClose(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	b := bucket(t, s, "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, keys := b.Keys()
	for what, err := range map[string]error{"Put": b.Put("k", 1), "Get": b.Get("k", new(int)), "Keys": keys} {
		if err == nil {
			t.Errorf("%s of a closed store succeeded", what)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	const writers, records = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			own, err := s.Bucket("own" + strconv.Itoa(w))
			if err != nil {
				t.Error(err)
				return
			}
			shared, err := s.Bucket("shared")
			if err != nil {
				t.Error(err)
				return
			}
			for i := range records {
				key := fmt.Sprintf("%d-%02d", w, i)
				if err := errors.Join(own.Put(key, record{i}), shared.Put(key, record{i})); err != nil {
					t.Error(err)
				}
				var got record
				if err := shared.Get(key, &got); err != nil || got.N != i {
					t.Errorf("%s = %v, %v right after it was put", key, got, err)
				}
			}
		})
	}
	wg.Wait()
	keys, err := bucket(t, s, "shared").Keys()
	if err != nil || len(keys) != writers*records {
		t.Errorf("%d records of %d are there: %v", len(keys), writers*records, err)
	}
}
