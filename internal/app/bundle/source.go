package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// SourceFile is the name of the file in an app's directory that says how it is built and run.
const SourceFile = "bundle.yaml"

// maxSourceBytes bounds SourceFile.
const maxSourceBytes = 256 << 10

// Source is what SourceFile says.
type Source struct {
	// Name of the app: a DNS label.
	Name string `json:"name"`
	// Runtime is "process" or "wasm".
	Runtime string `json:"runtime"`
	Build   Plan   `json:"build"`
	// Process says how the program is run.
	Process *Process `json:"process,omitempty"`
	// Wasm says how the module is run.
	Wasm *Wasm `json:"wasm,omitempty"`
	// Settings are the files of the app's configuration.
	Settings *Settings `json:"config,omitempty"`
	// Platforms to build for, such as "linux/arm64"; none means linux/amd64 and linux/arm64. A module has
	// none: it runs everywhere.
	Platforms []string `json:"platforms,omitempty"`
}

// Plan says where the bundle's files come from: a Go program, files, or both.
type Plan struct {
	Go    *GoBuild `json:"go,omitempty"`
	Files []File   `json:"files,omitempty"`
}

// GoBuild is a Go program, which becomes bin/<name of the app>, with ".wasm" behind it when it is a module.
type GoBuild struct {
	// Package to build, such as "." or "./cmd/hello".
	Package string `json:"package"`
	// LDFlags for the linker; nil means "-s -w", which leaves debug information out.
	LDFlags *string `json:"ldflags,omitempty"`
	// Env is added to the build's environment.
	Env map[string]string `json:"env,omitempty"`
}

// File is a file or directory to take over.
type File struct {
	// From is a path in the app's directory. "{os}" and "{arch}" stand for those of the platform.
	From string `json:"from"`
	// To is its path in the bundle; empty means From.
	To string `json:"to,omitempty"`
	// Mode is "0755" or "0644"; empty keeps whether the file can be executed.
	Mode string `json:"mode,omitempty"`
}

// Process is app.ProcessConfig in units that people write.
type Process struct {
	// Command and its arguments; none means the Go program.
	Command       []string          `json:"command,omitempty"`
	Env           map[string]string `json:"env,omitempty"`
	Readiness     *Probe            `json:"readiness,omitempty"`
	Liveness      *Probe            `json:"liveness,omitempty"`
	Limits        Limits            `json:"limits,omitzero"`
	StopGrace     Seconds           `json:"stopGrace,omitempty"`
	Data          []string          `json:"data,omitempty"`
	ExclusiveData bool              `json:"exclusiveData,omitempty"`
}

// Probe is app.Probe in units that people write.
type Probe struct {
	Path             string  `json:"path"`
	Period           Seconds `json:"period,omitempty"`
	Timeout          Seconds `json:"timeout,omitempty"`
	FailureThreshold int     `json:"failureThreshold,omitempty"`
	InitialDelay     Seconds `json:"initialDelay,omitempty"`
}

// Limits are app.Limits in units that people write.
type Limits struct {
	Memory Bytes  `json:"memory,omitempty"`
	CPU    Millis `json:"cpu,omitempty"`
	PIDs   int    `json:"pids,omitempty"`
}

// ReadSource reads and checks SourceFile in dir.
func ReadSource(dir string) (Source, error) {
	name := filepath.Join(dir, SourceFile)
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return Source{}, failf(ErrSource, "make one with `skerry app init NAME`, or name the app's directory", "there is no %s in %s", SourceFile, dir)
	}
	if err != nil {
		return Source{}, fmt.Errorf("read %s: %w", SourceFile, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSourceBytes+1))
	if err != nil {
		return Source{}, fmt.Errorf("read %s: %w", name, err)
	}
	return ParseSource(data)
}

// ParseSource reads and checks what SourceFile holds. Unknown fields are refused.
func ParseSource(data []byte) (Source, error) {
	if len(data) > maxSourceBytes {
		return Source{}, failf(ErrSource, "", "%s has more than %d bytes", SourceFile, maxSourceBytes)
	}
	raw, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return Source{}, failf(ErrSource, "check the indentation and the quotes at the line that is named", "%s: %v", SourceFile, err)
	}
	var loose any
	if err := json.Unmarshal(raw, &loose); err != nil {
		return Source{}, failf(ErrSource, "", "%s: %v", SourceFile, err)
	}
	if err := checkFields("", loose, reflect.TypeFor[Source]()); err != nil {
		return Source{}, err
	}
	var s Source
	if err := json.Unmarshal(raw, &s); err != nil {
		return Source{}, failf(ErrSource, "", "%s: %v", SourceFile, plain(err))
	}
	if err := s.validate(); err != nil {
		return Source{}, failf(ErrSource, "", "%s: %v", SourceFile, err)
	}
	return s, nil
}

// plain says a type error in words of YAML instead of Go.
func plain(err error) error {
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) {
		return fmt.Errorf("%s: found a %s, which does not belong here", te.Field, te.Value)
	}
	return err
}

// checkFields refuses fields that t does not have, and values that its units do not know, naming the path
// of the first: encoding/json names it for neither.
func checkFields(at string, v any, t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if unit, ok := reflect.New(t).Interface().(json.Unmarshaler); ok {
		data, err := json.Marshal(v)
		if err == nil {
			err = unit.UnmarshalJSON(data)
		}
		if err != nil {
			return failf(ErrSource, "", "%s: %s: %v", SourceFile, at, err)
		}
		return nil
	}
	switch v := v.(type) {
	case []any:
		if t.Kind() != reflect.Slice {
			return nil
		}
		for i, item := range v {
			if err := checkFields(fmt.Sprintf("%s[%d]", at, i), item, t.Elem()); err != nil {
				return err
			}
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return nil
		}
		known := map[string]reflect.Type{}
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			known[name] = t.Field(i).Type
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			here := strings.TrimPrefix(at+"."+name, ".")
			if known[name] == nil {
				fields := strings.Join(slices.Sorted(maps.Keys(known)), ", ")
				return failf(ErrSource, "fields here are "+fields, "%s: %s: there is no such field", SourceFile, here)
			}
			if err := checkFields(here, v[name], known[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s Source) validate() error {
	if err := (fleet.AppKey{Namespace: "x", Name: s.Name}).Validate(); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	switch s.Runtime {
	case app.RuntimeProcess:
		if s.Wasm != nil {
			return fmt.Errorf("wasm: must not be set when runtime is %q", s.Runtime)
		}
	case app.RuntimeWasm:
		if s.Process != nil {
			return fmt.Errorf("process: must not be set when runtime is %q", s.Runtime)
		}
	default:
		return fmt.Errorf("runtime: %q is not known, want %q or %q", s.Runtime, app.RuntimeProcess, app.RuntimeWasm)
	}
	if s.Build.Go == nil && len(s.Build.Files) == 0 {
		return errors.New("build: set go, files, or both")
	}
	if s.Build.Go != nil {
		if err := s.Build.Go.validate(); err != nil {
			return fmt.Errorf("build.go.%w", err)
		}
	}
	for i, f := range s.Build.Files {
		if err := f.validate(); err != nil {
			return fmt.Errorf("build.files[%d].%w", i, err)
		}
	}
	if err := s.Settings.validate(); err != nil {
		return fmt.Errorf("config.%w", err)
	}
	if _, err := s.platforms(nil); err != nil {
		return err
	}
	return s.Config("0").Validate()
}

// ownEnv are the variables of a build that decide what comes out and that the build sets itself.
var ownEnv = []string{"CGO_ENABLED", "GOARCH", "GOENV", "GOFLAGS", "GOOS", "GOWORK"}

func (g GoBuild) validate() error {
	if g.Package != "." && (!strings.HasPrefix(g.Package, "./") || !app.LocalPath(strings.TrimPrefix(g.Package, "./"))) {
		return fmt.Errorf("package: %q must be \".\" or begin with \"./\" and stay in the app's directory", g.Package)
	}
	for name := range g.Env {
		if slices.Contains(ownEnv, name) {
			return fmt.Errorf("env: %s is set by the build itself", name)
		}
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return fmt.Errorf("env: %q is no name of a variable", name)
		}
	}
	return nil
}

func (f File) validate() error {
	if !app.LocalPath(f.From) {
		return fmt.Errorf("from: %q must be a clean path in the app's directory", f.From)
	}
	if f.To != "" && !app.LocalPath(f.To) {
		return fmt.Errorf("to: %q must be a clean path in the bundle", f.To)
	}
	if f.Mode != "" && f.Mode != "0755" && f.Mode != "0644" {
		return fmt.Errorf("mode: %q, want \"0755\" or \"0644\", in quotes", f.Mode)
	}
	return nil
}

// Config returns how the bundle of this version is run.
func (s Source) Config(version string) app.BundleConfig {
	c := app.BundleConfig{Name: s.Name, Version: version, Runtime: s.Runtime}
	if s.Runtime == app.RuntimeWasm {
		c.Wasm = s.wasmConfig()
		return c
	}
	p := s.Process
	if p == nil {
		p = &Process{}
	}
	c.Process = &app.ProcessConfig{
		Command: p.Command, Env: p.Env, Readiness: p.Readiness.config(), Liveness: p.Liveness.config(),
		Limits:           app.Limits{MemoryBytes: int64(p.Limits.Memory), CPUMillis: int(p.Limits.CPU), PIDs: p.Limits.PIDs},
		StopGraceSeconds: int(p.StopGrace), Data: p.Data, ExclusiveData: p.ExclusiveData,
	}
	if len(p.Command) == 0 && s.Build.Go != nil {
		c.Process.Command = []string{s.program()}
	}
	return c
}

// program is the path of the Go program in the bundle.
func (s Source) program() string {
	name := path.Join("bin", s.Name)
	if s.Runtime == app.RuntimeWasm {
		name += ".wasm"
	}
	return name
}

func (p *Probe) config() *app.Probe {
	if p == nil {
		return nil
	}
	return &app.Probe{
		Path: p.Path, PeriodSeconds: int(p.Period), TimeoutSeconds: int(p.Timeout),
		FailureThreshold: p.FailureThreshold, InitialDelaySeconds: int(p.InitialDelay),
	}
}

// Platform is an operating system and an architecture, as Go names them.
type Platform struct{ OS, Arch string }

// String returns "os/arch".
func (p Platform) String() string { return p.OS + "/" + p.Arch }

// platforms returns what to build for: asked, else what the source says, else the two usual ones.
func (s Source) platforms(asked []string) ([]Platform, error) {
	names := asked
	if len(names) == 0 {
		names = s.Platforms
	}
	if s.Runtime == app.RuntimeWasm {
		only := Platform{OS: app.PlatformWasmOS, Arch: app.PlatformWasmArch}
		if len(names) > 0 && !slices.Equal(names, []string{only.String()}) {
			return nil, fmt.Errorf("platforms: %s: a module has none, it runs at every site: leave them out", strings.Join(names, ", "))
		}
		return []Platform{only}, nil
	}
	if len(names) == 0 {
		names = []string{"linux/amd64", "linux/arm64"}
	}
	if len(names) > app.MaxPlatforms {
		return nil, fmt.Errorf("platforms: %d, at most %d are allowed", len(names), app.MaxPlatforms)
	}
	var out []Platform
	for i, name := range names {
		sys, arch, ok := strings.Cut(name, "/")
		p := Platform{OS: sys, Arch: arch}
		if !ok || !isWord(sys) || !isWord(arch) {
			return nil, fmt.Errorf("platforms[%d]: %q, want <os>/<arch> such as linux/arm64", i, name)
		}
		if slices.Contains(out, p) {
			return nil, fmt.Errorf("platforms[%d]: %q is named twice", i, name)
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Platform) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

func isWord(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}
