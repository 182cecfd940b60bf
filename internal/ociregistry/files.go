package ociregistry

import (
	"errors"
	"io/fs"
	"path"
)

// Files calls visit with the name of each file in fsys that belongs to the registry below dir: links, then
// content. A copy that is made in this order while the registry serves has the content of every link in it:
// content is written before its first link, and what Collect removes meanwhile is needed by none. visit may
// find a file gone. Uploads and what was set aside are left out. No registry has no files.
func Files(fsys fs.FS, dir string, visit func(name string) error) error {
	for _, part := range []string{repoDir, blobDir} {
		err := fs.WalkDir(fsys, path.Join(dir, part), func(name string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || e.IsDir() {
				return err
			}
			return visit(name)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
