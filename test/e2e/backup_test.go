package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fleettest"
)

const (
	tillGrant  = "apiVersion: skerry.dev/v1alpha1\nkind: SiteGrant\nmetadata: {name: all}\nspec: {namespaces: [default], sites: {}, runtimes: [process]}\n"
	tillSecret = "apiVersion: v1\nkind: Secret\nmetadata: {name: till}\nstringData: {pin: \"1234\"}\n"
	// tillRef is appended to the spec of the App.
	tillRef = "  secretRefs:\n    - name: till\n      env:\n        - {name: PIN, key: pin}\n"
)

// TestBackup loses a hub twice, the second time with what was applied after the backup, and has it back from a
// file: the same site, which never stops answering, and which takes what the restored hub says.
func TestBackup(t *testing.T) {
	fleettest.Require(t)
	addr := freePort(t)
	scheduled := filepath.Join(t.TempDir(), "backups")
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", addr, "--kube-addr", "127.0.0.1:0", "--backup-dir", scheduled)
	siteDir := h.Join(t, "box-1")
	h.Skerry(t, "label", "site", "box-1", "kind=shop")
	before, err := fleettest.StatusIn(siteDir)
	if err != nil {
		t.Fatal(err)
	}
	inTime(t, h, scheduled)
	till := newTill(t, programs, before.Gateway)
	till.needs(tillGrant+"---\n"+tillSecret, tillRef)
	till.release(h, "1.0.0")
	asked := till.askOn()

	work := t.TempDir()
	file := filepath.Join(work, "hub.tar.gz")
	if out := h.Skerry(t, "hub", "backup", "--data-dir", h.Dir, file); !strings.Contains(out, "https://"+addr) {
		t.Errorf("backup says %q, not which hub it saved", out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup holds keys and has mode %v, %v", info.Mode(), err)
	}
	check := exec.Command("sh", "-c", "mkdir sums && tar xzf hub.tar.gz -C sums && cd sums && sha256sum --quiet -c SHA256SUMS")
	check.Dir = work
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("an administrator looks into the backup: %v\n%s", err, out)
	}
	till.release(h, "2.0.0") // which the backup does not know

	h.Kill(t)
	must(t, os.RemoveAll(h.Dir))
	h = restored(t, file, addr)
	till.serves(h, "1.0.0")
	sameSite(t, h, siteDir, before.Member)
	till.release(h, "3.0.0")
	since := till.serves(h, "3.0.0")

	h.Kill(t)
	h.Skerry(t, "hub", "backup", "--data-dir", h.Dir, file) // of a hub that does not run
	must(t, os.RemoveAll(h.Dir))
	h = restored(t, file, addr)
	if now := till.serves(h, "3.0.0"); now != since {
		t.Errorf("the app ran since %d and runs since %d, although nothing changed for it", since, now)
	}
	sameSite(t, h, siteDir, before.Member)
	asked()
}

// inTime waits for a hub's first backup by schedule, which comes at once, and for what its metrics say of it.
func inTime(t *testing.T, h *fleettest.Hub, dir string) {
	t.Helper()
	admin, err := os.ReadFile(filepath.Join(h.Dir, "admin.addr"))
	must(t, err)
	fleettest.Eventually(t, time.Minute, "a backup by schedule", func() string {
		files, err := filepath.Glob(filepath.Join(dir, "hub-*Z.tar.gz"))
		_, metrics, asked := fleettest.Get("http://" + string(admin) + "/metrics")
		if err != nil || len(files) != 1 || !lastSuccess.MatchString(metrics) {
			return fmt.Sprint(files, err, asked)
		}
		return ""
	})
}

// lastSuccess is the metric with a time, not zero.
var lastSuccess = regexp.MustCompile(`(?m)^skerry_hub_backup_last_success_timestamp_seconds [1-9]`)

// restored makes a hub of a backup in another directory and runs it.
func restored(t *testing.T, file, addr string) *fleettest.Hub {
	t.Helper()
	dir := filepath.Join(fleettest.NewDir(t), "restored")
	out, err := exec.Command(programs.Skerry, "hub", "restore", "--data-dir", dir, file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "https://"+addr) {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	return fleettest.StartHub(t, programs, dir, "--addr", addr, "--kube-addr", "127.0.0.1:0")
}

// sameSite checks that a machine is who it was, to itself and to the hub.
func sameSite(t *testing.T, h *fleettest.Hub, dir string, member fleet.MemberID) {
	t.Helper()
	fleettest.AwaitLink(t, dir, fleet.LinkConnected)
	h.Skerry(t, "wait", "site/box-1", "--for=condition=Ready", "--timeout=30s")
	s, err := fleettest.StatusIn(dir)
	if err != nil || s.Member != member {
		t.Errorf("the site was member %s and is %s: %v", member, s.Member, err)
	}
	known := h.Skerry(t, "get", "site", "box-1", "-o", "jsonpath={.status.members[*].id}")
	if known != string(member) {
		t.Errorf("the hub knows the members %s, want %s alone", known, member)
	}
}

// till is an app at one site.
type till struct {
	t        *testing.T
	dir, url string
}

// newTill lays out an app as programs of a release do, and grants it every site.
func newTill(t *testing.T, bin fleettest.Binaries, gateway string) *till {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(bin.Skerry, "app", "init", "till")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("app init: %v\n%s", err, out)
	}
	a := &till{t: t, dir: filepath.Join(dir, "till"), url: gateway + "/till"}
	a.needs(tillGrant, "")
	return a
}

// needs makes objects part of each release, and appends to the spec of the App.
func (a *till) needs(objects, spec string) {
	a.t.Helper()
	must(a.t, os.WriteFile(filepath.Join(a.dir, "..", "needs.yaml"), []byte(objects), 0o600))
	f, err := os.OpenFile(filepath.Join(a.dir, "app.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	must(a.t, err)
	_, err = f.WriteString(spec)
	must(a.t, errors.Join(err, f.Close()))
}

// release pushes a version, applies it and waits until it serves.
func (a *till) release(h *fleettest.Hub, version string) {
	a.t.Helper()
	h.Skerry(a.t, "apply", "-f", filepath.Join(a.dir, "..", "needs.yaml"))
	manifest := filepath.Join(a.dir, "app.yaml")
	text, err := os.ReadFile(manifest)
	must(a.t, err)
	_, rest, _ := strings.Cut(string(text), "till:")
	old, _, _ := strings.Cut(rest, "\"")
	must(a.t, os.WriteFile(manifest, []byte(strings.Replace(string(text), "till:"+old, "till:"+version, 1)), 0o600))
	h.Skerry(a.t, "push", a.dir, "--version", version)
	h.Skerry(a.t, "apply", "-f", manifest)
	a.serves(h, version)
}

// serves waits until the app answers in a version and the hub says so, and returns since when it runs.
func (a *till) serves(h *fleettest.Hub, version string) (since int64) {
	a.t.Helper()
	fleettest.Eventually(a.t, time.Minute, "the app answers as "+version, func() string {
		_, body, err := fleettest.Get(a.url)
		if err != nil || !strings.Contains(body, version) {
			return fmt.Sprint(body, err)
		}
		return ""
	})
	fleettest.Eventually(a.t, time.Minute, "the hub knows of "+version, func() string {
		out, err := h.TrySkerry("status", "app/till", "-o", "json")
		var v app.StatusView
		if err == nil {
			err = json.Unmarshal([]byte(out), &v)
		}
		if err != nil || len(v.Sites) != 1 || v.Sites[0].Standing != app.StandingHealthy || v.Sites[0].Running.Version != version {
			return fmt.Sprint(out, err)
		}
		since = v.Sites[0].Since
		return ""
	})
	return since
}

// askOn asks the app again and again, and complains of each answer that is none; the returned function ends it.
func (a *till) askOn() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	asked := 0
	wg.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			asked++
			if code, body, err := fleettest.Get(a.url); err != nil || code != 200 {
				a.t.Errorf("the app answered %d %q: %v", code, body, err)
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait(); a.t.Logf("the app was asked %d times", asked) })
	a.t.Cleanup(stop)
	return stop
}
