// Package unpacked keeps the unpacked files of bundles at a site, one directory a platform manifest, and makes
// sure that they are just what was unpacked from a verified layer.
//
// The site half of apps imports it. What a directory holds is on record: one that was changed, cut short by a
// crash, or claimed by nobody is made anew or removed. An archive that is not as it must be is an error that
// wraps app.ErrBundle.
package unpacked

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

// errTree says that an unpacked tree is not what was unpacked.
var errTree = errors.New("unpacked files were changed")

// treeKey is the prefix of records of unpacked trees; a tree without one is rubbish.
const treeKey = "tree/"

// Trees are the unpacked bundles of a site. Apps share them. It is safe for concurrent use; one tree is
// unpacked at a time, which bounds what a small machine does at once.
type Trees struct {
	dir    string
	bucket *store.Bucket

	unpacking sync.Mutex
	mu        sync.Mutex
	// users says who needs a tree, by its name.
	users map[string]map[fleet.AppKey]bool
}

// New returns the trees below dir, on record in bucket, which may hold other records too.
func New(dir string, bucket *store.Bucket) *Trees {
	return &Trees{dir: dir, bucket: bucket, users: map[string]map[fleet.AppKey]bool{}}
}

func (t *Trees) path(manifest fleet.Digest) string { return filepath.Join(t.dir, manifest.Hex()) }

// Claim sets which trees the app needs. What it needed before and nobody needs now is removed.
func (t *Trees) Claim(key fleet.AppKey, manifests ...fleet.Digest) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []string
	for name, users := range t.users {
		if delete(users, key); len(users) == 0 {
			gone = append(gone, name)
		}
	}
	for _, m := range manifests {
		if t.users[m.Hex()] == nil {
			t.users[m.Hex()] = map[fleet.AppKey]bool{}
		}
		t.users[m.Hex()][key] = true
	}
	var errs []error
	for _, name := range gone {
		if len(t.users[name]) == 0 {
			delete(t.users, name)
			errs = append(errs, t.remove(name))
		}
	}
	return errors.Join(errs...)
}

// Sweep removes every directory that nobody claimed. It is called once, after the first claims.
func (t *Trees) Sweep() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries, err := os.ReadDir(t.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list unpacked bundles: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if t.users[e.Name()] == nil {
			errs = append(errs, t.remove(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// remove forgets the tree before it removes the files, so that half a tree is never trusted.
func (t *Trees) remove(name string) error {
	if err := t.bucket.Delete(treeKey + name); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(t.dir, name)); err != nil {
		return fmt.Errorf("remove unpacked bundle: %w", err)
	}
	return nil
}

// Ensure returns the directory of a tree that is just what the layer holds: one that is there and
// verified, or else unpacked anew. open yields the layer's verified file; it may wait for the network, so
// no lock is held meanwhile: other apps come back without.
func (t *Trees) Ensure(manifest fleet.Digest, open func() (io.ReadCloser, error)) (string, error) {
	dir := t.path(manifest)
	if ok, err := t.sound(manifest); ok || err != nil {
		return dir, err
	}
	layer, err := open()
	if err != nil {
		return "", err
	}
	defer layer.Close()
	t.unpacking.Lock()
	defer t.unpacking.Unlock()
	if ok, err := t.sound(manifest); ok || err != nil { // another app unpacked it meanwhile
		return dir, err
	}
	if err := t.remove(manifest.Hex()); err != nil {
		return "", err
	}
	return dir, t.unpack(manifest, dir, layer)
}

// sound reports whether the tree is there and unchanged.
func (t *Trees) sound(manifest fleet.Digest) (bool, error) {
	var want fileList
	err := t.bucket.Get(treeKey+manifest.Hex(), &want)
	if err == nil {
		err = want.verify(t.path(manifest))
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) || errors.Is(err, errTree) {
		return false, nil
	}
	return err == nil, err
}

func (t *Trees) unpack(manifest fleet.Digest, dir string, layer io.Reader) error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return fmt.Errorf("make directory of bundles: %w", err)
	}
	tmp, err := os.MkdirTemp(t.dir, "unpacking-")
	if err != nil {
		return fmt.Errorf("make directory of bundle: %w", err)
	}
	defer os.RemoveAll(tmp)
	files, err := unpack(layer, tmp, bounds{files: app.MaxFiles, bytes: app.MaxUnpackedBytes})
	if err != nil {
		return err
	}
	if err := os.Chmod(tmp, modeDir); err != nil {
		return fmt.Errorf("open directory of bundle to apps: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("put bundle in its place: %w", err)
	}
	if err := syncDir(t.dir); err != nil {
		return err
	}
	return t.bucket.Put(treeKey+manifest.Hex(), files)
}

// verify reports with errTree whether dir differs from the list in any file, mode or name.
func (l fileList) verify(dir string) error {
	seen := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("%w: %w", err, errTree)
		}
		if e.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		want, ok := l[filepath.ToSlash(rel)]
		if !ok || !e.Type().IsRegular() {
			return fmt.Errorf("%s is not of the bundle: %w", rel, errTree)
		}
		seen++
		return want.verify(path)
	})
	if err == nil && seen != len(l) {
		err = fmt.Errorf("%d files of %d are there: %w", seen, len(l), errTree)
	}
	return err
}

func (r fileRecord) verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errTree)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", err, errTree)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("%w: %w", err, errTree)
	}
	if info.Size() != r.Size || info.Mode().Perm() != r.mode() || !strings.EqualFold(hex.EncodeToString(sum.Sum(nil)), r.SHA256) {
		return fmt.Errorf("%s: %w", path, errTree)
	}
	return nil
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
