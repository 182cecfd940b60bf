package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/skerry-dev/skerry/examples"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// Scaffold lays out the directory of a new app called name, for the runtime of that name: a small HTTP app in
// Go that builds and runs as it is. It makes dir when there is none, and returns the names of the files it wrote. It never
// overwrites: when one of its files exists it writes none.
func Scaffold(dir, name, runtime string) ([]string, error) {
	if err := (fleet.AppKey{Namespace: "x", Name: name}).Validate(); err != nil {
		return nil, failf(ErrSource, "choose a name such as hello or price-list", "%v", err)
	}
	found, ok := scaffolds[runtime]
	if !ok {
		return nil, failf(ErrSource, "choose one of "+strings.Join(slices.Sorted(maps.Keys(scaffolds)), ", "), "there is no example for the runtime %q", runtime)
	}
	files, err := found.render(name)
	if err != nil {
		return nil, fmt.Errorf("scaffold %s: %w", name, err)
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); err == nil {
			return nil, failf(ErrSource, "choose another directory, or move that file away", "%s exists, and is not overwritten", filepath.Join(dir, f.name))
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("scaffold %s: %w", name, err)
	}
	var names []string
	for _, f := range files {
		if err := create(filepath.Join(dir, f.name), f.content); err != nil {
			return names, fmt.Errorf("scaffold %s: %w", name, err)
		}
		names = append(names, f.name)
	}
	return names, nil
}

// create writes a file that must not exist.
func create(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

type rendered struct {
	name    string
	content []byte
}

// scaffolds are the examples by their runtimes. The map is never written.
var scaffolds = map[string]example{
	app.RuntimeProcess: {examples.Hello, "hello"},
	app.RuntimeWasm:    {examples.HelloWasm, "hello-wasm"},
}

// example is a directory of a file system.
type example struct {
	files fs.FS
	dir   string
}

// render returns the example's files for an app called name; see package examples for the rules.
func (s example) render(name string) ([]rendered, error) {
	entries, err := fs.ReadDir(s.files, s.dir)
	if err != nil {
		return nil, err
	}
	var out []rendered
	for _, e := range entries {
		content, err := fs.ReadFile(s.files, s.dir+"/"+e.Name())
		if err != nil {
			return nil, err
		}
		target, isTemplate := strings.CutSuffix(e.Name(), ".tmpl")
		if isTemplate {
			t, err := template.New(e.Name()).Option("missingkey=error").Parse(string(content))
			if err != nil {
				return nil, err
			}
			var b bytes.Buffer
			if err := t.Execute(&b, struct{ Name string }{name}); err != nil {
				return nil, err
			}
			content = b.Bytes()
		}
		if target == "gitignore" {
			target = ".gitignore"
		}
		out = append(out, rendered{target, content})
	}
	return out, nil
}
