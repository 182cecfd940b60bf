package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/kube"
	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/ociregistry"
)

// snapshotName is the member with the API server's store.
const snapshotName = dirs.Kubernetes + "/etcd.snapshot"

// ErrNoHub means that no hub ever ran on a directory.
var ErrNoHub = errors.New("no hub was ever run there")

// Options say what to save.
type Options struct {
	// DataDir is that of the hub.
	DataDir string
	// Version of this program.
	Version string
	Log     *slog.Logger
	// Running says that the hub runs in this very process. When it is false Save finds out whether another
	// process runs it.
	Running bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Save writes a backup of a hub to file, replacing an older one once the new one is whole and on disk. The hub may
// run or not; one that is stopped cannot be started meanwhile.
func Save(ctx context.Context, o Options, file string) (Manifest, error) {
	fail := func(err error) (Manifest, error) {
		return Manifest{}, fmt.Errorf("back up the hub of %s: %w", o.DataDir, err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if _, err := os.Stat(filepath.Join(o.DataDir, dirs.CA)); err != nil {
		return fail(fmt.Errorf("%w: %w: name its directory with --data-dir", ErrNoHub, err))
	}
	if !o.Running {
		release, err := dirs.Lock(o.DataDir, "hub")
		if err != nil && !errors.Is(err, dirs.ErrInUse) {
			return fail(err)
		}
		if err == nil {
			defer release()
		}
		o.Running = err != nil
	}
	root, err := os.OpenRoot(o.DataDir)
	if err != nil {
		return fail(err)
	}
	defer root.Close()
	temp, err := os.CreateTemp(filepath.Dir(file), tempPrefix+"*") // mode 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(temp.Name())
	s := &save{Options: o, root: root, manifest: Manifest{Format: format, Version: o.Version, Time: o.Now().UTC().Truncate(time.Second)}}
	err = s.write(ctx, temp)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	if err != nil {
		return fail(err)
	}
	return s.manifest, nil
}

// tempPrefix begins the names of files that are not whole yet.
const tempPrefix = ".skerry-backup-"

// save is one run of Save.
type save struct {
	Options
	root     *os.Root
	manifest Manifest
	out      *writer
}

// write writes all members. The store comes before the registry: bundles that are pushed meanwhile are in the
// backup without a release that names them, never the other way round.
func (s *save) write(ctx context.Context, f *os.File) error {
	url, err := s.root.ReadFile(dirs.URLFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.manifest.URL = strings.TrimSpace(string(url))
	if s.out, err = newWriter(f, s.manifest); err != nil {
		return err
	}
	for _, step := range []func(context.Context, string) error{s.small, s.store, s.registry} {
		if err := step(ctx, filepath.Dir(f.Name())); err != nil {
			return err
		}
	}
	return s.out.close()
}

// small adds keys, certificates and settings.
func (s *save) small(context.Context, string) error {
	names := []string{dirs.PortsFile, dirs.URLFile}
	for _, name := range natsserver.KeyFiles() {
		names = append(names, path.Join(dirs.Bus, name))
	}
	for _, dir := range []string{dirs.CA, kube.KeysDir(dirs.Kubernetes)} {
		entries, err := fs.ReadDir(s.root.FS(), filepath.ToSlash(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
				names = append(names, path.Join(filepath.ToSlash(dir), e.Name()))
			}
		}
	}
	for _, name := range names {
		if err := s.out.addFile(s.root, name); err != nil {
			return err
		}
	}
	return nil
}

// store adds a snapshot of the embedded API server's store, by way of a file in dir, since a member's size
// stands before its content.
func (s *save) store(ctx context.Context, dir string) error {
	if _, err := s.root.Stat(dirs.Kubernetes); errors.Is(err, fs.ErrNotExist) {
		return nil // the hub uses an existing cluster, whose store is not ours to save
	}
	temp, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	take := kube.SnapshotStopped
	if s.Running {
		take = kube.Snapshot
	}
	if err := take(ctx, filepath.Join(s.DataDir, dirs.Kubernetes), temp, s.Log); err != nil {
		return err
	}
	size, err := temp.Seek(0, 1)
	if err == nil {
		_, err = temp.Seek(0, 0)
	}
	if err != nil {
		return err
	}
	return s.out.add(snapshotName, size, s.manifest.Time, temp)
}

// registry adds all bundles.
func (s *save) registry(ctx context.Context, _ string) error {
	return ociregistry.Files(s.root.FS(), dirs.Registry, func(name string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.out.addFile(s.root, name)
	})
}

// syncDir makes a rename within dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
