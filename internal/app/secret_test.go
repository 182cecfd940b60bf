package app_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

func TestCheckSecretRefs(t *testing.T) {
	file := func(path string) []app.SecretRef {
		return []app.SecretRef{{Name: "db", Files: []app.SecretFile{{Path: path, Key: "k"}}}}
	}
	variable := func(name string) app.SecretRef {
		return app.SecretRef{Name: "db", Env: []app.SecretEnv{{Name: name, Key: "k"}}}
	}
	tests := []struct {
		reason, want string
		refs         []app.SecretRef
	}{
		{"nothing", "", nil},
		{"a whole Secret", "", []app.SecretRef{{Name: "db"}}},
		{"a DNS subdomain", "", []app.SecretRef{{Name: "a.b-1.c"}}},
		{"files in directories", "", file("a/b/.c")},
		{"the same key twice", "", []app.SecretRef{{Name: "db", Env: []app.SecretEnv{{Name: "A", Key: "k"}, {Name: "B", Key: "k"}}}}},
		{"another namespace", "secretRefs[0]: name", []app.SecretRef{{Name: "other/db"}}},
		{"a way out", "secretRefs[0]: name", []app.SecretRef{{Name: "../x/y"}}},
		{"no name", "secretRefs[0]: name", []app.SecretRef{{}}},
		{"an endless name", "secretRefs[0]: name", []app.SecretRef{{Name: strings.Repeat("a.", 150) + "a"}}},
		{"a Secret twice", "secretRefs[1]: name: \"db\" is named twice", []app.SecretRef{{Name: "db"}, {Name: "db"}}},
		{"the agent's variable", "env[0]: variable \"SKERRY_X\"", []app.SecretRef{variable("SKERRY_X")}},
		{"its port", "env[0]: variable \"PORT\"", []app.SecretRef{variable("PORT")}},
		{"a variable of env", "variable \"TAKEN\" is set twice", []app.SecretRef{variable("TAKEN")}},
		{"a variable of two Secrets", "variable \"A\" is set twice", []app.SecretRef{variable("A"), {Name: "dc", Env: variable("A").Env}}},
		{"a key with a slash", "key \"a/b\"", []app.SecretRef{{Name: "db", Env: []app.SecretEnv{{Name: "A", Key: "a/b"}}}}},
		{"a file's key with a slash", "key \"..\"", []app.SecretRef{{Name: "db", Files: []app.SecretFile{{Path: "a", Key: ".."}}}}},
		{"a path out", "files[0]: path", file("../a")},
		{"a path that is absolute", "files[0]: path", file("/a")},
		{"a path into the layout", "files[0]: path", file("..data")},
		{"a path into a layout below", "files[0]: path", file("a/..b")},
		{"no path", "files[0]: path", file("")},
		{"an endless path", "files[0]: path", file(strings.Repeat("a/", 130) + "a")},
		{"a path twice", "path \"db\" is used twice", []app.SecretRef{{Name: "db"}, {Name: "dc", Files: []app.SecretFile{{Path: "db", Key: "k"}}}}},
		{"a file below a file", "would lie below", []app.SecretRef{{Name: "db", Files: []app.SecretFile{{Path: "a", Key: "k"}, {Path: "a/b/c", Key: "k"}}}}},
		{"a file below a whole Secret", "would lie below", []app.SecretRef{{Name: "db"}, {Name: "dc", Files: []app.SecretFile{{Path: "db/x", Key: "k"}}}}},
		{"too many", "at most 16", make([]app.SecretRef, 17)},
		{"too many keys", "at most 64", []app.SecretRef{{Name: "db", Env: make([]app.SecretEnv, 65)}}},
	}
	for _, tt := range tests {
		err := app.CheckSecretRefs(tt.refs, map[string]string{"TAKEN": ""})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: answered with %v, want %q", tt.reason, err, tt.want)
		}
	}
}

// there are two Secrets.
func there(name string) (map[string]fleet.SecretValue, bool) {
	v := func(s string) fleet.SecretValue { return fleet.SecretValue(s) }
	values, ok := map[string]map[string]fleet.SecretValue{
		"db":  {"password": v("hunter2"), "user": v("ana")},
		"bin": {"raw": {0, 1}, "../evil": v("x")},
	}[name]
	return values, ok
}

func resolve(t *testing.T, refs ...app.SecretRef) app.SecretValues {
	t.Helper()
	values, err := app.ResolveSecrets(refs, there)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func strs(values map[string]fleet.SecretValue) map[string]string {
	out := map[string]string{}
	for k, v := range values {
		out[k] = string(v)
	}
	return out
}

func TestResolveSecrets(t *testing.T) {
	env := []app.SecretEnv{{Name: "PASS", Key: "password"}}
	got := resolve(t,
		app.SecretRef{Name: "db", Env: env, Files: []app.SecretFile{{Path: "conf/user", Key: "user"}}},
		app.SecretRef{Name: "bin"},
		app.SecretRef{Name: "gone", Optional: true, Env: []app.SecretEnv{{Name: "X", Key: "x"}}},
	)
	if diff := cmp.Diff(map[string]string{"PASS": "hunter2"}, strs(got.Env())); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"conf/user": "ana", "bin/raw": "\x00\x01"}, strs(got.Files())); diff != "" {
		t.Errorf("a key that is no file name must not become one (-want +got):\n%s", diff)
	}
	tests := []struct {
		reason, want string
		kind         error
		ref          app.SecretRef
	}{
		{"no such Secret", "secret gone", app.ErrSecretMissing, app.SecretRef{Name: "gone"}},
		{"no such key", "secret db: key token", app.ErrSecretMissing, app.SecretRef{Name: "db", Env: []app.SecretEnv{{Name: "T", Key: "token"}}}},
		{"no such key for a file", "secret db: key token", app.ErrSecretMissing, app.SecretRef{Name: "db", Files: []app.SecretFile{{Path: "t", Key: "token"}}}},
		{"a zero byte in a variable", "secret bin: key raw", app.ErrSecretUnusable, app.SecretRef{Name: "bin", Env: []app.SecretEnv{{Name: "RAW", Key: "raw"}}}},
		{"also when it is optional", "secret bin: key raw", app.ErrSecretUnusable, app.SecretRef{Name: "bin", Optional: true, Env: []app.SecretEnv{{Name: "RAW", Key: "raw"}}}},
	}
	for _, tt := range tests {
		_, err := app.ResolveSecrets([]app.SecretRef{tt.ref}, there)
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: answered with %v", tt.reason, err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(text, "hunter2") {
		t.Errorf("what an instance gets can be printed: %s", text)
	}
	partly := resolve(t, app.SecretRef{Name: "db", Optional: true, Env: append([]app.SecretEnv{{Name: "T", Key: "token"}}, env...)})
	if diff := cmp.Diff(map[string]string{"PASS": "hunter2"}, strs(partly.Env())); diff != "" {
		t.Errorf("of an optional Secret the keys that are there are given (-want +got):\n%s", diff)
	}
}

func TestSecretsChanged(t *testing.T) {
	refs := []app.SecretRef{{Name: "db", Env: []app.SecretEnv{{Name: "PASS", Key: "password"}}}, {Name: "bin"}}
	old := resolve(t, refs...)
	if changed := old.Changed(resolve(t, refs...)); len(changed) != 0 {
		t.Errorf("nothing changed, told were %v", changed)
	}
	other := func(name string) (map[string]fleet.SecretValue, bool) {
		values, ok := there(name)
		if name == "db" {
			values["user"] = fleet.SecretValue("bob")
		} else {
			values["more"] = fleet.SecretValue("x")
		}
		return values, ok
	}
	newer, err := app.ResolveSecrets(refs, other)
	if err != nil {
		t.Fatal(err)
	}
	if changed := old.Changed(newer); len(changed) != 1 || changed[0].Name != "bin" {
		t.Errorf("a key that the app does not use changed, and a file came: told were %v, want bin alone", changed)
	}
	if got := refs[0].Keys(); !cmp.Equal(got, []string{"password"}) || refs[1].Keys() != nil {
		t.Errorf("keys are %v and %v", got, refs[1].Keys())
	}
	if app.HasFiles(refs[:1]) || !app.HasFiles(refs) {
		t.Error("HasFiles is wrong of variables alone, or of a whole Secret")
	}
}
