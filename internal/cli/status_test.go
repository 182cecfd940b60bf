package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

var update = flag.Bool("update", false, "write what is printed into the golden files")

// TestStatusTables prints the view of each file in testdata/status in each form that the file has a part
// for. It is midnight of 1 January 2000 (946684800 in the view's seconds). A new case is a new file.
func TestStatusTables(t *testing.T) {
	files, err := filepath.Glob("testdata/status/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if archive.Files[0].Name != "view.json" || len(archive.Files) < 2 {
				t.Fatal("want view.json and what is printed of it")
			}
			var view app.StatusView
			if err := json.Unmarshal(archive.Files[0].Data, &view); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				for i, want := range archive.Files[1:] {
					print, err := statusPrinter(want.Name)
					if err != nil {
						t.Fatal(err)
					}
					var out bytes.Buffer
					if err := print(&out, view); err != nil {
						t.Fatal(err)
					}
					if *update {
						archive.Files[i+1].Data = out.Bytes()
					} else if diff := cmp.Diff(string(want.Data), out.String()); diff != "" {
						t.Errorf("-o %s (-want +got):\n%s", want.Name, diff)
					}
				}
			})
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestFingerprint holds a followed status to be printed again for what a person wants to see, and only then.
func TestFingerprint(t *testing.T) {
	base := func() app.StatusView {
		return app.StatusView{Release: "r", Ready: "True", Message: "m", Sites: []app.SiteStatus{{Site: "a", Phase: fleet.PhaseRunning}}}
	}
	for name, tt := range map[string]struct {
		again  bool
		change func(*app.StatusView)
	}{
		"nothing":        {false, func(*app.StatusView) {}},
		"requests":       {false, func(v *app.StatusView) { v.Sites[0].Counts.Requests++ }},
		"last heard":     {false, func(v *app.StatusView) { v.Sites[0].LastHeard++ }},
		"a phase":        {true, func(v *app.StatusView) { v.Sites[0].Phase = fleet.PhaseFailed }},
		"a link":         {true, func(v *app.StatusView) { v.Sites[0].Link = fleet.LinkAway }},
		"a release":      {true, func(v *app.StatusView) { v.Release = "s" }},
		"a message":      {true, func(v *app.StatusView) { v.Sites[0].Message = "x" }},
		"a restart":      {true, func(v *app.StatusView) { v.Sites[0].Restarts++ }},
		"one more site":  {true, func(v *app.StatusView) { v.Sites = append(v.Sites, app.SiteStatus{Site: "b"}) }},
		"what runs":      {true, func(v *app.StatusView) { v.Sites[0].Running.Digest = "sha256:1" }},
		"what should":    {true, func(v *app.StatusView) { v.Sites[0].Desired.Digest = "sha256:1" }},
		"the app's word": {true, func(v *app.StatusView) { v.Message = "x" }},
	} {
		v := base()
		tt.change(&v)
		if again := fingerprint(v) != fingerprint(base()); again != tt.again {
			t.Errorf("%s changed: printed again is %v", name, again)
		}
	}
}

func TestAppKey(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	for arg, want := range map[string]string{"app/hello": "hello", "apps/hello": "hello", "hello": "hello"} {
		g := testGlobals()
		got, err := g.appKey(arg)
		if err != nil || got.Name != want || got.Namespace != "default" {
			t.Errorf("%s names %v, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"", "app/", "site/x", "app/a/b", "app/A"} {
		g := testGlobals()
		if got, err := g.appKey(arg); err == nil {
			t.Errorf("%s names %v", arg, got)
		} else if strings.TrimSpace(err.Error()) == "" {
			t.Errorf("%s: an error without words", arg)
		}
	}
}
