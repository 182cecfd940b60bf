// Package keyvalue is the key-value storage of an app: a bounded set of keys with values, in a file of its own
// that outlives releases. What Put returned for is on disk.
//
// Only package wasm imports it. Two releases of an app that run beside each other share one open file. Errors
// wrap ErrFull, ErrKey or ErrValue where the caller is at fault, and store.ErrNotFound where there is nothing.
package keyvalue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/skerry-dev/skerry/internal/store"
)

// Bounds of one key and one value.
const (
	MaxKey   = 512
	MaxValue = 1 << 20
)

// Errors of this package.
var (
	ErrFull  = errors.New("the key-value storage is full")
	ErrKey   = fmt.Errorf("a key has 1 to %d bytes, none of them zero", MaxKey)
	ErrValue = fmt.Errorf("a value has at most %d bytes", MaxValue)
)

// Bounds of a storage.
type Bounds struct {
	// Keys is how many there may be, Bytes the sum of all keys and values.
	Keys  int
	Bytes int64
}

// Stores are the open files. It is safe for concurrent use.
type Stores struct {
	mu   sync.Mutex
	open map[string]*shared
}

// NewStores returns a Stores with nothing open.
func NewStores() *Stores { return &Stores{open: map[string]*shared{}} }

// shared is one open file with what is known of it.
type shared struct {
	users  int
	db     *store.Store
	bucket *store.Bucket

	mu    sync.Mutex
	keys  []string // in order
	sizes map[string]int64
	bytes int64
}

// Store is one user's view of a storage. It is safe for concurrent use.
type Store struct {
	stores *Stores
	path   string
	*shared
	bounds Bounds
}

// Open opens the storage at path, making it when there is none. The caller closes it.
func (s *Stores) Open(path string, bounds Bounds) (*Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.open[path]
	if sh == nil {
		var err error
		if sh, err = openShared(path); err != nil {
			return nil, err
		}
		s.open[path] = sh
	}
	sh.users++
	return &Store{stores: s, path: path, shared: sh, bounds: bounds}, nil
}

func openShared(path string) (_ *shared, err error) {
	db, err := store.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	sh := &shared{db: db, sizes: map[string]int64{}}
	if sh.bucket, err = db.Bucket("values"); err != nil {
		return nil, err
	}
	if sh.keys, err = sh.bucket.Keys(); err != nil {
		return nil, err
	}
	for _, key := range sh.keys {
		value, err := sh.bucket.GetBytes(key)
		if err != nil && !errors.Is(err, store.ErrDamaged) {
			return nil, err
		}
		// A damaged value is told when it is asked for, and may be replaced.
		sh.sizes[key] = int64(len(key) + len(value))
		sh.bytes += sh.sizes[key]
	}
	return sh, nil
}

// Close lets go of the storage; its last user closes the file.
func (s *Store) Close() error {
	s.stores.mu.Lock()
	defer s.stores.mu.Unlock()
	if s.users--; s.users > 0 {
		return nil
	}
	delete(s.stores.open, s.path)
	return s.db.Close()
}

func checkKey(key string) error {
	if key == "" || len(key) > MaxKey || strings.Contains(key, "\x00") {
		return ErrKey
	}
	return nil
}

// Get returns the value of key; store.ErrNotFound when there is none.
func (s *Store) Get(key string) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return s.bucket.GetBytes(key)
}

// Put stores value as that of key.
func (s *Store) Put(key string, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return ErrValue
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.sizes[key]
	size := int64(len(key) + len(value))
	if !known && len(s.keys) >= s.bounds.Keys {
		return fmt.Errorf("%d keys: %w", len(s.keys), ErrFull)
	}
	// What makes it smaller is taken even when a new release allows less than there is.
	if s.bytes+size-old > s.bounds.Bytes && size > old {
		return fmt.Errorf("%d of %d bytes: %w", s.bytes, s.bounds.Bytes, ErrFull)
	}
	if err := s.bucket.Update(func(w store.Writer) error { return w.PutBytes(key, value) }); err != nil {
		return err
	}
	if !known {
		at, _ := slices.BinarySearch(s.keys, key)
		s.keys = slices.Insert(s.keys, at, key)
	}
	s.sizes[key] = size
	s.bytes += size - old
	return nil
}

// Delete removes key, if it is there.
func (s *Store) Delete(key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size, known := s.sizes[key]
	if !known {
		return nil
	}
	if err := s.bucket.Delete(key); err != nil {
		return err
	}
	at, _ := slices.BinarySearch(s.keys, key)
	s.keys = slices.Delete(s.keys, at, at+1)
	delete(s.sizes, key)
	s.bytes -= size
	return nil
}

// List returns keys that begin with prefix and come after the given one, in the order of their bytes, as many
// as fit into room bytes when each takes one more than its length.
func (s *Store) List(prefix, after string, room int) (keys []string, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, _ := slices.BinarySearch(s.keys, max(prefix, after))
	for _, key := range s.keys[at:] {
		if !strings.HasPrefix(key, prefix) {
			break
		}
		if key == after {
			continue
		}
		if room -= len(key) + 1; room < 0 {
			return keys, true
		}
		keys = append(keys, key)
	}
	return keys, false
}
