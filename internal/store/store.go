// Package store is the one file in which a site keeps what it must not forget: its identity, the newest
// manifest and sections, and each module's own records.
//
// It wraps bbolt, belongs to the kernel, and is used at sites alone. Every write is on disk when the
// call returns. A file that another process holds is answered with ErrLocked; one that is damaged with an
// error that wraps ErrDamaged.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Errors of this package.
var (
	ErrLocked   = errors.New("store is in use by another process")
	ErrDamaged  = errors.New("store is damaged")
	ErrNotFound = errors.New("no such record")
)

// lockTimeout is how long Open waits for another process to let go of the file: an agent that was just
// killed lets go at once, so a longer wait only hides a second agent.
const lockTimeout = 2 * time.Second

// Store is an open file. It is safe for concurrent use.
type Store struct {
	db *bbolt.DB
	// prefix stands before the names of the buckets of one store of a Shared.
	prefix string
}

// Open opens the file at path, making it (mode 0600) and its directory when there is none, and reads all of
// it once: a file that was cut or whose pages are damaged is found here, not later in the middle of work. It
// leaves a damaged file as it is. A single record that is damaged is found when it is read.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of store: %w", err)
	}
	db, err := openFile(path)
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: %w", path, ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("open %s: %w: %w", path, err, ErrDamaged)
	case err != nil:
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if err := verify(db, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
}

// Close closes the file after what is under way.
func (s *Store) Close() error {
	if s.prefix != "" {
		return nil // the file is that of a Shared
	}
	return s.db.Close()
}

// Bucket returns the part of the store that belongs to name, making it when there is none.
func (s *Store) Bucket(name string) (*Bucket, error) {
	full := []byte(s.prefix + name)
	err := s.db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(full)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make bucket %q: %w", name, err)
	}
	return &Bucket{db: s.db, name: full}, nil
}

// Bucket is one owner's part of a store. It is safe for concurrent use.
type Bucket struct {
	db   *bbolt.DB
	name []byte
}

// Get decodes the record of key, in JSON, into v; ErrNotFound when there is none.
func (b *Bucket) Get(key string, v any) error {
	data, err := b.GetBytes(key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("record %s/%s: %w: %w", b.name, key, err, ErrDamaged)
	}
	return nil
}

// GetBytes returns a copy of the record of key; ErrNotFound when there is none, ErrDamaged when it is not
// what was stored.
func (b *Bucket) GetBytes(key string) ([]byte, error) {
	var out []byte
	err := b.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(b.name).Get([]byte(key)); v != nil {
			var err error
			out, err = unseal([]byte(key), v)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read record %s/%s: %w", b.name, key, err)
	}
	if out == nil {
		return nil, fmt.Errorf("record %s/%s: %w", b.name, key, ErrNotFound)
	}
	return out, nil
}

// Put stores v, in JSON, as the record of key.
func (b *Bucket) Put(key string, v any) error {
	return b.Update(func(w Writer) error { return w.Put(key, v) })
}

// Delete removes the record of key, if there is one.
func (b *Bucket) Delete(key string) error {
	return b.Update(func(w Writer) error { return w.Delete(key) })
}

// Keys returns all keys in order.
func (b *Bucket) Keys() ([]string, error) {
	var keys []string
	err := b.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(b.name).ForEach(func(k, _ []byte) error {
			keys = append(keys, string(k))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list records of %s: %w", b.name, err)
	}
	return keys, nil
}

// Update runs fn and stores everything it wrote at once, or nothing when it returns an error.
func (b *Bucket) Update(fn func(Writer) error) error {
	err := b.db.Update(func(tx *bbolt.Tx) error { return fn(Writer{tx.Bucket(b.name)}) })
	if err != nil {
		return fmt.Errorf("write records of %s: %w", b.name, err)
	}
	return nil
}

// Writer writes records within one Update. It must not be used after.
type Writer struct{ bucket *bbolt.Bucket }

// Put stores v, in JSON, as the record of key.
func (w Writer) Put(key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", key, err)
	}
	return w.PutBytes(key, data)
}

// PutBytes stores data as the record of key.
func (w Writer) PutBytes(key string, data []byte) error {
	return w.bucket.Put([]byte(key), seal([]byte(key), data))
}

// Delete removes the record of key, if there is one.
func (w Writer) Delete(key string) error { return w.bucket.Delete([]byte(key)) }
