package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Defaults are configuration that a bundle brings along.
type Defaults struct {
	// Values is a JSON object, or nil.
	Values json.RawMessage `json:"values,omitempty"`
	// Schema is a JSON schema that final values must satisfy, or nil.
	Schema json.RawMessage `json:"schema,omitempty"`
	// Files are contents with references, by path; an app may replace each.
	Files map[string]string `json:"files,omitempty"`
}

// CheckDefaults reports the first of Defaults, and of the references in the environment, that cannot be used.
// That Schema is a schema is not looked at. It is apart from Validate, since sites ask that too: a site that
// is older than its hub must not refuse what is the hub's alone.
func (c BundleConfig) CheckDefaults() error {
	for _, name := range slices.Sorted(maps.Keys(c.Environment())) {
		if err := CheckReferences(c.Environment()[name]); err != nil {
			return fmt.Errorf("%s.env: variable %q: %w: %w", c.Runtime, name, err, ErrBundle)
		}
	}
	d := c.Defaults
	if d == nil {
		return nil
	}
	if err := errors.Join(checkObject("values", d.Values), checkObject("schema", d.Schema)); err != nil {
		return err
	}
	if err := CheckConfigPaths(slices.Collect(maps.Keys(d.Files))); err != nil {
		return fmt.Errorf("defaults.files: %w: %w", err, ErrBundle)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Files)) {
		if err := CheckReferences(d.Files[name]); err != nil {
			return fmt.Errorf("defaults.files: %q: %w: %w", name, err, ErrBundle)
		}
	}
	return nil
}

func checkObject(field string, data json.RawMessage) error {
	if data == nil {
		return nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil || object == nil {
		return fmt.Errorf("defaults.%s: want an object in JSON: %w", field, errors.Join(err, ErrBundle))
	}
	return nil
}
