package appapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/fleet"
)

func TestReleaseNamesSecrets(t *testing.T) {
	plain := freeze(t, hello(), resolved())
	a := hello()
	a.Spec.SecretRefs = []v1alpha1.SecretRef{
		{Name: "db", Env: []v1alpha1.SecretEnv{{Name: "PASS", Key: "password"}}, OnChange: v1alpha1.SecretRestart},
		{Name: "keys", Optional: true, OnChange: v1alpha1.SecretSignal, Files: []v1alpha1.SecretFile{{Path: "a/b", Key: "k"}}},
	}
	release := freeze(t, a, resolved())
	if release.Name == plain.Name {
		t.Error("an app that needs Secrets has the release of one that needs none")
	}
	before := release.DeepCopy()
	a.Spec.SecretRefs[0].Env[0].Key = "changed"
	if diff := cmp.Diff(before, release); diff != "" {
		t.Errorf("changing the app changed what was frozen (-before +after):\n%s", diff)
	}
	got, err := appapi.Render(release, fleet.Facts{Name: "shop-1"})
	if err != nil {
		t.Fatal(err)
	}
	want := []app.SecretRef{
		{Name: "db", Env: []app.SecretEnv{{Name: "PASS", Key: "password"}}, OnChange: app.SecretRestart},
		{Name: "keys", Optional: true, OnChange: app.SecretSignal, Signal: "SIGHUP", Files: []app.SecretFile{{Path: "a/b", Key: "k"}}},
	}
	if diff := cmp.Diff(want, got.Secrets); diff != "" {
		t.Errorf("what a site gets differs (-want +got):\n%s", diff)
	}
	other := freeze(t, a, resolved())
	if other.Name == release.Name {
		t.Error("another key is the same release")
	}
	none, err := appapi.Render(plain, fleet.Facts{})
	if err != nil || none.Secrets != nil {
		t.Errorf("an app without Secrets gets %v, %v", none.Secrets, err)
	}
	data, err := json.Marshal(none)
	if err != nil || strings.Contains(string(data), "secrets") {
		t.Errorf("an app without Secrets is told %s, %v: its digest would change with the hub's version", data, err)
	}
}

// TestSecretWinsOverTheBundle is of a bundle's variable that the hub fills in for each site.
func TestSecretWinsOverTheBundle(t *testing.T) {
	a, bundle := hello(), resolved()
	a.Spec.SecretRefs = []v1alpha1.SecretRef{{Name: "db", Env: []v1alpha1.SecretEnv{{Name: "DB_URL", Key: "url"}}}}
	bundle.Config.Process = &app.ProcessConfig{Env: map[string]string{"DB_URL": "db.${site.name}.example", "HOST": "${site.name}"}}
	got, err := appapi.Render(freeze(t, a, bundle), fleet.Facts{Name: "shop-1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, there := got.Env["DB_URL"]; there || got.Env["HOST"] != "shop-1" {
		t.Errorf("variables are %v", got.Env)
	}
	body, err := app.Section{Apps: []app.Placement{got}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.DecodeSection(body); err != nil {
		t.Errorf("a site refuses what was rendered: %v", err)
	}
}
