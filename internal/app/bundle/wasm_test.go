package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/testenv"
)

func TestParseWasmSource(t *testing.T) {
	s, err := ParseSource([]byte(`
name: prices
runtime: wasm
build: {files: [{from: prices.wasm}]}
wasm:
  module: prices.wasm
  env: {LEVEL: info}
  limits: {memory: 16Mi, timeout: 2m, concurrency: 4, queue: -1, prepared: 1, output: 1Mi, header: 4Ki, outboundCalls: 2, outboundBytes: 64Ki}
  outbound: ["api.example.com:443"]
  keyValue: {keys: 10, bytes: 1Mi}
  tasks: [{name: poll, args: [-v]}]
  schedules: [{name: night, cron: "0 3 * * *", timeout: 10m}]
  data: [db]
  exclusiveData: true
`))
	if err != nil {
		t.Fatal(err)
	}
	want := app.BundleConfig{Name: "prices", Version: "1", Runtime: "wasm", Wasm: &app.WasmConfig{
		Module: "prices.wasm", Env: map[string]string{"LEVEL": "info"},
		Limits: app.WasmLimits{
			MemoryBytes: 16 << 20, TimeoutSeconds: 120, Concurrency: 4, Queue: -1, Prepared: 1, OutputBytes: 1 << 20,
			HeaderBytes: 4 << 10, OutboundCalls: 2, OutboundBytes: 64 << 10,
		},
		Outbound: []string{"api.example.com:443"}, KeyValue: &app.WasmKeyValue{Keys: 10, Bytes: 1 << 20},
		Tasks:     []app.WasmTask{{Name: "poll", Args: []string{"-v"}}},
		Schedules: []app.WasmSchedule{{Name: "night", ScheduleRules: app.ScheduleRules{Cron: "0 3 * * *"}, TimeoutSeconds: 600}},
		Data:      []string{"db"}, ExclusiveData: true,
	}}
	if diff := cmp.Diff(want, s.Config("1")); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got, err := s.platforms(nil); err != nil || !cmp.Equal(got, []Platform{{"wasip1", "wasm"}}) {
		t.Errorf("platforms are %v, %v", got, err)
	}
	base := "name: a\nruntime: wasm\nbuild: {go: {package: .}}\n"
	for _, tt := range []struct{ reason, source, says string }{
		{"a module has no platform", base + "platforms: [linux/amd64]\n", "platforms: linux/amd64"},
		{"two ways to run it", base + "process: {}\n", "process: "},
		{"two ways to run it", "name: a\nruntime: process\nbuild: {go: {package: .}}\nwasm: {}\n", "wasm: "},
		{"a field that does not exist", base + "wasm: {limits: {cpu: 1}}\n", "wasm.limits.cpu: there is no such field"},
		{"what a site would refuse", base + "wasm: {outbound: [example.com]}\n", "wasm.outbound[0]"},
		{"files without a module", "name: a\nruntime: wasm\nbuild: {files: [{from: a}]}\n", "wasm.module"},
	} {
		if _, err := ParseSource([]byte(tt.source)); !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: error %v, want ErrSource that says %q", tt.reason, err, tt.says)
		}
	}
}

// The scaffold builds with nothing but the stock toolchain, without the network, to the same bytes twice.
func TestWasmScaffoldBuilds(t *testing.T) {
	testenv.Require(t, testenv.Tool("go"))
	t.Setenv("GOPROXY", "off")
	dir := filepath.Join(t.TempDir(), "prices")
	names, err := Scaffold(dir, "prices", app.RuntimeWasm)
	if err != nil || len(names) != 6 {
		t.Fatalf("files are %v, %v", names, err)
	}
	first := build(t, dir, "1.0.0", Options{})
	if again := build(t, dir, "1.0.0", Options{}); again.Digest != first.Digest {
		t.Errorf("the same source made %s and %s", first.Digest, again.Digest)
	}
	found := images(t, first.Index)
	img, ok := found["wasip1/wasm"]
	if !ok || len(found) != 1 {
		t.Fatalf("platforms are %v", found)
	}
	out := t.TempDir()
	if diff := cmp.Diff(map[string]int64{"bin": 0o755, "bin/prices.wasm": 0o644}, unpack(t, img, ""), cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == `["bin"]` }, cmp.Ignore())); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	unpack(t, img, out)
	data, err := os.ReadFile(filepath.Join(out, first.Config.Wasm.Module))
	if err != nil || !strings.HasPrefix(string(data), "\x00asm") {
		t.Errorf("the module is none: %v", err)
	}
	t.Logf("%d bytes", len(data))
	if _, err := Scaffold(filepath.Join(t.TempDir(), "x"), "x", "docker"); !errors.Is(err, ErrSource) {
		t.Errorf("an unknown runtime: %v", err)
	}
}
