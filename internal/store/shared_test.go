package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSharedStoresAreApart lets many stores of one file write the same keys at once: each reads its own.
func TestSharedStoresAreApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shared.db")
	shared, err := OpenShared(path)
	if err != nil {
		t.Fatal(err)
	}
	const n = 20
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			name := fmt.Sprintf("site-%d", i)
			s := shared.Store(name)
			b, err := s.Bucket("agent")
			if err == nil {
				err = b.Put("who", name)
			}
			if err == nil {
				err = s.Close() // leaves the others theirs
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		name := fmt.Sprintf("site-%d", i)
		b, err := shared.Store(name).Bucket("agent")
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := b.Get("who", &got); err != nil || got != name {
			t.Errorf("%s reads %q, %v", name, got, err)
		}
		keys, err := b.Keys()
		if diff := cmp.Diff([]string{"who"}, keys); diff != "" || err != nil {
			t.Errorf("%s: keys (-want +got), %v:\n%s", name, err, diff)
		}
	}
	if err := shared.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenShared(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that is there: %v, want fs.ErrExist", err)
	}
}
