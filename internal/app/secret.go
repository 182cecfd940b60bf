package app

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Errors of secrets, to be tested with errors.Is.
var (
	// ErrSecretMissing means that a Secret, or a key of one, is not there, and the app cannot do without.
	ErrSecretMissing = errors.New("secret is missing")
	// ErrSecretUnusable means that a value cannot be given in the way that was asked for.
	ErrSecretUnusable = errors.New("secret cannot be used so")
)

// SecretRef says what of one Secret of its own namespace an app gets, and how. It holds names alone: values
// are no part of a placement. With neither Env nor Files the app gets every key as a file NAME/KEY.
type SecretRef struct {
	Name string `json:"name"`
	// Optional lets the app run without the Secret, or without keys that it lacks.
	Optional bool         `json:"optional,omitempty"`
	Env      []SecretEnv  `json:"env,omitempty"`
	Files    []SecretFile `json:"files,omitempty"`
	// OnChange is what a changed value causes; empty means SecretRestart.
	OnChange SecretChange `json:"onChange,omitempty"`
	// Signal is what SecretSignal sends, such as "SIGHUP".
	Signal string `json:"signal,omitempty"`
}

// SecretEnv is a key as an environment variable.
type SecretEnv struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// SecretFile is a key as a file, at a path below the instance's directory of secrets.
type SecretFile struct {
	Path string `json:"path"`
	Key  string `json:"key"`
}

// SecretChange is what a changed value causes.
type SecretChange string

// The kinds of change. An unknown one, of a newer hub, is taken for SecretRestart.
const (
	SecretRestart SecretChange = "Restart"
	SecretSignal  SecretChange = "Signal"
	SecretNone    SecretChange = "None"
)

// Bounds of what one placement names.
const (
	MaxSecretRefs = 16
	MaxSecretKeys = 64 // of one ref, variables and files together
	maxSecretName = 253
	maxSecretPath = 255
)

// Whole reports whether the app gets every key.
func (r SecretRef) Whole() bool { return len(r.Env) == 0 && len(r.Files) == 0 }

// Keys returns the keys that the app gets, in order and each once; nil when it gets every key.
func (r SecretRef) Keys() []string {
	var keys []string
	for _, e := range r.Env {
		keys = append(keys, e.Key)
	}
	for _, f := range r.Files {
		keys = append(keys, f.Key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// HasFiles reports whether any of refs gives files.
func HasFiles(refs []SecretRef) bool {
	return slices.ContainsFunc(refs, func(r SecretRef) bool { return r.Whole() || len(r.Files) > 0 })
}

// CheckSecretRefs reports the first field of refs that cannot be used: names and paths that break a rule,
// a variable that is set twice or in env, and files that are in each other's way.
func CheckSecretRefs(refs []SecretRef, env map[string]string) error {
	if i, err := BadSecretRef(refs, env); err != nil {
		return fmt.Errorf("secretRefs[%d]: %w", i, err)
	}
	return nil
}

// BadSecretRef returns the first of refs that cannot be used, and why; see CheckSecretRefs.
func BadSecretRef(refs []SecretRef, env map[string]string) (int, error) {
	if len(refs) > MaxSecretRefs {
		return MaxSecretRefs, fmt.Errorf("%d secrets, at most %d are allowed", len(refs), MaxSecretRefs)
	}
	c := refChecker{env: env, names: map[string]bool{}, variables: map[string]bool{}, paths: map[string]int{}}
	for i, ref := range refs {
		if err := c.check(i, ref); err != nil {
			return i, err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(c.paths)) {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if _, taken := c.paths[dir]; taken {
				return c.paths[p], fmt.Errorf("file %q would lie below file or secret %q", p, dir)
			}
		}
	}
	return 0, nil
}

type refChecker struct {
	env              map[string]string
	names, variables map[string]bool
	// paths that are taken, by the index of the ref that has them.
	paths map[string]int
}

func (c *refChecker) check(i int, ref SecretRef) error {
	if !secretName(ref.Name) {
		return fmt.Errorf("name: %q is no name of a Secret of the app's own namespace", ref.Name)
	}
	if c.names[ref.Name] {
		return fmt.Errorf("name: %q is named twice", ref.Name)
	}
	c.names[ref.Name] = true
	if n := len(ref.Env) + len(ref.Files); n > MaxSecretKeys {
		return fmt.Errorf("%d variables and files, at most %d are allowed", n, MaxSecretKeys)
	}
	for n, e := range ref.Env {
		err := CheckEnvName(e.Name)
		if _, ok := c.env[e.Name]; err == nil && (ok || c.variables[e.Name]) {
			err = fmt.Errorf("variable %q is set twice", e.Name)
		}
		if err == nil && !secretKey(e.Key) {
			err = fmt.Errorf("key %q: want letters, digits, '.', '-' and '_'", e.Key)
		}
		if err != nil {
			return fmt.Errorf("env[%d]: %w", n, err)
		}
		c.variables[e.Name] = true
	}
	for n, f := range ref.Files {
		if !secretPath(f.Path) {
			return fmt.Errorf("files[%d]: path %q: want parts of letters, digits, '.', '-' and '_', none beginning with '..'", n, f.Path)
		}
		if !secretKey(f.Key) {
			return fmt.Errorf("files[%d]: key %q: want letters, digits, '.', '-' and '_'", n, f.Key)
		}
		if err := c.claim(i, f.Path); err != nil {
			return fmt.Errorf("files[%d]: %w", n, err)
		}
	}
	if ref.Whole() {
		return c.claim(i, ref.Name)
	}
	return nil
}

// claim takes a path for the ref of an index.
func (c *refChecker) claim(i int, p string) error {
	if _, taken := c.paths[p]; taken {
		return fmt.Errorf("path %q is used twice", p)
	}
	c.paths[p] = i
	return nil
}

// secretName reports whether s is a DNS subdomain (RFC 1123), which Kubernetes wants of a Secret's name.
func secretName(s string) bool {
	if len(s) > maxSecretName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if (fleet.AppKey{Namespace: "secret", Name: label}).Validate() != nil {
			return false
		}
	}
	return true
}

// secretKey reports whether s may be a key of a Secret, and so a file's name.
func secretKey(s string) bool {
	return len(s) <= maxSecretName && !strings.Contains(s, "/") && secretPath(s)
}

func secretPath(s string) bool {
	if len(s) > maxSecretPath {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || strings.HasPrefix(part, "..") || strings.Trim(part, keyLetters) != "" {
			return false
		}
	}
	return true
}

const keyLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

// SecretValues are what one instance gets: for each ref of its placement, variables and files.
type SecretValues []RefValues

// RefValues are what one ref yields.
type RefValues struct {
	Ref SecretRef
	// Env by variable and Files by path; values are shared and must not be changed.
	Env, Files map[string]fleet.SecretValue
}

// ResolveSecrets finds what refs name. lookup returns a Secret's values by key, false when it is not there.
// An error names the Secret and the key, never a value.
func ResolveSecrets(refs []SecretRef, lookup func(name string) (map[string]fleet.SecretValue, bool)) (SecretValues, error) {
	var out SecretValues
	for _, ref := range refs {
		data, ok := lookup(ref.Name)
		if !ok && !ref.Optional {
			return nil, fmt.Errorf("secret %s: %w", ref.Name, ErrSecretMissing)
		}
		v := RefValues{Ref: ref, Env: map[string]fleet.SecretValue{}, Files: map[string]fleet.SecretValue{}}
		if err := v.fill(data); err != nil {
			return nil, fmt.Errorf("secret %s: %w", ref.Name, err)
		}
		out = append(out, v)
	}
	return out, nil
}

func (v RefValues) fill(data map[string]fleet.SecretValue) error {
	if v.Ref.Whole() {
		for key, value := range data {
			if secretKey(key) { // Kubernetes allows no other
				v.Files[path.Join(v.Ref.Name, key)] = value
			}
		}
		return nil
	}
	for _, f := range v.Ref.Files {
		value, ok := data[f.Key]
		if !ok && !v.Ref.Optional {
			return fmt.Errorf("key %s: %w", f.Key, ErrSecretMissing)
		}
		if ok {
			v.Files[f.Path] = value
		}
	}
	for _, e := range v.Ref.Env {
		value, ok := data[e.Key]
		if !ok && !v.Ref.Optional {
			return fmt.Errorf("key %s: %w", e.Key, ErrSecretMissing)
		}
		if bytes.IndexByte(value, 0) >= 0 {
			return fmt.Errorf("key %s: it holds a zero byte, which no variable %s can: take it as a file: %w", e.Key, e.Name, ErrSecretUnusable)
		}
		if ok {
			v.Env[e.Name] = value
		}
	}
	return nil
}

// Env returns all variables.
func (s SecretValues) Env() map[string]fleet.SecretValue {
	out := map[string]fleet.SecretValue{}
	for _, v := range s {
		maps.Copy(out, v.Env)
	}
	return out
}

// Files returns all files by path.
func (s SecretValues) Files() map[string]fleet.SecretValue {
	out := map[string]fleet.SecretValue{}
	for _, v := range s {
		maps.Copy(out, v.Files)
	}
	return out
}

// Changed returns the refs whose values differ between s and what is newer, of the same placement.
func (s SecretValues) Changed(newer SecretValues) []SecretRef {
	var out []SecretRef
	for i, v := range newer {
		if i >= len(s) || !equalValues(s[i].Env, v.Env) || !equalValues(s[i].Files, v.Files) {
			out = append(out, v.Ref)
		}
	}
	return out
}

func equalValues(a, b map[string]fleet.SecretValue) bool {
	return maps.EqualFunc(a, b, func(x, y fleet.SecretValue) bool { return bytes.Equal(x, y) })
}
