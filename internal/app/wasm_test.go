package app_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
)

func TestParseWasmConfig(t *testing.T) {
	wasm := func(fields string) string {
		return `{"name":"hello","version":"1.0.0","runtime":"wasm","wasm":{"module":"bin/hello.wasm"` + fields + `}}`
	}
	tests := []struct{ in, want, reason string }{
		{wasm(``), "", "the least that a module needs"},
		{wasm(`,"later":{"a":1}`), "", "a newer tool may say more"},
		{wasm(`,"env":{"GREETING":"hi"},"data":["db"],"exclusiveData":true,"keyValue":{"keys":10,"bytes":1000}`), "", "everything in bounds"},
		{wasm(`,"limits":{"memoryBytes":1073741824,"timeoutSeconds":3600,"concurrency":256,"queue":4096,"prepared":64}`), "", "the highest numbers"},
		{wasm(`,"limits":{"queue":-1,"prepared":-1}`), "", "none is said by -1"},
		{wasm(`,"outbound":["api.example.com:443","*.example.com:443","*:443","10.0.0.5:80","10.0.0.0/8:*","[fd00::/8]:443","[::1]:80"]`), "", "every form of an entry"},
		{wasm(`,"tasks":[{"name":"poll","args":["-v"]}],"schedules":[{"name":"night","cron":"0 3 * * MON-FRI","timeoutSeconds":60},{"name":"hour","cron":"@hourly"}]`), "", "tasks and schedules"},
		{`{"runtime":"wasm"}`, "wasm: must be set", "a module must say how it is run"},
		{`{"runtime":"wasm","wasm":{"module":"a"},"process":{"command":["a"]}}`, "process", "two ways to run one bundle"},
		{`{"runtime":"process","wasm":{"module":"a"},"process":{"command":["a"]}}`, "wasm", "two ways to run one bundle"},
		{`{"runtime":"wasm","wasm":{}}`, "wasm.module", "nothing to run"},
		{`{"runtime":"wasm","wasm":{"module":"../a.wasm"}}`, "wasm.module", "a path that leaves the bundle"},
		{wasm(`,"env":{"HTTP_HOST":"x"}`), "HTTP_HOST", "a header of the request is the caller's"},
		{wasm(`,"env":{"PATH_INFO":"x"}`), "PATH_INFO", "the request says its path"},
		{wasm(`,"env":{"SKERRY_SITE":"x"}`), "SKERRY_SITE", "the agent says who the site is"},
		{wasm(`,"data":["skerry-kv"]`), "wasm.data[0]", "the directory of the key-value storage is the agent's"},
		{wasm(`,"data":["a","a"]`), "wasm.data[1]", "two directories of one name would be one"},
		{wasm(`,"limits":{"memoryBytes":1073741825}`), "wasm.limits.memoryBytes", "one more than the most"},
		{wasm(`,"limits":{"timeoutSeconds":3601}`), "wasm.limits.timeoutSeconds", "an hour is the most"},
		{wasm(`,"limits":{"concurrency":-1}`), "wasm.limits.concurrency", "nothing could be served"},
		{wasm(`,"limits":{"queue":-2}`), "wasm.limits.queue", "-1 is the only number below zero"},
		{wasm(`,"limits":{"prepared":65}`), "wasm.limits.prepared", "each costs memory"},
		{wasm(`,"limits":{"outputBytes":-1}`), "wasm.limits.outputBytes", "a limit is not negative"},
		{wasm(`,"limits":{"headerBytes":262145}`), "wasm.limits.headerBytes", "a header is held in memory"},
		{wasm(`,"limits":{"outboundCalls":1001}`), "wasm.limits.outboundCalls", "one more than the most"},
		{wasm(`,"keyValue":{"keys":100001}`), "wasm.keyValue.keys", "keys are held in memory"},
		{wasm(`,"outbound":["example.com"]`), "wasm.outbound[0]", "an entry has a port"},
		{wasm(`,"outbound":["a.b:443","example.com:0"]`), "wasm.outbound[1]", "zero is no port"},
		{wasm(`,"outbound":["::1:80"]`), "wasm.outbound[0]", "an IPv6 address stands in brackets"},
		{wasm(`,"outbound":["a*.example.com:80"]`), "wasm.outbound[0]", "a star is a whole label, and the first"},
		{wasm(`,"outbound":["1234567:80"]`), "wasm.outbound[0]", "a number alone could be read as an address"},
		{wasm(`,"outbound":["http://example.com:80"]`), "wasm.outbound[0]", "an entry is no URL"},
		{wasm(`,"tasks":[{"name":"a"},{"name":"a"}]`), "wasm.tasks[1].name", "SKERRY_TASK would not tell them apart"},
		{wasm(`,"tasks":[{"name":"a"}],"schedules":[{"name":"a","cron":"@daily"}]`), "wasm.schedules[0].name", "SKERRY_TASK would not tell them apart"},
		{wasm(`,"tasks":[{"name":"A b"}]`), "wasm.tasks[0].name", "a name is a DNS label"},
		{wasm(`,"schedules":[{"name":"a","cron":"* * *"}]`), "wasm.schedules[0].cron", "five fields"},
		{wasm(`,"schedules":[{"name":"a","cron":"TZ=0"}]`), "wasm.schedules[0].cron", "the zone is the site's"},
		{wasm(`,"schedules":[{"name":"a","cron":"@every 1ns"}]`), "wasm.schedules[0].cron", "an interval is no time"},
		{wasm(`,"schedules":[{"name":"a","cron":"0 0 30 2 *"}]`), "wasm.schedules[0].cron", "February has no 30th"},
		{wasm(`,"schedules":[{"name":"a","cron":"@daily","timeoutSeconds":86401}]`), "wasm.schedules[0].timeoutSeconds", "a day is the most"},
	}
	for _, tt := range tests {
		_, err := app.ParseBundleConfig([]byte(tt.in))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v: %s", tt.in, err, tt.reason)
		case tt.want != "" && err == nil:
			t.Errorf("%s was accepted: %s", tt.in, tt.reason)
		case err != nil && !errors.Is(err, app.ErrBundle):
			t.Errorf("%s: error does not wrap ErrBundle: %v", tt.in, err)
		case err != nil && !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s: error does not name %s: %v", tt.in, tt.want, err)
		}
	}
}

func TestWasmDefaults(t *testing.T) {
	got := app.WasmLimits{Queue: -1, Prepared: -1, TimeoutSeconds: 3}.WithDefaults()
	want := app.WasmLimits{
		MemoryBytes: 64 << 20, TimeoutSeconds: 3, Concurrency: 16, OutputBytes: 32 << 20, HeaderBytes: 16 << 10,
		OutboundCalls: 16, OutboundBytes: 8 << 20,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	config := app.BundleConfig{Wasm: &app.WasmConfig{Data: []string{"db"}, KeyValue: &app.WasmKeyValue{}, Env: map[string]string{"A": "b"}, ExclusiveData: true}}
	if diff := cmp.Diff([]string{"db", app.KeyValueDir}, config.DataDirs()); diff != "" {
		t.Errorf("the key-value storage has a directory that outlives releases (-want +got):\n%s", diff)
	}
	if config.Environment()["A"] != "b" || !config.ExclusiveData() {
		t.Error("what the bundle declares is not what the site hears")
	}
}

func TestOutboundEntry(t *testing.T) {
	tests := []struct {
		entry string
		want  app.Outbound
		holds string // names, those with "!" in front it must not hold
	}{
		{"Api.Example.com:443", app.Outbound{Name: "api.example.com", Port: 443}, "api.example.com !x.api.example.com !example.com"},
		{"*.example.com:*", app.Outbound{Name: "example.com", Below: true}, "a.example.com a.b.example.com !example.com !badexample.com"},
		{"*:80", app.Outbound{Below: true, Port: 80}, "anything.test"},
		{"10.1.2.3/8:80", app.Outbound{Net: netip.MustParsePrefix("10.0.0.0/8"), Port: 80}, "!10.1.2.3"},
		{"[::ffff:10.0.0.1]:80", app.Outbound{Net: netip.MustParsePrefix("10.0.0.1/32"), Port: 80}, ""},
	}
	for _, tt := range tests {
		got, err := app.ParseOutbound(tt.entry)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v, want %+v", tt.entry, got, err, tt.want)
		}
		for name := range strings.FieldsSeq(tt.holds) {
			name, not := strings.CutPrefix(name, "!")
			if got.MatchesName(name) == not {
				t.Errorf("%s holds %s: %v", tt.entry, name, !not)
			}
		}
	}
}

func TestCron(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for expr, want := range map[string]time.Time{
		"*/5 * * * *": at.Add(5 * time.Minute),
		"0 3 * * MON": time.Date(2026, 3, 2, 3, 0, 0, 0, time.UTC),
		"0 0 29 2 *":  time.Date(2028, 2, 29, 0, 0, 0, 0, time.UTC),
		"@daily":      time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC),
	} {
		s, err := app.ParseCron(expr)
		if err != nil || !s.Next(at).Equal(want) {
			t.Errorf("%s: after %s comes %v (%v), want %s", expr, at, s, err, want)
		}
	}
}
