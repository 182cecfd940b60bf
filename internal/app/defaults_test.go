package app_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/app"
)

func TestCheckDefaults(t *testing.T) {
	config := func(env string, d *app.Defaults) app.BundleConfig {
		return app.BundleConfig{Runtime: app.RuntimeProcess, Defaults: d, Process: &app.ProcessConfig{
			Command: []string{"bin/hello"}, Env: map[string]string{"A": env},
		}}
	}
	tests := []struct {
		config app.BundleConfig
		says   string
		reason string
	}{
		{config("$HOME", nil), "", "none"},
		{config("${values.a:-b} ${site.name} $${x}", &app.Defaults{
			Values: json.RawMessage(`{}`), Schema: json.RawMessage(`{}`), Files: map[string]string{"a": "${values.b}", "b": ""},
		}), "", "all of it"},
		{config("${HOME}", nil), `process.env: variable "A": ${HOME}: want values.PATH`, "a reference that leads nowhere"},
		{config("", &app.Defaults{Values: json.RawMessage(`[]`)}), "defaults.values: want an object", "values have names"},
		{config("", &app.Defaults{Values: json.RawMessage(`null`)}), "defaults.values: want an object", "null is none"},
		{config("", &app.Defaults{Schema: json.RawMessage(`true`)}), "defaults.schema: want an object", "a schema that says nothing"},
		{config("", &app.Defaults{Files: map[string]string{"../a": ""}}), "../a", "a path that leaves the configuration"},
		{config("", &app.Defaults{Files: map[string]string{"a": "${"}}), `defaults.files: "a": ${`, "a reference in a file"},
	}
	for _, tt := range tests {
		err := tt.config.CheckDefaults()
		if (err == nil) != (tt.says == "") || err != nil && (!errors.Is(err, app.ErrBundle) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("want an error that says %q, got %v: %s", tt.says, err, tt.reason)
		}
		if err := tt.config.Validate(); err != nil {
			t.Errorf("a site refuses what is the hub's: %v", err)
		}
	}
}
