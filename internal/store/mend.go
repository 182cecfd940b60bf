package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// Losses are what OpenMended could not keep; the zero value says that nothing was lost.
type Losses struct {
	// Records that were damaged and are gone, as BUCKET/KEY, in order.
	Records []string
	// SetAside is where a file that could not be used was moved, empty when it could. What was readable of
	// it was taken over.
	SetAside string
}

// damagedSuffix ends the name of a file that was set aside; an older one of that name is replaced.
const damagedSuffix = ".damaged"

// OpenMended opens a store like Open, and goes on without what is damaged: records whose checksum does not
// match are removed, and of a file that cannot be used what is readable is taken over into a new one. All
// that a site keeps here it can get again from its hub, or do without, so that a damaged disk must not keep
// it from running. Every record that is read afterwards is as it was stored.
func OpenMended(path string) (*Store, Losses, error) {
	var losses Losses
	s, err := Open(path)
	if errors.Is(err, ErrDamaged) {
		losses.SetAside = path + damagedSuffix
		if s, err = replace(path, losses.SetAside); err != nil {
			return nil, losses, err
		}
	}
	if err != nil {
		return nil, losses, err
	}
	if losses.Records, err = s.dropDamaged(); err != nil {
		return nil, losses, errors.Join(err, s.Close())
	}
	return s, losses, nil
}

// replace moves the file at path aside and makes a new one with what can be read of it.
func replace(path, aside string) (*Store, error) {
	if err := os.Rename(path, aside); err != nil {
		return nil, fmt.Errorf("set damaged store aside: %w", err)
	}
	// Filled under another name: a store that is there is whole.
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("make store anew: %w", err)
	}
	s, err := Open(fresh)
	if err != nil {
		return nil, err
	}
	salvage(aside, s)
	if err := s.Close(); err != nil {
		return nil, fmt.Errorf("make store anew: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, fmt.Errorf("make store anew: %w", err)
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync() // without it the new name may be lost with the power, and all this is done again
		_ = dir.Close()
	}
	return Open(path)
}

// salvage copies what it can. It never fails: less is copied.
func salvage(from string, to *Store) {
	db, err := openFile(from)
	if err != nil {
		return
	}
	defer func() { _ = guard(db.Close) }()
	_ = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
				_ = guard(func() error { return salvageBucket(name, b, to) })
				return nil
			})
		})
	})
}

func salvageBucket(name []byte, from *bbolt.Bucket, to *Store) error {
	b, err := to.Bucket(string(name))
	if err != nil {
		return err
	}
	return from.ForEach(func(k, v []byte) error {
		if data, err := unseal(k, v); err == nil {
			_ = b.Update(func(w Writer) error { return w.PutBytes(string(k), data) })
		}
		return nil
	})
}

// dropDamaged removes every record whose checksum does not match, and returns their names.
func (s *Store) dropDamaged() ([]string, error) {
	lost := map[string][]string{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if _, err := unseal(k, v); err != nil {
					lost[string(name)] = append(lost[string(name)], string(k))
				}
				return nil
			})
		})
	})
	var names []string
	if err == nil && len(lost) > 0 {
		err = s.db.Update(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
				for _, k := range lost[string(name)] {
					names = append(names, string(name)+"/"+k)
					if err := b.Delete([]byte(k)); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	if err != nil {
		return nil, fmt.Errorf("remove damaged records: %w", err)
	}
	return names, nil
}
