package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// Shared is one file with the stores of many sites of one process, and nothing of it survives a crash: it is
// never synced. It is for measuring how many sites a hub holds, where a file and a sync for each would measure
// this machine's disk; no program uses it. It is safe for concurrent use.
type Shared struct{ db *bbolt.DB }

// OpenShared makes the file at path (mode 0600); one that is there is an error.
func OpenShared(path string) (*Shared, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of shared store: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make shared store: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoSync: true, NoGrowSync: true, NoFreelistSync: true,
	})
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("make shared store %s: %w", path, err)
	}
	return &Shared{db: db}, nil
}

// Store returns the store of one site: what it keeps is apart from that of every other name. Closing it does
// nothing. The name must not be empty nor hold a slash.
func (s *Shared) Store(name string) *Store { return &Store{db: s.db, prefix: name + "/"} }

// Close closes the file; no store of it may be used after.
func (s *Shared) Close() error { return s.db.Close() }
