package process

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/testenv"
)

func TestEnvironmentIsExactlyWhatIsDeclared(t *testing.T) {
	e := newEnv(t)
	t.Setenv("LEAKED_SECRET", "of the agent")
	data := filepath.Join(e.state, "data", "photo-store")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	spec := e.spec("serve", func(s *appsite.Spec, c *app.ProcessConfig) {
		s.Env["GREETING"] = "a b; $(touch /tmp/x) 'c'"
		s.Env["PORT"], s.Env["HOME"], s.Env["TMPDIR"] = "1", "/root", "/tmp"
		s.Env["SKERRY_SITE"] = "shop-1"
		s.DataDirs = map[string]string{"photo-store": data}
		c.Command = append(c.Command, "one; two", "$HOME", "*")
	})
	i := e.start(spec)
	status := e.awaitRunning(i)
	d := e.describe(status.Target)

	port := status.Target[strings.LastIndex(status.Target, ":")+1:]
	want := []string{
		"CHILD_MODE=serve", "GREETING=a b; $(touch /tmp/x) 'c'", "HOME=" + spec.Scratch + "/home",
		"PATH=" + searchPath, "PORT=" + port, "SKERRY_APP=hello", "SKERRY_DATA_PHOTO_STORE=" + data,
		"SKERRY_NAMESPACE=default", "SKERRY_RELEASE=hello-1", "SKERRY_SITE=shop-1", "TMPDIR=" + spec.Scratch + "/tmp",
	}
	slices.Sort(d.Env)
	if diff := cmp.Diff(want, d.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"one; two", "$HOME", "*"}, d.Args); diff != "" {
		t.Errorf("a shell touched the arguments (-want +got):\n%s", diff)
	}
	if d.Cwd != filepath.Join(spec.Scratch, "work") {
		t.Errorf("working directory %s is not the instance's own", d.Cwd)
	}
	if d.PGID != d.PID {
		t.Errorf("process group %d is not the program's own %d", d.PGID, d.PID)
	}
	if !d.NoNewPriv {
		t.Error("no_new_privs is not set")
	}
	for _, dir := range []string{"/tmp", "/home", "/work"} {
		if code, body := e.get(status.Target, "/write", "path", spec.Scratch+dir+"/file"); code != 200 {
			t.Errorf("app cannot write to its own %s: %s", dir, body)
		}
	}
	if code, body := e.get(status.Target, "/write", "path", data+"/file"); code != 200 {
		t.Errorf("app cannot write to its data: %s", body)
	}
}

func TestStartRefusesWhatIsNoProgramOfTheBundle(t *testing.T) {
	e := newEnv(t)
	bundle := filepath.Join(e.state, "bundle")
	if err := os.WriteFile(filepath.Join(bundle, "data.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/bin/sh", filepath.Join(bundle, "way-out")); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		reason  string
		command []string
	}{
		"empty":          {"nothing to run", nil},
		"absolute":       {"a program of the machine is not of the bundle", []string{"/bin/sh"}},
		"parent":         {"the path leaves the bundle", []string{"../bundle/bin/app"}},
		"unclean":        {"the path would leave and come back", []string{"bin/../../bundle/bin/app"}},
		"bare name":      {"names are not looked up in PATH", []string{"sh"}},
		"symlink out":    {"a link must not lead out of the bundle", []string{"way-out"}},
		"directory":      {"a directory is no program", []string{"bin"}},
		"not executable": {"the mode forbids it", []string{"data.txt"}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := e.spec("serve", func(_ *appsite.Spec, c *app.ProcessConfig) { c.Command = row.command })
			i, err := e.rt.Start(t.Context(), spec)
			if err == nil {
				i.Stop(t.Context())
			}
			if !errors.Is(err, ErrSpec) {
				t.Errorf("%s: got error %v", row.reason, err)
			}
		})
	}
}

func TestOwnUserPerApp(t *testing.T) {
	testenv.Require(t, testenv.Root())
	e := newEnv(t)
	seen := map[int]string{}
	for _, name := range []string{"a", "b"} {
		data := filepath.Join(e.state, "data", name)
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
		old := filepath.Join(data, "of-an-earlier-root-release")
		if err := os.WriteFile(old, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		i := e.start(e.spec("serve", func(s *appsite.Spec, _ *app.ProcessConfig) {
			s.ID += name
			s.App.Name = name
			s.DataDirs = map[string]string{"d": data}
		}))
		status := e.awaitRunning(i)
		d := e.describe(status.Target)
		if d.UID < 60000 || d.UID > 64999 || d.GID != d.UID || len(d.Groups) > 1 {
			t.Errorf("app %s runs as user %d, group %d, groups %v", name, d.UID, d.GID, d.Groups)
		}
		if other, ok := seen[d.UID]; ok {
			t.Errorf("apps %s and %s share user %d", name, other, d.UID)
		}
		seen[d.UID] = name
		if code, body := e.get(status.Target, "/write", "path", old); code != 200 {
			t.Errorf("app does not own what an earlier release left: %s", body)
		}
		if code, _ := e.get(status.Target, "/write", "path", filepath.Join(e.state, "bundle", "bin", "evil")); code == 200 {
			t.Error("app may write to its bundle")
		}
		if code, _ := e.get(status.Target, "/write", "path", filepath.Join(e.state, "store.db")); code == 200 {
			t.Error("app may write to the agent's store")
		}
		again, err := e.newRuntime(Options{}).users.of(e.spec("serve", func(s *appsite.Spec, _ *app.ProcessConfig) { s.App.Name = name }).App)
		if err != nil || again != d.UID {
			t.Errorf("a later agent gives user %d, want %d (%v)", again, d.UID, err)
		}
	}
}

func TestAllowRootKeepsTheAgentsUser(t *testing.T) {
	testenv.Require(t, testenv.Root())
	e := newEnv(t)
	i := e.start(e.spec("serve", func(s *appsite.Spec, _ *app.ProcessConfig) { s.AllowRoot = true }))
	d := e.describe(e.awaitRunning(i).Target)
	if d.UID != 0 || !d.NoNewPriv {
		t.Errorf("user %d, no_new_privs %v; want the agent's user and no new privileges", d.UID, d.NoNewPriv)
	}
}

func TestClosedDirectoryAboveTheAgentIsNamed(t *testing.T) {
	testenv.Require(t, testenv.Root())
	e := newEnv(t)
	closed := filepath.Join(e.state, "closed")
	state := filepath.Join(closed, "agent")
	e.install(filepath.Join(state, "bundle", "bin", "app"))
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	spec := e.spec("serve", func(s *appsite.Spec, _ *app.ProcessConfig) {
		s.Dir, s.Scratch = filepath.Join(state, "bundle"), filepath.Join(state, "scratch")
	})
	rt, err := New(Options{StateDir: state, Bucket: e.bucket})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rt.Start(t.Context(), spec)
	if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), closed+" ") {
		t.Errorf("got %v, want an error that names %s", err, closed)
	}
	info, err := os.Stat(closed)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a directory of the machine was changed: %v %v", info.Mode(), err)
	}
}

func TestUserIDsRunOut(t *testing.T) {
	e := newEnv(t)
	u := &users{bucket: e.bucket, first: 61000, last: 61001}
	spec := e.spec("serve", nil)
	got := map[int]bool{}
	for _, name := range []string{"a", "b"} {
		key := spec.App
		key.Name = name
		uid, err := u.of(key)
		if err != nil {
			t.Fatal(err)
		}
		got[uid] = true
	}
	if len(got) != 2 {
		t.Errorf("two apps got the users %v", got)
	}
	key := spec.App
	key.Name = "c"
	if _, err := u.of(key); !errors.Is(err, ErrSpec) {
		t.Errorf("a third app of two ids got error %v", err)
	}
}
