package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
)

// sumFile holds the checksums of an entry's files. An entry without it was never finished.
const sumFile = "sums.json"

// cache keeps compiled modules on disk, a directory a module. wazero checks little of what it reads back,
// and would run what a bad disk made of it: an entry is used only when all its files are as they were
// written, and is made anew otherwise. It is safe for concurrent use.
type cache struct {
	dir  string
	most int64

	mu   sync.Mutex
	open map[string]*compilation
}

// compilation is a module's compiled code, shared by all instances that use it.
type compilation struct {
	cache wazero.CompilationCache
	users int
}

// use returns the compilation of a module by its digest, to be compiled into by the caller, who calls saved
// after that and release in the end.
func (c *cache) use(digest string) (wazero.CompilationCache, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.open[digest]; have != nil {
		have.users++
		return have.cache, nil
	}
	dir := filepath.Join(c.dir, digest)
	if err := verifyEntry(dir); err != nil {
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("compiled modules: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("compiled modules: %w", err)
	}
	now := time.Now()
	_ = os.Chtimes(dir, now, now) // what is used last is removed last
	made, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, fmt.Errorf("compiled modules: %w", err)
	}
	c.open[digest] = &compilation{cache: made, users: 1}
	return made, nil
}

// release lets go of a compilation. Its memory is freed with its last user.
func (c *cache) release(digest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := c.open[digest]
	if have.users--; have.users > 0 {
		return
	}
	delete(c.open, digest)
	_ = have.cache.Close(context.Background()) // never fails: it frees memory
}

// saved notes that the module is compiled, and makes room.
func (c *cache) saved(digest string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir := filepath.Join(c.dir, digest)
	sums, err := sumsOf(dir)
	if err != nil {
		return err
	}
	data, err := json.Marshal(sums)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, sumFile+".new")
	if err := writeSynced(tmp, data); err != nil {
		return fmt.Errorf("compiled modules: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, sumFile)); err != nil {
		return fmt.Errorf("compiled modules: %w", err)
	}
	return c.makeRoom()
}

// makeRoom removes the entries that were used longest ago until the rest is within bounds.
func (c *cache) makeRoom() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("compiled modules: %w", err)
	}
	type entry struct {
		name string
		used time.Time
		size int64
	}
	var all []entry
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		size := sizeOf(filepath.Join(c.dir, e.Name()))
		total += size
		all = append(all, entry{e.Name(), info.ModTime(), size})
	}
	slices.SortFunc(all, func(a, b entry) int { return a.used.Compare(b.used) })
	for _, e := range all {
		if total <= c.most {
			return nil
		}
		if c.open[e.name] != nil {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.dir, e.name)); err != nil {
			return fmt.Errorf("compiled modules: %w", err)
		}
		total -= e.size
	}
	return nil
}

var errDamaged = errors.New("entry is damaged")

func verifyEntry(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, sumFile))
	if err != nil {
		return err
	}
	var want map[string]string
	if err := json.Unmarshal(data, &want); err != nil {
		return err
	}
	have, err := sumsOf(dir)
	if err != nil {
		return err
	}
	if len(want) == 0 || !maps.Equal(want, have) {
		return errDamaged
	}
	return nil
}

// sumsOf returns the checksums of an entry's files by their paths.
func sumsOf(dir string) (map[string]string, error) {
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		if name == sumFile || name == sumFile+".new" {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		sums[name] = hex.EncodeToString(h.Sum(nil))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compiled modules: %w", err)
	}
	return sums, nil
}

func sizeOf(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil // what cannot be read counts nothing
	})
	return total
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
