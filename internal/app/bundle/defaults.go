package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/app"
)

// Files beside SourceFile that are the app's configuration when they are there, named as in a Helm chart.
const (
	ValuesFile = "values.yaml"
	SchemaFile = "values.schema.json"
)

// Settings say which files the app's configuration has.
type Settings struct {
	Files []ConfigFile `json:"files,omitempty"`
}

// ConfigFile is a file with references, which sites get below SKERRY_CONFIG_DIR.
type ConfigFile struct {
	// Path below that directory.
	Path string `json:"path"`
	// From is a file in the app's directory that holds the content; or else Content is it.
	From    string `json:"from,omitempty"`
	Content string `json:"content,omitempty"`
}

// validate accepts nil, which stands for no files.
func (c *Settings) validate() error {
	if c == nil {
		return nil
	}
	var paths []string
	for i, f := range c.Files {
		if f.From != "" && f.Content != "" {
			return fmt.Errorf("files[%d]: set one of from and content", i)
		}
		if f.From != "" && !app.LocalPath(f.From) {
			return fmt.Errorf("files[%d].from: %q must be a clean path in the app's directory", i, f.From)
		}
		paths = append(paths, f.Path)
	}
	if err := app.CheckConfigPaths(paths); err != nil {
		return fmt.Errorf("files: %w", err)
	}
	return nil
}

// defaults reads the bundle's part of the configuration, nil when the app in dir has none. References and
// values are checked with the rest of the bundle's configuration.
func (s Source) defaults(dir string) (*app.Defaults, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the app's directory: %w", err)
	}
	defer root.Close()
	var d app.Defaults
	if d.Values, err = readObject(root, ValuesFile, yaml.YAMLToJSONStrict); err != nil {
		return nil, err
	}
	if d.Schema, err = readObject(root, SchemaFile, compact); err != nil {
		return nil, err
	}
	if s.Settings != nil && len(s.Settings.Files) > 0 {
		d.Files = map[string]string{}
		for i, f := range s.Settings.Files {
			if d.Files[f.Path] = f.Content; f.From == "" {
				continue
			}
			if d.Files[f.Path], err = readText(root, f.From); err != nil {
				return nil, fmt.Errorf("%s: config.files[%d].from: %w", SourceFile, i, err)
			}
		}
	}
	if d.Values == nil && d.Schema == nil && d.Files == nil {
		return nil, nil
	}
	return &d, nil
}

// readObject reads a file that may be missing and returns it in JSON.
func readObject(root *os.Root, name string, toJSON func([]byte) ([]byte, error)) (json.RawMessage, error) {
	text, err := readText(root, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := toJSON([]byte(text))
	if err != nil {
		return nil, failf(ErrSource, "", "%s: %v", name, err)
	}
	if string(data) == "null" { // a file of comments
		return json.RawMessage("{}"), nil
	}
	return data, nil
}

func compact(data []byte) ([]byte, error) {
	var out bytes.Buffer
	err := json.Compact(&out, data)
	return out.Bytes(), err
}

// readText reads a regular file of text that is small enough for a configuration.
func readText(root *os.Root, name string) (string, error) {
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return "", failf(errors.Join(ErrSource, err), "", "%v", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, app.MaxSiteConfigBytes+1))
	if err != nil {
		return "", failf(ErrSource, "", "%s: %v", name, err)
	}
	if len(data) > app.MaxSiteConfigBytes {
		return "", failf(ErrSource, "", "%s has more than %d bytes", name, app.MaxSiteConfigBytes)
	}
	if !utf8.Valid(data) {
		return "", failf(ErrSource, "put it into the bundle with build.files", "%s is not text in UTF-8", name)
	}
	return string(data), nil
}
