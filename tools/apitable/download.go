package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
)

// module is the content of a Go module's zip.
type module struct {
	Name string // path@version
	Sum  string // h1: digest, which the go command verified
	root fs.FS
}

// withModule downloads a module into a directory of its own, which is gone when use has returned.
func withModule(ctx context.Context, path, version string, use func(module) error) (err error) {
	dir, err := os.MkdirTemp("", "apitable-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-modcacherw", "-json", path+"@"+version)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOMODCACHE="+dir, "GOWORK=off", "GOFLAGS=-modcacherw")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go mod download: %w: %s%s", err, out, stderr.Bytes())
	}
	var got struct{ Zip, Sum string }
	if err := json.Unmarshal(out, &got); err != nil {
		return fmt.Errorf("answer of go mod download: %w", err)
	}
	archive, err := zip.OpenReader(got.Zip)
	if err != nil {
		return err
	}
	defer archive.Close()
	root, err := fs.Sub(archive, path+"@"+version)
	if err != nil {
		return err
	}
	return use(module{Name: path + "@" + version, Sum: got.Sum, root: root})
}

// read returns a file of the module.
func (m module) read(name string) ([]byte, error) {
	f, err := m.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// has reports whether the module holds a file or folder.
func (m module) has(name string) bool {
	_, err := fs.Stat(m.root, name)
	return err == nil
}

// walk calls fn with every file whose name ends with suffix below dir.
func (m module) walk(dir, suffix string, fn func(name string, data []byte) error) error {
	return fs.WalkDir(m.root, dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, suffix) {
			return err
		}
		data, err := m.read(name)
		if err != nil {
			return err
		}
		return fn(name, data)
	})
}
