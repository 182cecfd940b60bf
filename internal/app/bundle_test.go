package app_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
)

func TestParseBundleConfig(t *testing.T) {
	process := func(fields string) string {
		return `{"name":"hello","version":"1.0.0","runtime":"process","process":{"command":["bin/hello"]` + fields + `}}`
	}
	tests := []struct{ in, want, reason string }{
		{process(``), "", "the least that a program needs"},
		{process(`,"later":{"a":1}`), "", "a newer tool may say more"},
		{`{"runtime":"later"}`, "", "another runtime is the site's to refuse"},
		{process(`,"env":{"GREETING":"hi","_x1":""},"data":["db","files"],"stopGraceSeconds":20`), "", "everything in bounds"},
		{process(`,"readiness":{"path":"/ready","periodSeconds":86400},"limits":{"memoryBytes":9223372036854775807}`), "", "the highest numbers"},
		{`{"name":"hello"}`, "runtime", "without a runtime nobody can run it"},
		{`{"runtime":"process"}`, "process", "a program must say how it is run"},
		{`{"runtime":"process","process":{}}`, "process.command", "nothing to run"},
		{`{"runtime":"process","process":{"command":[""]}}`, "process.command[0]", "an empty path is no program"},
		{`{"runtime":"process","process":{"command":["/bin/sh"]}}`, "/bin/sh", "a program of the machine is not of the bundle"},
		{`{"runtime":"process","process":{"command":["../sh"]}}`, "../sh", "a path that leaves the bundle"},
		{`{"runtime":"process","process":{"command":["bin/../../sh"]}}`, "process.command[0]", "a path that leaves the bundle later"},
		{`{"runtime":"process","process":{"command":["bin/hello","a\u0000b"]}}`, "process.command[1]", "an argument ends at a zero byte"},
		{process(`,"env":{"PORT":"1"}`), "PORT", "the agent sets the port"},
		{process(`,"env":{"SKERRY_SITE":"x"}`), "SKERRY_SITE", "the agent says who the site is"},
		{process(`,"env":{"1A":"x"}`), "1A", "no shell could read such a name"},
		{process(`,"env":{"":"x"}`), "process.env", "a name is not empty"},
		{process(`,"env":{"A=B":"x"}`), "A=B", "the name ends at the first equals sign"},
		{process(`,"env":{"A":"x\u0000y"}`), `"A"`, "a value ends at a zero byte"},
		{process(`,"data":["../x"]`), "process.data[0]", "a data directory stays below the app's own"},
		{process(`,"data":["db","db"]`), "process.data[1]", "two directories of one name would be one"},
		{process(`,"readiness":{"path":"ready"}`), "process.readiness.path", "a path begins with a slash"},
		{process(`,"liveness":{}`), "process.liveness.path", "a probe asks for something"},
		{process(`,"liveness":{"path":"/","periodSeconds":-1}`), "process.liveness.periodSeconds", "no timer takes a negative period"},
		{process(`,"liveness":{"path":"/","timeoutSeconds":86401}`), "process.liveness.timeoutSeconds", "a day is the most"},
		{process(`,"readiness":{"path":"/","failureThreshold":-3}`), "process.readiness.failureThreshold", "nothing fails less than never"},
		{process(`,"readiness":{"path":"/","initialDelaySeconds":9223372036}`), "process.readiness.initialDelaySeconds", "it would overflow when multiplied"},
		{process(`,"stopGraceSeconds":-1`), "process.stopGraceSeconds", "time does not run backwards"},
		{process(`,"limits":{"memoryBytes":-1}`), "process.limits.memoryBytes", "a limit is not negative"},
		{process(`,"limits":{"cpuMillis":-1}`), "process.limits.cpuMillis", "a limit is not negative"},
		{process(`,"limits":{"pids":-1}`), "process.limits.pids", "a limit is not negative"},
		{process(`,"limits":{"pids":1.5}`), "config", "half a process is none"},
		{``, "config", "nothing is no config"},
		{`null`, "runtime", "null is no config"},
		{`{"name":"` + strings.Repeat("x", app.MaxConfigBytes) + `"}`, "at most 262144", "what is larger is not read"},
	}
	for _, tt := range tests {
		_, err := app.ParseBundleConfig([]byte(tt.in))
		in := tt.in[:min(len(tt.in), 150)]
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v: %s", in, err, tt.reason)
		case tt.want != "" && err == nil:
			t.Errorf("%s was accepted: %s", in, tt.reason)
		case err != nil && !errors.Is(err, app.ErrBundle):
			t.Errorf("%s: error does not wrap ErrBundle: %v", in, err)
		case err != nil && !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s: error does not name %s: %v", in, tt.want, err)
		}
	}
}

func TestLocalPath(t *testing.T) {
	for path, want := range map[string]bool{
		"bin/hello": true, "hello": true, "a/.b/..c": true,
		"": false, ".": false, "..": false, "../a": false, "/a": false, "a/": false, "./a": false, "a//b": false,
		"a/../b": false, "a/..": false, `a\b`: false, "a\x00b": false,
	} {
		if got := app.LocalPath(path); got != want {
			t.Errorf("LocalPath(%q) = %v", path, got)
		}
	}
}

func FuzzParseBundleConfig(f *testing.F) {
	f.Add([]byte(`{"name":"hello","version":"1","runtime":"process","process":{"command":["bin/hello"],"env":{"A":"b"},"data":["d"],"readiness":{"path":"/"}}}`))
	f.Add([]byte(`{"runtime":"wasm","wasm":{"module":"a.wasm","outbound":["*.example.com:443","[::1]:*"],"schedules":[{"name":"a","cron":"*/5 * * * *"}],"keyValue":{}}}`))
	f.Add([]byte(`{"runtime":"wasm","wasm":{"module":"a.wasm","schedules":[{"name":"a","cron":"TZ=0"}]}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := app.ParseBundleConfig(data)
		if err != nil {
			if !errors.Is(err, app.ErrBundle) {
				t.Errorf("error does not wrap ErrBundle: %v", err)
			}
			return
		}
		if c.Process != nil && c.Runtime == app.RuntimeProcess {
			if !app.LocalPath(c.Process.Command[0]) {
				t.Errorf("command %q leaves the bundle", c.Process.Command[0])
			}
			for name := range c.Process.Env {
				if name == "PORT" || strings.ContainsAny(name, "=\x00") {
					t.Errorf("variable %q was accepted", name)
				}
			}
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > app.MaxConfigBytes {
			return
		}
		twice, err := app.ParseBundleConfig(again)
		if err != nil {
			t.Fatalf("what was accepted is refused once it is written again: %v", err)
		}
		if third, err := json.Marshal(twice); err != nil || cmp.Diff(string(again), string(third)) != "" {
			t.Errorf("encoding is not stable: %v\n%s\n%s", err, again, third)
		}
	})
}
