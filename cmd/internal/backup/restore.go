package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/kube"
)

// Restore makes a hub's data directory from a backup. dir must be empty or not there: it appears at once, when
// everything was verified and is on disk. A kill on the way leaves nothing but a directory beside it, whose name
// begins with that of dir and ".restoring-".
func Restore(file, dir string, log *slog.Logger) (Manifest, error) {
	fail := func(err error) (Manifest, error) {
		return Manifest{}, fmt.Errorf("restore %s to %s: %w", file, dir, err)
	}
	in, err := os.Open(file)
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	if err := checkEmpty(dir); err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fail(err)
	}
	staging, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".restoring-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(staging)
	m, err := unpackInto(in, staging, log)
	if err != nil {
		return fail(err)
	}
	// Removing succeeds on an empty directory alone, also when something was put there meanwhile.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(fmt.Errorf("%w: give a directory that is not there yet, below this one if it is a mount", err))
	}
	if err := errors.Join(os.Rename(staging, dir), syncDir(filepath.Dir(dir))); err != nil {
		return fail(err)
	}
	return m, nil
}

func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: it holds %s: name one that is not there yet", ErrNotEmpty, entries[0].Name())
	}
	return nil
}

// unpackInto makes a data directory of staging, on disk when it returns.
func unpackInto(in *os.File, staging string, log *slog.Logger) (Manifest, error) {
	if err := dirs.Make(staging); err != nil {
		return Manifest{}, err
	}
	root, err := os.OpenRoot(staging)
	if err != nil {
		return Manifest{}, err
	}
	defer root.Close()
	m, err := read(in, root)
	if err != nil {
		return Manifest{}, err
	}
	if _, err := root.Stat(snapshotName); err == nil {
		err = kube.RestoreSnapshot(filepath.Join(staging, dirs.Kubernetes), filepath.Join(staging, snapshotName), log)
		if err := errors.Join(err, root.Remove(snapshotName)); err != nil {
			return Manifest{}, err
		}
	}
	d, err := root.Open(".")
	if err != nil {
		return Manifest{}, err
	}
	if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
		return Manifest{}, fmt.Errorf("write to disk: %w", err)
	}
	return m, nil
}
