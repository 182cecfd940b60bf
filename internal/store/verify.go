package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"
)

// guard turns a panic of fn into an error that wraps ErrDamaged: bbolt panics on pages that it cannot read,
// and the kernel faults on mapped pages that the file no longer has.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v: %w", r, ErrDamaged)
		}
	}()
	return fn()
}

// openFile opens the file without leaving its lock behind when bbolt panics on what it finds.
func openFile(path string) (*bbolt.DB, error) {
	var db *bbolt.DB
	var file *os.File
	options := &bbolt.Options{
		Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		},
	}
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	if err != nil && file != nil {
		_ = file.Close() // closed already, unless bbolt panicked
	}
	return db, err
}

// verify reads every record and checks that every page has one owner.
func verify(db *bbolt.DB, path string) error {
	return guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			if info.Size() < tx.Size() {
				return fmt.Errorf("the file has %d bytes of %d: %w", info.Size(), tx.Size(), ErrDamaged)
			}
			// Check runs in a goroutine of its own, which guard cannot protect: the walk comes first.
			if err := tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return walk(b) }); err != nil {
				return err
			}
			var first error
			for err := range tx.Check() {
				if first == nil {
					first = fmt.Errorf("%w: %w", err, ErrDamaged)
				}
			}
			return first
		})
	})
}

// walk reads every byte, which faults on what the file does not have. Checksums are
// left to each read: one damaged record must not take the others away.
func walk(b *bbolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			return walk(b.Bucket(k))
		}
		_ = checksum(k, v)
		return nil
	})
}

// sealSize is the length of the checksum that stands before each record: bbolt has none for data.
const sealSize = crc32.Size

// seal returns data with its checksum (CRC-32C, with the key) before it.
func seal(key, data []byte) []byte {
	out := make([]byte, sealSize, sealSize+len(data))
	binary.BigEndian.PutUint32(out, checksum(key, data))
	return append(out, data...)
}

// unseal returns a copy of what was sealed under key.
func unseal(key, sealed []byte) ([]byte, error) {
	if len(sealed) < sealSize || binary.BigEndian.Uint32(sealed) != checksum(key, sealed[sealSize:]) {
		return nil, fmt.Errorf("its checksum does not match: %w", ErrDamaged)
	}
	return append([]byte{}, sealed[sealSize:]...), nil
}

func checksum(key, data []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, key), table, data)
}
