package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// ErrConfig is wrapped by every error about configuration that cannot be used.
var ErrConfig = errors.New("invalid configuration")

// classified is an error that is of some kinds without saying so: people read these in a condition beside the
// field, where the kinds' words would only be noise.
type classified struct {
	error
	kinds []error
}

// Unwrap makes errors.Is find the kinds.
func (c *classified) Unwrap() []error { return append([]error{c.error}, c.kinds...) }

// configError is an error of kind ErrConfig and of further kinds.
func configError(err error, kinds ...error) error {
	return &classified{err, append(kinds, ErrConfig)}
}

// ValuesFile is the file of the configuration that holds all values.
const ValuesFile = "values.json"

// Bounds of an app's configuration.
const (
	// MaxSiteConfigBytes bounds what one app gets at one site: values, files and variables together. A
	// site's whole section travels in one message of wire.MaxMessage.
	MaxSiteConfigBytes = 64 << 10
	// MaxReleaseConfigBytes bounds what a release freezes, for all sites together.
	MaxReleaseConfigBytes = 512 << 10
	// MaxConfigFiles bounds the files that bundle and app declare together, MaxConfigPath the bytes of a path.
	MaxConfigFiles = 64
	MaxConfigPath  = 255
	// MaxValuesDepth is how deep maps and lists may lie in each other.
	MaxValuesDepth = 32
)

// Violation is a value that a bundle's schema does not allow.
type Violation struct {
	// Path leads to the value: names of maps and indices of lists. Empty stands for all values.
	Path []string
	// Message says what is wrong with it.
	Message string
	// Missing is the name that the map at Path should have, when that is what is wrong or may mend it.
	Missing string
}

// Error implements error.
func (v *Violation) Error() string {
	if len(v.Path) == 0 {
		return v.Message
	}
	return strings.Join(v.Path, ".") + ": " + v.Message
}

// Unwrap returns ErrConfig.
func (v *Violation) Unwrap() error { return ErrConfig }

// Config is an app's configuration as one site gets it: values merged, references filled in.
type Config struct {
	// Values is a JSON object, which becomes ValuesFile.
	Values json.RawMessage `json:"values"`
	// Files are the contents of further files, by path.
	Files map[string]string `json:"files,omitempty"`
}

// Contents returns every file of the configuration by its path; those of nil are none.
func (c *Config) Contents() map[string]string {
	if c == nil {
		return nil
	}
	out := map[string]string{ValuesFile: string(c.Values) + "\n"}
	maps.Copy(out, c.Files)
	return out
}

// validate accepts nil, which stands for no configuration.
func (c *Config) validate() error {
	if c == nil {
		return nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(c.Values, &values); err != nil || values == nil {
		return configError(errors.New("values: want an object in JSON"))
	}
	return CheckConfigPaths(slices.Collect(maps.Keys(c.Files)))
}

// CheckConfigPaths reports the first path of a declared file, in order, that cannot be used beside the others.
func CheckConfigPaths(paths []string) error {
	if len(paths) > MaxConfigFiles {
		return configError(fmt.Errorf("%d files, at most %d are allowed", len(paths), MaxConfigFiles))
	}
	paths = slices.Sorted(slices.Values(paths))
	for i, p := range paths {
		if !LocalPath(p) || len(p) > MaxConfigPath || !printable(p) {
			return configError(fmt.Errorf("file %q: want a clean path of printable characters below the configuration, at most %d bytes", p, MaxConfigPath))
		}
		if p == ValuesFile || strings.HasPrefix(p, ValuesFile+"/") {
			return configError(fmt.Errorf("file %q: %s is the file of all values, which the agent writes", p, ValuesFile))
		}
		if i > 0 && paths[i-1] == p {
			return configError(fmt.Errorf("file %q is declared twice", p))
		}
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if _, found := slices.BinarySearch(paths, dir); found {
				return configError(fmt.Errorf("file %q: %q is a file too and cannot be its directory", p, dir))
			}
		}
	}
	return nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f || c == '�' })
}

// CheckValuesDepth reports whether values lie too deep in each other.
func CheckValuesDepth(values map[string]any) error {
	if depth(values, MaxValuesDepth+1) > MaxValuesDepth {
		return configError(fmt.Errorf("values lie more than %d deep in each other", MaxValuesDepth))
	}
	return nil
}

// depth looks no deeper than limit.
func depth(value any, limit int) int {
	if limit == 0 {
		return 0
	}
	deepest := 0
	switch value := value.(type) {
	case map[string]any:
		for _, v := range value {
			deepest = max(deepest, depth(v, limit-1))
		}
	case []any:
		for _, v := range value {
			deepest = max(deepest, depth(v, limit-1))
		}
	default:
		return 0
	}
	return deepest + 1
}
