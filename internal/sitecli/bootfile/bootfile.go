// Package bootfile is the file by which a machine joins with nobody at it: flags of `skerry-site run`, and a join
// token or claim code, as YAML or JSON.
//
// The agent's command line reads it, the fleet's writes it; nothing else imports it. Errors name the line and never
// show the secret.
package bootfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v2"

	"github.com/skerry-dev/skerry/internal/enroll"
)

// MaxSize bounds a file, in bytes.
const MaxSize = 64 << 10

// ErrFile is wrapped by every error about content that is no file of this format.
var ErrFile = errors.New("not a configuration of skerry-site")

// File is what a file says. An empty field is not said. Each but the last two is the flag of the same name.
type File struct {
	// Join is a join token and Claim a claim code; one of them at most.
	Join  string `yaml:"join,omitempty"`
	Claim string `yaml:"claim,omitempty"`

	DataDir       string   `yaml:"data-dir,omitempty"`
	GatewayAddr   string   `yaml:"gateway-addr,omitempty"`
	GatewayNames  []string `yaml:"gateway-name,omitempty"`
	NeighbourAddr string   `yaml:"neighbour-addr,omitempty"`
	TLSCert       string   `yaml:"tls-cert,omitempty"`
	TLSKey        string   `yaml:"tls-key,omitempty"`
	CAFile        string   `yaml:"ca-file,omitempty"`
	Proxy         string   `yaml:"proxy,omitempty"`
	// AdminAddr is nil when it is not said: empty means none.
	AdminAddr *string `yaml:"admin-addr,omitempty"`
	LogLevel  string  `yaml:"log-level,omitempty"`
	LogFormat string  `yaml:"log-format,omitempty"`

	// CA holds, in PEM, what a file named by CAFile would: a stick is pulled out one day.
	CA string `yaml:"ca,omitempty"`
	// RemoveSecret asks the agent to take Join and Claim out of the file once it has joined.
	RemoveSecret bool `yaml:"remove-secret,omitempty"`
}

// Read reads and checks the file at path.
func Read(path string) (File, error) {
	data, err := readBounded(path)
	if err != nil {
		return File{}, fmt.Errorf("read configuration: %w", err)
	}
	f, err := Parse(data)
	if err != nil {
		return File{}, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", path)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}

// Parse reads a file's content. Unknown fields, fields that are there twice, and a second document are refused.
func Parse(data []byte) (File, error) {
	fail := func(why string) (File, error) { return File{}, fmt.Errorf("%s: %w", why, ErrFile) }
	if len(data) > MaxSize {
		return fail(fmt.Sprintf("it is larger than %d bytes", MaxSize))
	}
	var f File
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.SetStrict(true)
	switch err := decoder.Decode(&f); {
	case errors.Is(err, io.EOF):
		return fail("it is empty")
	case err != nil:
		return fail(explain(err))
	}
	var more any
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return fail("there is more than one document in it")
	}
	return f, f.validate()
}

// quoted is what yaml cites of a value that it cannot use, which may be a secret; typeName is a name of our own.
var (
	quoted   = regexp.MustCompile("`[^`]*`")
	typeName = regexp.MustCompile(` in (type|struct) bootfile\.File`)
)

// explain turns an error of yaml into one sentence for people.
func explain(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var each *yaml.TypeError
	if errors.As(err, &each) {
		text = strings.Join(each.Errors, "; ")
	}
	text = typeName.ReplaceAllString(text, "")
	text = strings.ReplaceAll(text, " into bootfile.File", ": want fields and their values")
	return quoted.ReplaceAllString(text, "a value")
}

func (f File) validate() error {
	fail := func(field string, why any) error {
		if err, ok := why.(error); ok {
			return fmt.Errorf("%s: %w: %w", field, err, ErrFile)
		}
		return fmt.Errorf("%s: %v: %w", field, why, ErrFile)
	}
	if f.Join != "" && f.Claim != "" {
		return fail("join and claim", "give one of them")
	}
	if f.Join != "" {
		if _, err := enroll.ParseToken(f.Join); err != nil {
			return fail("join", err)
		}
	}
	if f.Claim != "" {
		if _, err := enroll.ParseClaimCode(f.Claim); err != nil {
			return fail("claim", err)
		}
	}
	for _, p := range []struct{ field, path string }{
		{"data-dir", f.DataDir}, {"tls-cert", f.TLSCert}, {"tls-key", f.TLSKey}, {"ca-file", f.CAFile},
	} {
		if p.path != "" && !filepath.IsAbs(p.path) {
			return fail(p.field, fmt.Sprintf("%q must begin with /", p.path))
		}
	}
	return nil
}

// Marshal writes f as YAML.
func (f File) Marshal() ([]byte, error) {
	data, err := yaml.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return data, nil
}

// Secret reports whether f holds a join token or claim code.
func (f File) Secret() bool { return f.Join != "" || f.Claim != "" }

// WithoutSecret returns f as it is kept: settings alone.
func (f File) WithoutSecret() File {
	f.Join, f.Claim, f.RemoveSecret = "", "", false
	return f
}

// Write makes path, mode 0600, such that a crash leaves the old content or the new.
func Write(path string, f File) error {
	data, err := f.Marshal()
	if err != nil {
		return err
	}
	return replace(path, data, 0o600)
}

// secretLine is a line of YAML at the left margin that holds a secret on that one line, as Marshal writes it.
var secretLine = regexp.MustCompile(`(?m)^(join|claim):[ \t]*[^\n]*\n?`)

// RemoveSecret takes join token and claim code out of the file at path and leaves the rest as people wrote it, where it
// is written as YAML with a line each; else the file is written anew. The old content may stay on the medium, where
// file systems do not write in place.
func RemoveSecret(path string) error {
	fail := func(err error) error { return fmt.Errorf("remove the secret from %s: %w", path, err) }
	data, err := readBounded(path)
	if err != nil {
		return fail(err)
	}
	f, err := Parse(data)
	if err != nil {
		return fail(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fail(err)
	}
	rest := secretLine.ReplaceAll(data, nil)
	if left, err := Parse(rest); err != nil || left.Secret() {
		f.Join, f.Claim = "", ""
		if rest, err = f.Marshal(); err != nil {
			return fail(err)
		}
	}
	if err := replace(path, rest, info.Mode().Perm()); err != nil {
		return fail(err)
	}
	return nil
}

func replace(path string, data []byte, mode fs.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	return err
}
