package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
)

// ErrBundle is wrapped by every error about a bundle that cannot be used.
var ErrBundle = errors.New("invalid bundle")

// Media types of a bundle. A bundle is an OCI image index with one manifest a platform; each manifest
// has a BundleConfig as its config and one layer with the files.
const (
	MediaTypeBundle = "application/vnd.skerry.bundle.v1"                // artifactType of index and manifests
	MediaTypeConfig = "application/vnd.skerry.bundle.config.v1+json"    // config
	MediaTypeFiles  = "application/vnd.skerry.bundle.files.v1.tar+gzip" // layer
)

// Bounds of a bundle, checked where it is pushed and again where it is unpacked.
const (
	MaxConfigBytes   = 256 << 10
	MaxManifestBytes = 1 << 20
	MaxFiles         = 10_000
	MaxUnpackedBytes = 4 << 30
	MaxPlatforms     = 16
)

// BundleConfig says how the content of a bundle is run. It is the OCI config blob, in JSON.
type BundleConfig struct {
	// Name and Version are what the author called it; they do not identify it, the digest does.
	Name    string `json:"name"`
	Version string `json:"version"`
	// Runtime is the kind of content, such as "process".
	Runtime string `json:"runtime"`
	// Process is how to run it when Runtime is "process".
	Process *ProcessConfig `json:"process,omitempty"`
	// Wasm is how to run it when Runtime is "wasm".
	Wasm *WasmConfig `json:"wasm,omitempty"`
	// Defaults are the bundle's part of the app's configuration, nil when it has none. The hub makes each
	// site's configuration of it; sites do not look at it.
	Defaults *Defaults `json:"defaults,omitempty"`
}

// ProcessConfig says how a program of the bundle is run.
type ProcessConfig struct {
	// Command is the program and its arguments, never through a shell. The first entry is a path inside
	// the bundle, such as "bin/hello".
	Command []string `json:"command"`
	// Env is added to the environment; an app may override it.
	Env map[string]string `json:"env,omitempty"`
	// Readiness decides whether requests are passed on; Liveness whether the program is restarted. When
	// Readiness is nil the app is ready once its port accepts connections.
	Readiness *Probe `json:"readiness,omitempty"`
	Liveness  *Probe `json:"liveness,omitempty"`
	Limits    Limits `json:"limits,omitzero"`
	// StopGraceSeconds is the time between SIGTERM and SIGKILL; zero means 10.
	StopGraceSeconds int `json:"stopGraceSeconds,omitempty"`
	// Data names directories that outlive releases. Their paths are in SKERRY_DATA_<NAME>.
	Data []string `json:"data,omitempty"`
	// ExclusiveData says that two releases may not run beside each other.
	ExclusiveData bool `json:"exclusiveData,omitempty"`
}

// Environment is what the bundle declares for its runtime; an app may override it. It is nil when the
// bundle declares none, and must not be changed.
func (c BundleConfig) Environment() map[string]string {
	switch {
	case c.Process != nil:
		return c.Process.Env
	case c.Wasm != nil:
		return c.Wasm.Env
	}
	return nil
}

// DataDirs names the directories that outlive releases.
func (c BundleConfig) DataDirs() []string {
	switch {
	case c.Process != nil:
		return c.Process.Data
	case c.Wasm != nil:
		return c.Wasm.dataDirs()
	}
	return nil
}

// ExclusiveData says that two releases may not run beside each other.
func (c BundleConfig) ExclusiveData() bool {
	return c.Process != nil && c.Process.ExclusiveData || c.Wasm != nil && c.Wasm.ExclusiveData
}

// Probe is an HTTP GET on the app's own port; a status of 200 to 399 is a success.
type Probe struct {
	Path string `json:"path"`
	// PeriodSeconds defaults to 5 (readiness is asked ten times a second until it first holds),
	// TimeoutSeconds to 2, FailureThreshold to 3.
	PeriodSeconds    int `json:"periodSeconds,omitempty"`
	TimeoutSeconds   int `json:"timeoutSeconds,omitempty"`
	FailureThreshold int `json:"failureThreshold,omitempty"`
	// InitialDelaySeconds is how long liveness waits after each start; readiness ignores it.
	InitialDelaySeconds int `json:"initialDelaySeconds,omitempty"`
}

// Limits bound one instance. Zero means no limit.
type Limits struct {
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	// CPUMillis is a thousandth of a CPU.
	CPUMillis int `json:"cpuMillis,omitempty"`
	PIDs      int `json:"pids,omitempty"`
}

// Runtimes that this protocol version knows. A site may offer fewer.
const RuntimeProcess = "process"

// ParseBundleConfig reads and checks a config blob.
func ParseBundleConfig(data []byte) (BundleConfig, error) {
	if len(data) > MaxConfigBytes {
		return BundleConfig{}, fmt.Errorf("config has %d bytes, at most %d are allowed: %w", len(data), MaxConfigBytes, ErrBundle)
	}
	var c BundleConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return BundleConfig{}, fmt.Errorf("config: %w: %w", err, ErrBundle)
	}
	return c, c.Validate()
}

// Validate reports the first field that cannot be used.
func (c BundleConfig) Validate() error {
	switch c.Runtime {
	case RuntimeProcess:
		if c.Process == nil {
			return fmt.Errorf("process: must be set when runtime is %q: %w", c.Runtime, ErrBundle)
		}
		if c.Wasm != nil {
			return fmt.Errorf("wasm: must not be set when runtime is %q: %w", c.Runtime, ErrBundle)
		}
		return c.Process.validate()
	case RuntimeWasm:
		if c.Wasm == nil {
			return fmt.Errorf("wasm: must be set when runtime is %q: %w", c.Runtime, ErrBundle)
		}
		if c.Process != nil {
			return fmt.Errorf("process: must not be set when runtime is %q: %w", c.Runtime, ErrBundle)
		}
		return c.Wasm.validate()
	case "":
		return fmt.Errorf("runtime: must be set: %w", ErrBundle)
	}
	// Another runtime is the site's to refuse: a newer one may exist there.
	return nil
}

func (p ProcessConfig) validate() error {
	if len(p.Command) == 0 {
		return fmt.Errorf("process.command: must name a program of the bundle: %w", ErrBundle)
	}
	if !LocalPath(p.Command[0]) {
		return fmt.Errorf("process.command[0]: %q is not a path inside the bundle: %w", p.Command[0], ErrBundle)
	}
	for i, arg := range p.Command {
		if strings.Contains(arg, "\x00") {
			return fmt.Errorf("process.command[%d]: %q holds a zero byte: %w", i, arg, ErrBundle)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		if err := CheckEnv(name, p.Env[name]); err != nil {
			return fmt.Errorf("process.env: %w: %w", err, ErrBundle)
		}
	}
	if err := checkData("process.data", p.Data); err != nil {
		return err
	}
	if err := errors.Join(p.Readiness.validate("process.readiness"), p.Liveness.validate("process.liveness")); err != nil {
		return err
	}
	return checkRanges("process", []ranged{
		{"limits.memoryBytes", p.Limits.MemoryBytes, math.MaxInt64}, {"limits.cpuMillis", int64(p.Limits.CPUMillis), math.MaxInt32},
		{"limits.pids", int64(p.Limits.PIDs), math.MaxInt32}, {"stopGraceSeconds", int64(p.StopGraceSeconds), maxSeconds},
	})
}

// validate accepts nil, which stands for no probe.
func (p *Probe) validate(field string) error {
	if p == nil {
		return nil
	}
	if !strings.HasPrefix(p.Path, "/") {
		return fmt.Errorf("%s.path: %q must begin with \"/\": %w", field, p.Path, ErrBundle)
	}
	return checkRanges(field, []ranged{
		{"periodSeconds", int64(p.PeriodSeconds), maxSeconds}, {"timeoutSeconds", int64(p.TimeoutSeconds), maxSeconds},
		{"failureThreshold", int64(p.FailureThreshold), maxSeconds}, {"initialDelaySeconds", int64(p.InitialDelaySeconds), maxSeconds},
	})
}

// maxSeconds bounds every time of a bundle to a day, and so what a multiplication with it can yield.
const maxSeconds = 24 * 60 * 60

// ranged is a number that must lie between zero and most.
type ranged struct {
	field       string
	value, most int64
}

func checkRanges(prefix string, numbers []ranged) error {
	for _, n := range numbers {
		if n.value < 0 || n.value > n.most {
			return fmt.Errorf("%s.%s: %d, want 0 to %d: %w", prefix, n.field, n.value, n.most, ErrBundle)
		}
	}
	return nil
}

// LocalPath reports whether p is a clean relative path that stays below the directory it starts from.
func LocalPath(p string) bool {
	return p != "" && p != "." && !strings.ContainsAny(p, "\\\x00") && path.Clean(p) == p &&
		!path.IsAbs(p) && p != ".." && !strings.HasPrefix(p, "../")
}

// reservedEnv are the variables that the agent itself sets.
const reservedEnv = "SKERRY_"

// CheckEnvName reports whether name may be declared as an environment variable.
func CheckEnvName(name string) error {
	if name == "PORT" || strings.HasPrefix(name, reservedEnv) {
		return fmt.Errorf("variable %q is set by the agent", name)
	}
	for i, c := range name {
		letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return fmt.Errorf("variable %q: want letters, digits and '_', not beginning with a digit", name)
		}
	}
	if name == "" {
		return errors.New("variable name is empty")
	}
	return nil
}

// CheckEnv reports whether a variable may be declared with this value.
func CheckEnv(name, value string) error {
	if err := CheckEnvName(name); err != nil {
		return err
	}
	if strings.Contains(value, "\x00") {
		return fmt.Errorf("variable %q: its value holds a zero byte", name)
	}
	return nil
}
