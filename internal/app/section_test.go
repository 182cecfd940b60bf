package app_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

const digest = fleet.Digest("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")

func placement(name string) app.Placement {
	return app.Placement{
		App: fleet.AppKey{Namespace: "default", Name: name}, Release: name + "-1", Version: "1.0.0", Digest: digest,
		Bundle: app.Bundle{Repository: "default/" + name, Digest: digest, Size: 100},
		Route:  &app.Route{Host: "shop.example", Path: "/" + name}, Env: map[string]string{"A": "b"}, AllowRoot: true, RemoveData: true,
	}
}

func withConfig(p app.Placement) app.Placement {
	p.Config = &app.Config{Values: json.RawMessage(`{"port":1}`), Files: map[string]string{"app.conf": "port 1"}}
	return p
}

func withSecrets(p app.Placement) app.Placement {
	p.Secrets = []app.SecretRef{{
		Name: "db", Optional: true, Env: []app.SecretEnv{{Name: "DB_PASSWORD", Key: "password"}},
		Files: []app.SecretFile{{Path: "db/ca.pem", Key: "ca.pem"}}, OnChange: app.SecretSignal, Signal: "SIGHUP",
	}}
	return p
}

// frozen are the feature's messages with every field set; their encoding under testdata is that of protocol
// version 1 and never changes.
func frozen() map[string]any {
	ref := app.ReleaseRef{Release: "hello-1", Version: "1.0.0", Digest: digest}
	return map[string]any{
		"section.json": app.Section{
			Facts: fleet.Facts{Name: "shop-1", Labels: map[string]string{"kind": "shop"}, Zone: "north"}, Apps: []app.Placement{placement("hello")},
		},
		"section-zone.json":    app.Section{Facts: fleet.Facts{Name: "shop-1", TimeZone: "Europe/Berlin"}, Apps: []app.Placement{}},
		"section-config.json":  app.Section{Apps: []app.Placement{withConfig(placement("hello"))}},
		"section-secrets.json": app.Section{Apps: []app.Placement{withSecrets(placement("hello"))}},
		"report.json": app.Report{Apps: []app.AppReport{{
			App: fleet.AppKey{Namespace: "default", Name: "hello"}, Desired: ref, Running: ref, Phase: fleet.PhaseRunning, Message: "m",
			Since: 1700000000, Restarts: 2, URL: "http://127.0.0.1:8081/hello", Conditions: map[string]string{"LimitsNotEnforced": "no cgroups"},
			Counts: fleet.RequestCounts{Requests: 10, Errors: 1, Buckets: []uint64{9, 1}},
		}}},
		"logs.json": app.LogsRequest{App: fleet.AppKey{Namespace: "default", Name: "hello"}, Tail: -1, Follow: true},
		"config.json": app.BundleConfig{Name: "hello", Version: "1.0.0", Runtime: app.RuntimeProcess, Process: &app.ProcessConfig{
			Command: []string{"bin/hello", "-v"}, Env: map[string]string{"A": "b"},
			Readiness: &app.Probe{Path: "/ready", PeriodSeconds: 1, TimeoutSeconds: 2, FailureThreshold: 3, InitialDelaySeconds: 4},
			Liveness:  &app.Probe{Path: "/live", PeriodSeconds: 1, TimeoutSeconds: 2, FailureThreshold: 3, InitialDelaySeconds: 4},
			Limits:    app.Limits{MemoryBytes: 1, CPUMillis: 2, PIDs: 3}, StopGraceSeconds: 20, Data: []string{"db"}, ExclusiveData: true,
		}},
		"config-wasm.json": app.BundleConfig{Name: "hello", Version: "1.0.0", Runtime: app.RuntimeWasm, Wasm: &app.WasmConfig{
			Module: "bin/hello.wasm", Env: map[string]string{"A": "b"},
			Limits: app.WasmLimits{
				MemoryBytes: 1, TimeoutSeconds: 2, Concurrency: 3, Queue: 4, Prepared: 5, OutputBytes: 6, HeaderBytes: 7,
				OutboundCalls: 8, OutboundBytes: 9,
			},
			Outbound: []string{"api.example.com:443"}, KeyValue: &app.WasmKeyValue{Keys: 1, Bytes: 2},
			Tasks:     []app.WasmTask{{Name: "poll", Args: []string{"-v"}}},
			Schedules: []app.WasmSchedule{{Name: "night", Args: []string{"-n"}, ScheduleRules: app.ScheduleRules{Cron: "0 3 * * *"}, TimeoutSeconds: 1}},
			Data:      []string{"db"}, ExclusiveData: true,
		}},
		"config-wasm-schedules.json": app.BundleConfig{Runtime: app.RuntimeWasm, Wasm: &app.WasmConfig{
			Schedules: []app.WasmSchedule{{Name: "night", ScheduleRules: app.ScheduleRules{
				Cron: "0 3 * * *", Concurrency: app.ConcurrencyForbid, Missed: app.MissedRunAll, StartingDeadlineSeconds: 60,
			}}},
		}},
		"config-defaults.json": app.BundleConfig{Name: "hello", Version: "1.0.0", Runtime: app.RuntimeProcess, Process: &app.ProcessConfig{
			Command: []string{"bin/hello"},
		}, Defaults: &app.Defaults{
			Values: json.RawMessage(`{"port":1}`), Schema: json.RawMessage(`{"type":"object"}`), Files: map[string]string{"app.conf": "port ${values.port}"},
		}},
	}
}

func TestFrozenMessages(t *testing.T) {
	held := map[reflect.Type]map[string]bool{} // by kind of message, the fields that some file holds
	for file, message := range frozen() {
		want, err := os.ReadFile("testdata/v1/" + file)
		if err != nil {
			t.Fatal(err)
		}
		want = bytes.TrimSpace(want)
		got, err := json.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: this message is written differently (-frozen +now):\n%s", file, diff)
		}
		read := reflect.New(reflect.TypeOf(message))
		if err := json.Unmarshal(want, read.Interface()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(message, read.Elem().Interface()); diff != "" {
			t.Errorf("%s: the frozen message is read differently (-want +got):\n%s", file, diff)
		}
		kind := reflect.TypeOf(message)
		if held[kind] == nil {
			held[kind] = map[string]bool{}
		}
		hold("", reflect.ValueOf(message), held[kind])
	}
	for kind, fields := range held {
		for _, field := range leaves("", kind) {
			if !fields[field] {
				t.Errorf("%s%s is not frozen: write a file beside the old ones that holds it", kind.Name(), field)
			}
		}
	}
}

// leaves lists the fields of a kind of message that hold something by themselves.
func leaves(at string, kind reflect.Type) (out []string) {
	switch kind.Kind() {
	case reflect.Pointer, reflect.Slice:
		return leaves(at, kind.Elem())
	case reflect.Struct:
		for i := range kind.NumField() {
			out = append(out, leaves(at+"."+kind.Field(i).Name, kind.Field(i).Type)...)
		}
		return out
	}
	return []string{at}
}

// hold notes the leaves that a message sets.
func hold(at string, v reflect.Value, to map[string]bool) {
	switch {
	case v.IsZero():
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			hold(at+"."+v.Type().Field(i).Name, v.Field(i), to)
		}
	case v.Kind() == reflect.Pointer:
		hold(at, v.Elem(), to)
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			hold(at, v.Index(i), to)
		}
	default:
		to[at] = true
	}
}

func TestSectionRoundTrip(t *testing.T) {
	want := app.Section{Facts: fleet.Facts{Name: "shop-1", Zone: "north"}, Apps: []app.Placement{placement("a"), placement("b"), placement("c")}}
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := app.DecodeSection(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was decoded differs (-want +got):\n%s", diff)
	}
	// The order in which a hub found its apps must not change the section's digest.
	shuffled := app.Section{Facts: want.Facts, Apps: []app.Placement{placement("c"), placement("a"), placement("b")}}
	again, err := shuffled.Encode()
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("another order makes another section: %v", err)
	}
}

func TestDecodeSectionRefuses(t *testing.T) {
	tests := []struct {
		want, reason string
		change       func(*app.Placement)
	}{
		{"app", "the name of an app is checked", func(p *app.Placement) { p.App.Name = "../x" }},
		{"namespace", "so is its namespace", func(p *app.Placement) { p.App.Namespace = "" }},
		{"bundle.digest", "content is named by digest", func(p *app.Placement) { p.Bundle.Digest = "latest" }},
		{"bundle.size", "an index has a size", func(p *app.Placement) { p.Bundle.Size = 0 }},
		{"bundle.size", "an index is bounded", func(p *app.Placement) { p.Bundle.Size = app.MaxManifestBytes + 1 }},
		{"bundle.repository", "a repository becomes a path of the hub", func(p *app.Placement) { p.Bundle.Repository = "../../view" }},
		{"bundle.repository", "without a repository nothing can be fetched", func(p *app.Placement) { p.Bundle.Repository = "" }},
		{"route.path", "a route begins with a slash", func(p *app.Placement) { p.Route.Path = "hello" }},
		{"env", "the agent's variables are its own", func(p *app.Placement) { p.Env["SKERRY_SITE"] = "x" }},
		{"env", "a zero byte ends a value", func(p *app.Placement) { p.Env["A"] = "x\x00" }},
		{"secretRefs[0]: name", "a Secret is named in its own namespace", func(p *app.Placement) { p.Secrets = []app.SecretRef{{Name: "../other/db"}} }},
		{"digest", "a placement is known by its digest", func(p *app.Placement) { p.Digest = "" }},
	}
	for _, tt := range tests {
		bad := placement("b")
		tt.change(&bad)
		data, err := json.Marshal(app.Section{Apps: []app.Placement{placement("a"), bad}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := app.DecodeSection(data)
		if !errors.Is(err, wire.ErrMessage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: answered with %v: %s", tt.want, err, tt.reason)
		}
		if len(got.Apps) > 0 {
			t.Errorf("%s: half of a section was returned: %s", tt.want, tt.reason)
		}
	}
	twice, err := json.Marshal(app.Section{Apps: []app.Placement{placement("a"), placement("a")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.DecodeSection(twice); !errors.Is(err, wire.ErrMessage) || !strings.Contains(err.Error(), "default/a is named twice") {
		t.Errorf("an app that is named twice was answered with %v", err)
	}
	if _, err := app.DecodeSection(bytes.Repeat([]byte(" "), wire.MaxMessage+1)); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a section beyond the bound was answered with %v", err)
	}
	many := app.Section{}
	for range 2000 {
		many.Apps = append(many.Apps, placement("a"))
	}
	if _, err := many.Encode(); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a section that cannot travel was encoded: %v", err)
	}
}

// TestSeal changes each field of a placement: its digest must follow, or a site would not notice.
func TestSeal(t *testing.T) {
	base := placement("a")
	if err := base.Seal(); err != nil {
		t.Fatal(err)
	}
	again := placement("a")
	again.Digest = "whatever stood here before"
	if err := again.Seal(); err != nil || again.Digest != base.Digest {
		t.Errorf("the same placement has digests %s and %s: %v", base.Digest, again.Digest, err)
	}
	for name, change := range map[string]func(*app.Placement){
		"app": func(p *app.Placement) { p.App.Name = "b" }, "release": func(p *app.Placement) { p.Release = "x" },
		"version": func(p *app.Placement) { p.Version = "x" }, "bundle": func(p *app.Placement) { p.Bundle.Size++ },
		"route": func(p *app.Placement) { p.Route = nil }, "path": func(p *app.Placement) { p.Route.Path = "/x" },
		"env": func(p *app.Placement) { p.Env["B"] = "c" }, "root": func(p *app.Placement) { p.AllowRoot = false },
		"secrets": func(p *app.Placement) { p.Secrets = []app.SecretRef{{Name: "db"}} },
		"data":    func(p *app.Placement) { p.RemoveData = false },
	} {
		p := placement("a")
		change(&p)
		if err := p.Seal(); err != nil || p.Digest == base.Digest {
			t.Errorf("a changed %s leaves the digest as it was: %v", name, err)
		}
	}
}

func FuzzDecodeSection(f *testing.F) {
	for _, s := range []app.Section{{}, {Apps: []app.Placement{placement("a"), withSecrets(placement("b"))}}} {
		data, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := app.DecodeSection(data)
		if err != nil {
			if !errors.Is(err, wire.ErrMessage) {
				t.Errorf("error does not wrap ErrMessage: %v", err)
			}
			return
		}
		again, err := s.Encode()
		if errors.Is(err, wire.ErrTooLarge) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		twice, err := app.DecodeSection(again)
		if err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v\n%s", err, again)
		}
		if third, err := twice.Encode(); err != nil || !bytes.Equal(again, third) {
			t.Errorf("encoding is not stable: %v\n%s\n%s", err, again, third)
		}
	})
}

// TestSectionHolds encodes as many configurations as the documents promise a site.
func TestSectionHolds(t *testing.T) {
	section := func(apps int) error {
		s := app.Section{Facts: fleet.Facts{Name: "shop-1"}}
		for n := range apps {
			p := placement(fmt.Sprintf("app-%d", n))
			p.Config = &app.Config{
				Values: json.RawMessage(`{"a":"` + strings.Repeat("v", 5<<10) + `"}`),
				Files:  map[string]string{"app.conf": strings.Repeat("listen 8080 # and so on, 40 characters\n", 128)},
			}
			s.Apps = append(s.Apps, p)
		}
		_, err := s.Encode()
		return err
	}
	if err := section(20); err != nil {
		t.Errorf("20 apps with 10 KiB of configuration each: %v", err)
	}
	if err := section(30); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("30 apps with 10 KiB of configuration each: %v, want %v", err, wire.ErrTooLarge)
	}
}

// TestPlacementConfig refuses configurations that no hub makes.
func TestPlacementConfig(t *testing.T) {
	for values, files := range map[string]map[string]string{
		`[]`: nil, `null`: nil, `"x"`: nil,
		`{}`: {"../x": ""}, `{"a":1}`: {"values.json": ""}, `{"a":2}`: {"a": "", "a/b": ""},
	} {
		p := placement("hello")
		p.Config = &app.Config{Values: json.RawMessage(values), Files: files}
		data, err := app.Section{Apps: []app.Placement{p}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := app.DecodeSection(data); !errors.Is(err, wire.ErrMessage) || !errors.Is(err, app.ErrConfig) {
			t.Errorf("values %s, files %v: %v", values, files, err)
		}
	}
}

func FuzzDecodeLogsRequest(f *testing.F) {
	f.Add([]byte(`{"app":"default/hello","tail":-1,"follow":true}`))
	f.Add([]byte(`{"app":"..","tail":99999999}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := app.DecodeLogsRequest(data)
		if err != nil {
			return
		}
		if r.App.Validate() != nil || r.Tail < 0 || r.Tail > app.MaxTail {
			t.Errorf("%s is taken as %+v", data, r)
		}
	})
}
