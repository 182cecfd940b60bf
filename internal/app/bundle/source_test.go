package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
)

const fullSource = `
name: shop-api
runtime: process
build:
  go: {package: ./cmd/api, ldflags: "-X main.a=b", env: {GOARM64: v8.0}}
  files:
  - {from: "dist/{os}-{arch}/tool", to: bin/tool, mode: "0755"}
process:
  command: [bin/shop-api, --verbose]
  env: {LEVEL: info}
  readiness: {path: /ready, period: 2s, timeout: 1s, failureThreshold: 4, initialDelay: 1m}
  limits: {memory: 64Mi, cpu: 500m, pids: 10}
  stopGrace: 20s
  data: [orders]
  exclusiveData: true
platforms: [linux/arm64]
`

func TestParseSource(t *testing.T) {
	s, err := ParseSource([]byte(fullSource))
	if err != nil {
		t.Fatal(err)
	}
	want := app.BundleConfig{
		Name: "shop-api", Version: "1.2.3", Runtime: "process",
		Process: &app.ProcessConfig{
			Command:   []string{"bin/shop-api", "--verbose"},
			Env:       map[string]string{"LEVEL": "info"},
			Readiness: &app.Probe{Path: "/ready", PeriodSeconds: 2, TimeoutSeconds: 1, FailureThreshold: 4, InitialDelaySeconds: 60},
			Limits:    app.Limits{MemoryBytes: 64 << 20, CPUMillis: 500, PIDs: 10}, StopGraceSeconds: 20,
			Data: []string{"orders"}, ExclusiveData: true,
		},
	}
	if diff := cmp.Diff(want, s.Config("1.2.3")); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	short, err := ParseSource([]byte("name: a\nruntime: process\nbuild: {go: {package: .}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := short.Config("1").Process.Command; !cmp.Equal(got, []string{"bin/a"}) {
		t.Errorf("without a command it is %q, want the Go program", got)
	}
	if got, err := short.platforms(nil); err != nil || !cmp.Equal(got, []Platform{{"linux", "amd64"}, {"linux", "arm64"}}) {
		t.Errorf("without platforms they are %v, %v", got, err)
	}
}

func TestParseSourceRefuses(t *testing.T) {
	base := "name: a\nruntime: process\nbuild: {go: {package: .}}\n"
	tests := []struct{ reason, source, says string }{
		{"a field that does not exist", base + "proces: {}\n", "proces: there is no such field"},
		{"one further down", base + "process: {limits: {memroy: 1}}\n", "process.limits.memroy: there is no such field"},
		{"one in a list", "name: a\nruntime: process\nbuild: {files: [{from: a, too: b}]}\n", "build.files[0].too: there is no such field"},
		{"a field twice", base + "name: b\n", "name"},
		{"no YAML", "name: [", SourceFile},
		{"no object", "- a\n", "array"},
		{"the wrong type", base + "process: {command: bin/a}\n", "process.command: found a string"},
		{"a bad name", strings.Replace(base, "name: a", "name: A_b", 1), "name: "},
		{"an unknown runtime", strings.Replace(base, "runtime: process", "runtime: docker", 1), `runtime: "docker"`},
		{"nothing to build", "name: a\nruntime: process\n", "build: "},
		{"a package elsewhere", strings.Replace(base, "package: .", "package: ../x", 1), "build.go.package: "},
		{"a flag as a package", strings.Replace(base, "package: .", "package: -toolexec=x", 1), "build.go.package: "},
		{"a variable that the build sets", strings.Replace(base, "package: .", "package: ., env: {GOOS: windows}", 1), "build.go.env: GOOS"},
		{"a file elsewhere", "name: a\nruntime: process\nbuild: {files: [{from: ../secret}]}\n", "build.files[0].from: "},
		{"a file that leaves the bundle", "name: a\nruntime: process\nbuild: {files: [{from: a, to: /etc/a}]}\n", "build.files[0].to: "},
		{"another mode", "name: a\nruntime: process\nbuild: {files: [{from: a, mode: \"4755\"}]}\n", "build.files[0].mode: "},
		{"files without a command", "name: a\nruntime: process\nbuild: {files: [{from: a}]}\n", "process.command"},
		{"memory without a unit that exists", base + "process: {limits: {memory: 64MB}}\n", "process.limits.memory: "},
		{"a time in parts of a second", base + "process: {stopGrace: 1500ms}\n", "process.stopGrace: "},
		{"a time without a unit", base + "process: {stopGrace: 10}\n", "process.stopGrace: "},
		{"CPU in smaller parts", base + "process: {limits: {cpu: 0.5m}}\n", "process.limits.cpu: "},
		{"a variable that the agent sets", base + "process: {env: {PORT: \"1\"}}\n", "process.env: "},
		{"a probe without a path", base + "process: {readiness: {path: ready}}\n", "process.readiness.path: "},
		{"half a platform", base + "platforms: [linux]\n", "platforms[0]: "},
		{"a platform twice", base + "platforms: [linux/arm64, linux/arm64]\n", "platforms[1]: "},
		{"too much", strings.Repeat("#", maxSourceBytes+1), "bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			_, err := ParseSource([]byte(tt.source))
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want ErrSource that says %q", err, tt.says)
			}
		})
	}
	if _, err := ReadSource(t.TempDir()); !errors.Is(err, ErrSource) {
		t.Errorf("an empty directory: %v, want ErrSource", err)
	}
}

func TestUnits(t *testing.T) {
	memory := map[string]int64{`"64Mi"`: 64 << 20, `1000`: 1000, `"2k"`: 2000, `"3G"`: 3e9, `"1Ti"`: 1 << 40, `"1.5Gi"`: -1, `"-1"`: -1, `"9999999Ti"`: -1, `""`: -1, `null`: -1}
	for text, want := range memory {
		var b Bytes
		if err := b.UnmarshalJSON([]byte(text)); (err != nil) != (want < 0) || err == nil && int64(b) != want {
			t.Errorf("memory %s = %d, %v; want %d", text, b, err, want)
		}
	}
	cpu := map[string]int{`"500m"`: 500, `2`: 2000, `0.5`: 500, `"0.25"`: 250, `0.0001`: -1, `"NaN"`: -1, `"Inf"`: -1, `-1`: -1, `"1e300"`: -1}
	for text, want := range cpu {
		var m Millis
		if err := m.UnmarshalJSON([]byte(text)); (err != nil) != (want < 0) || err == nil && int(m) != want {
			t.Errorf("cpu %s = %d, %v; want %d", text, m, err, want)
		}
	}
	times := map[string]int{`"10s"`: 10, `"2m"`: 120, `"25h"`: -1, `"-1s"`: -1, `"1ms"`: -1, `5`: -1}
	for text, want := range times {
		var s Seconds
		if err := s.UnmarshalJSON([]byte(text)); (err != nil) != (want < 0) || err == nil && int(s) != want {
			t.Errorf("time %s = %d, %v; want %d", text, s, err, want)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	f.Add([]byte(fullSource))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSource(data)
		if err != nil {
			return
		}
		if err := s.Config("1").Validate(); err != nil {
			t.Errorf("a source was taken whose config a site refuses: %v", err)
		}
	})
}

func TestScaffold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "prices")
	names, err := Scaffold(dir, "prices", app.RuntimeProcess)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"README.md", "app.yaml", "bundle.yaml", ".gitignore", "go.mod", "main.go", "page.html"}
	if diff := cmp.Diff(want, names, cmp.Transformer("set", func(s []string) map[string]bool {
		m := map[string]bool{}
		for _, n := range s {
			m[n] = true
		}
		return m
	})); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	s, err := ReadSource(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "prices" || s.Config("1").Process.Limits.MemoryBytes != 64<<20 {
		t.Errorf("source is %+v", s)
	}
	for file, says := range map[string]string{"go.mod": "module example.com/prices\n", "app.yaml": "path: /prices\n", ".gitignore": "/prices\n", "README.md": "app/prices\n"} {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !strings.Contains(string(data), says) || strings.Contains(string(data), "{{") {
			t.Errorf("%s does not say %q (%v):\n%s", file, says, err, data)
		}
	}

	mine := filepath.Join(t.TempDir(), "mine")
	if err := os.MkdirAll(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mine, "main.go"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Scaffold(mine, "prices", app.RuntimeProcess); !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "main.go exists") {
		t.Errorf("over a file that exists: %v", err)
	}
	if left, err := os.ReadDir(mine); err != nil || len(left) != 1 {
		t.Errorf("a refused scaffold wrote %v, %v", left, err)
	}
	for _, name := range []string{"", "Prices", "../x", strings.Repeat("a", 64)} {
		if _, err := Scaffold(filepath.Join(t.TempDir(), "x"), name, app.RuntimeProcess); !errors.Is(err, ErrSource) {
			t.Errorf("name %q: %v, want ErrSource", name, err)
		}
	}
}
