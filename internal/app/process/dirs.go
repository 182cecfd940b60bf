package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// prepareDirs makes the instance's own directories and, when it has a user of its own, lets that user
// reach and own what it must.
func prepareDirs(stateDir string, p *plan) error {
	own := []string{p.work(), p.tmp(), p.home()}
	for _, dir := range own {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make directory of instance: %w", err)
		}
	}
	if p.uid == 0 {
		return nil
	}
	need := []string{p.spec.Dir, p.spec.Scratch}
	for _, dir := range p.spec.DataDirs {
		need = append(need, dir)
	}
	for _, dir := range need {
		if err := openWay(stateDir, dir, p.uid); err != nil {
			return err
		}
	}
	// What is given to the app must be its own to the last file: an earlier release may have run as root.
	need = need[1:]
	if dir := p.spec.SecretDir; dir != "" { // lies in memory, outside of the agent's directory
		if err := checkWay(filepath.Dir(dir), p.uid); err != nil {
			return err
		}
		need = append(need, dir)
	}
	for _, dir := range need {
		if err := giveTree(dir, p.uid); err != nil {
			return err
		}
	}
	if p.spec.ConfigDir == "" {
		return nil
	}
	if err := openWay(stateDir, p.spec.ConfigDir, p.uid); err != nil {
		return err
	}
	return letRead(p.spec.ConfigDir, p.uid)
}

// letRead lets the group that is uid's alone read dir and all in it, which stays the agent's.
func letRead(dir string, uid int) error {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(0o640)
		if e.IsDir() {
			mode = 0o750
		}
		// The order matters: until the group is the app's own, nobody is let in.
		return errors.Join(os.Lchown(path, 0, uid), os.Chmod(path, mode))
	})
	if err != nil {
		return fmt.Errorf("let user %d read %s: %w", uid, dir, err)
	}
	return nil
}

// openWay lets others enter every directory from stateDir down to the parent of dir, and checks that those
// above stateDir and dir itself let them.
func openWay(stateDir, dir string, uid int) error {
	rel, err := filepath.Rel(stateDir, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("directory %s lies outside of the agent's %s: %w", dir, stateDir, ErrSpec)
	}
	if err := checkWay(filepath.Dir(stateDir), uid); err != nil {
		return err
	}
	at := stateDir
	for _, part := range strings.Split(rel, string(filepath.Separator)) {
		info, err := os.Lstat(at)
		if err != nil {
			return fmt.Errorf("directory on the way to %s: %w", dir, err)
		}
		if !info.IsDir() {
			return fmt.Errorf("%s, on the way to %s, is not a directory: %w", at, dir, ErrSpec)
		}
		if mode := info.Mode().Perm(); mode&0o011 != 0o011 {
			if err := os.Chmod(at, mode|0o011); err != nil {
				return fmt.Errorf("let apps enter directory: %w", err)
			}
		}
		at = filepath.Join(at, part)
	}
	return nil
}

// checkWay reports whether a user that owns nothing of the machine may enter dir and all above it.
func checkWay(dir string, uid int) error {
	for ; ; dir = filepath.Dir(dir) {
		if err := checkEnterable(dir, uid); err != nil || dir == filepath.Dir(dir) {
			return err
		}
	}
}

// checkEnterable reports whether a user that owns nothing of the machine may enter dir.
func checkEnterable(dir string, uid int) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("directory above the agent's: %w", err)
	}
	if info.Mode().Perm()&0o001 == 0 {
		return fmt.Errorf("directory %s (mode %04o) cannot be entered by the app's own user %d: "+
			"let others enter it (chmod o+x) or place the agent's data directory elsewhere: %w", dir, info.Mode().Perm(), uid, ErrSpec)
	}
	return nil
}

// giveTree makes uid the owner of dir and all in it. The top is last, so that a walk that was cut short is
// done again, and one that is done is not.
func giveTree(dir string, uid int) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("directory of app: %w", err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) == uid {
		return nil
	}
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err == nil {
		err = os.Lchown(dir, uid, uid)
	}
	if err != nil {
		return fmt.Errorf("give %s to user %d: %w", dir, uid, err)
	}
	return nil
}
