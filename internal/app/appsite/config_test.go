package appsite_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
)

// configured gives a placement a configuration.
func configured(t *testing.T, p app.Placement, values string, files map[string]string) app.Placement {
	t.Helper()
	p.Config = &app.Config{Values: json.RawMessage(values), Files: files}
	p.Release += "-" + fmt.Sprint(len(values))
	return sealed(t, p)
}

// configFiles lists what lies below the directory of configurations: modes and paths below an instance's.
func (b *box) configFiles() []string {
	b.t.Helper()
	var out []string
	root := filepath.Join(b.dir, "apps", "config")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		_, below, _ := strings.Cut(filepath.ToSlash(rel), "/")
		out = append(out, fmt.Sprintf("%v %s", info.Mode(), below))
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// TestConfig runs a real program that reads its configuration, and changes that configuration alone.
func TestConfig(t *testing.T) {
	b := newBox(t)
	b.bootReal(appsite.Options{})
	bare := b.pushReal("1.0.0", "", nil)
	bare.Env = map[string]string{"LISTEN": "shop-1:80"}
	first := configured(t, bare, `{"port":80}`, map[string]string{"conf.d/app.conf": "listen 80\n"})
	b.apply(first)
	b.awaitHealthy(first)

	uid, access, file, dir := os.Geteuid(), "writable", "-rw-------", "drwx------"
	if uid == 0 {
		_, body := b.ask("/hello/config/values.json")
		if _, err := fmt.Sscanf(strings.Split(body, "|")[2], "%d", &uid); err != nil || uid == 0 {
			t.Fatalf("the program runs as user %d: %v: %s", uid, err, body)
		}
		access, file, dir = "read-only", "-rw-r-----", "drwxr-x---"
	}
	answers := func(path, content string) {
		t.Helper()
		if _, body := b.ask("/hello/config/" + path); body != fmt.Sprintf("%s|shop-1:80|%d|%s", content, uid, access) {
			t.Errorf("%s: the program says %q", path, body)
		}
	}
	answers("values.json", "{\"port\":80}\n")
	answers("conf.d/app.conf", "listen 80\n")
	want := []string{file + " conf.d/app.conf", file + " values.json", dir + " ", dir + " conf.d"}
	slices.Sort(want)
	if diff := cmp.Diff(want, b.configFiles()); diff != "" {
		t.Errorf("on disk (-want +got):\n%s", diff)
	}

	second := configured(t, bare, `{"port":8080}`, nil)
	fetched := b.content.fetches()
	b.apply(second)
	b.awaitHealthy(second)
	answers("values.json", "{\"port\":8080}\n")
	if n := b.content.fetches(); n != fetched {
		t.Errorf("a changed configuration fetched %d blobs", n-fetched)
	}
	b.await("the end of the old instance", func(app.AppReport) bool { return len(b.configFiles()) == 2 })

	// An agent that was killed leaves files; the next life writes them anew.
	b.haltReal()
	if left := b.configFiles(); len(left) != 0 {
		t.Errorf("a stopped app leaves %v", left)
	}
	stray := filepath.Join(b.dir, "apps", "config", "default.hello.dead")
	if err := os.MkdirAll(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stray, "values.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.content.online(false)
	b.bootReal(appsite.Options{})
	b.awaitHealthy(second)
	answers("values.json", "{\"port\":8080}\n")
	if files := b.configFiles(); len(files) != 2 {
		t.Errorf("after a restart there are %v", files)
	}

	b.content.online(true)
	none := bare
	none.Env, none.Release = nil, "hello-none"
	none = sealed(t, none)
	b.apply(none)
	b.awaitHealthy(none)
	if code, body := b.ask("/hello/config/values.json"); code != 500 || !strings.Contains(body, "open values.json") {
		t.Errorf("an app without configuration is told of a directory: %d %s", code, body)
	}
	b.apply(second)
	b.awaitHealthy(second)
	b.apply()
	b.haltReal()
	if left := b.configFiles(); len(left) != 0 {
		t.Errorf("an app that left leaves %v", left)
	}
}
