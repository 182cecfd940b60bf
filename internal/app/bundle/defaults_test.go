package bundle

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
)

// prebuilt is an app of files alone, which builds at once.
func prebuilt(t *testing.T, more string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "run.sh", "#!/bin/sh\n", 0o755)
	write(t, dir, SourceFile, "name: till\nruntime: process\nbuild: {files: [{from: run.sh}]}\nprocess: {command: [run.sh]}\nplatforms: [linux/amd64]\n"+more, 0o644)
	for name, content := range files {
		write(t, dir, name, content, 0o644)
	}
	return dir
}

func TestDefaults(t *testing.T) {
	dir := prebuilt(t, "config: {files: [{path: conf.d/a.conf, from: conf/a.conf}, {path: b.conf, content: 'port ${values.port}'}, {path: empty}]}\n", map[string]string{
		ValuesFile: "port: 80 # usual\nname: till\n", SchemaFile: `{"properties": {"port": {"type": "integer"}}}`, "conf/a.conf": "site ${site.name}\n",
	})
	b := build(t, dir, "1.0.0", Options{})
	want := &app.Defaults{
		Values: json.RawMessage(`{"name":"till","port":80}`), Schema: json.RawMessage(`{"properties":{"port":{"type":"integer"}}}`),
		Files: map[string]string{"conf.d/a.conf": "site ${site.name}\n", "b.conf": "port ${values.port}", "empty": ""},
	}
	if diff := cmp.Diff(want, b.Config.Defaults); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	if again := build(t, dir, "1.0.0", Options{}); again.Digest != b.Digest {
		t.Error("the same source gives another digest")
	}
	write(t, dir, ValuesFile, "port: 81\nname: till\n", 0o644)
	if other := build(t, dir, "1.0.0", Options{}); other.Digest == b.Digest {
		t.Error("other values give the same digest")
	}
	if none := build(t, prebuilt(t, "", nil), "1.0.0", Options{}); none.Config.Defaults != nil {
		t.Errorf("an app without configuration has %+v", none.Config.Defaults)
	}
	if empty := build(t, prebuilt(t, "", map[string]string{ValuesFile: "# nothing yet\n"}), "1.0.0", Options{}); string(empty.Config.Defaults.Values) != "{}" {
		t.Errorf("values of comments alone are %+v", empty.Config.Defaults)
	}
}

func TestDefaultsRefused(t *testing.T) {
	file := func(fields string) string { return "config: {files: [{" + fields + "}]}\n" }
	tests := []struct {
		more   string
		files  map[string]string
		says   string
		reason string
	}{
		{"", map[string]string{ValuesFile: "a: 1\na: 2\n"}, ValuesFile, "one name twice"},
		{"", map[string]string{ValuesFile: "[1]\n"}, "defaults.values: want an object", "values have names"},
		{"", map[string]string{SchemaFile: "{"}, SchemaFile, "no JSON"},
		{"", map[string]string{SchemaFile: "true"}, "defaults.schema: want an object", "a schema that says nothing"},
		{"", map[string]string{ValuesFile: "a: " + strings.Repeat("x", app.MaxSiteConfigBytes)}, "more than 65536 bytes", "more than a site is told"},
		{"config: {file: []}\n", nil, "config.file: there is no such field", "a typing error"},
		{file("path: a, from: nobody"), nil, "nobody", "a file that is not there"},
		{file("path: a, from: ../x"), nil, "config.files[0].from", "one outside of the app's directory"},
		{file("path: a, from: run.sh, content: x"), nil, "set one of from and content", "two contents"},
		{file("path: values.json"), nil, "values.json", "the agent's own file"},
		{file("path: ../a"), nil, "../a", "a path that leaves the configuration"},
		{file("path: a, content: '${PORT}'"), nil, "${PORT}: want values.PATH", "a reference that leads nowhere"},
		{file("path: a, from: bin"), map[string]string{"bin": "\xff\xfe"}, "not text in UTF-8", "a configuration is text"},
		{"", map[string]string{"unused": ""}, "", "other files do not matter"},
	}
	for _, tt := range tests {
		b, err := Build(t.Context(), prebuilt(t, tt.more, tt.files), "1.0.0", Options{})
		if err == nil {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: want an error that says %q, got %v", tt.reason, tt.says, err)
		}
	}
	dir := prebuilt(t, file("path: a, from: link"), nil)
	if err := os.Symlink(filepath.Join(os.TempDir(), "elsewhere"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), dir, "1.0.0", Options{}); !errors.Is(err, ErrSource) {
		t.Errorf("a link out of the app's directory: %v", err)
	}
}
