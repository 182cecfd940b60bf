package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// programs are built once for all tests of this package.
var programs fleettest.Binaries

func TestMain(m *testing.M) { fleettest.Main(m, &programs) }

// TestFleet runs one installation through what the README promises; the steps share it, since each start
// takes seconds.
func TestFleet(t *testing.T) {
	fleettest.Require(t)
	f := fleettest.StartUp(t, programs, fleettest.NewDir(t))
	t.Run("up says what to paste", func(t *testing.T) {
		for _, want := range []string{"✓ Kubernetes API", "✓ Hub and bus", "✓ shop-1", "✓ shop-3",
			"export PATH=" + f.Dir + "/bin:$PATH", "export KUBECONFIG=" + f.Dir + "/kubeconfig"} {
			if !strings.Contains(f.Output(), want) {
				t.Errorf("it does not say %q:\n%s", want, f.Output())
			}
		}
	})
	t.Run("README", func(t *testing.T) { readme(t, f) })
	t.Run("guides", func(t *testing.T) { guides(t, f) })
	t.Run("scripts", func(t *testing.T) { scripts(t, f) })
	t.Run("another registry", func(t *testing.T) { outside(t, f) })
	t.Run("teams", func(t *testing.T) { teams(t, f) })
	t.Run("tasks and schedules", func(t *testing.T) { tasks(t, f) })
	t.Run("a fourth site joins, runs, and is cut off", func(t *testing.T) { fourthSite(t, f) })
	t.Run("hardware is replaced under one name", func(t *testing.T) { replaced(t, f) })
	t.Run("machines boot with a file and nobody", func(t *testing.T) { firstBoot(t, f) })
	t.Run("a second hub on one directory says so", func(t *testing.T) {
		out, err := f.TrySkerry("hub", "run", "--data-dir", f.Dir)
		if err == nil || !strings.Contains(out, "in use by another process") {
			t.Errorf("second hub: %v\n%s", err, out)
		}
	})
	t.Run("sites go on when the hub is killed, and are adopted again", func(t *testing.T) { adopt(t, f) })
	t.Run("what happened without the hub is told when it is back", func(t *testing.T) { happened(t, f) })
	t.Run("Ctrl-C stops everything, and up continues", func(t *testing.T) { restart(t, f) })
	t.Run("a deleted site is wiped", func(t *testing.T) { wiped(t, f) })
}

var (
	readmeBlock = regexp.MustCompile("(?s)<!-- this block is run as it stands by test/e2e -->\n```sh\n(.*?)```")
	comment     = regexp.MustCompile(`\s+#.*`)
)

// readme runs the README's own block, line by line in one shell, with the port of the site that answers and
// with what follows ended after its first lines.
func readme(t *testing.T, f *fleettest.Fleet) {
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := readmeBlock.FindSubmatch(data)
	if block == nil {
		t.Fatal("README.md has no block that is marked to be run here")
	}
	port := portOf(t, f, "shop-1")
	script := "set -e\n"
	for line := range strings.Lines(string(block[1])) {
		line = strings.TrimSpace(comment.ReplaceAllString(line, ""))
		line = strings.Replace(line, "127.0.0.1:8081", port, 1)
		switch {
		case strings.HasPrefix(line, "kubectl ") && !hasKubectl():
			line = strings.Replace(line, "kubectl", "skerry", 1)
		case strings.HasPrefix(line, "curl "):
			// A person types slower than a release takes to arrive.
			line = "skerry wait app/hello --for=condition=Ready --timeout=60s && curl -sS --retry 20 --retry-delay 1 --retry-all-errors --fail " + strings.TrimPrefix(line, "curl ")
		case strings.HasSuffix(line, " -f"):
			line = "timeout 5 " + line + " | head -n 1 | grep ."
		}
		script += "echo '$ " + strings.ReplaceAll(line, "'", "'\\''") + "'\n" + line + "\n"
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir, cmd.Env = t.TempDir(), f.Env()
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"shop-3", "app.skerry.dev/hello created", "default/hello:1.0.0@sha256:", "Hello from shop-1", "listening"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
}

// guides runs the marked blocks of each guide that has any, in one shell and one directory.
func guides(t *testing.T, f *fleettest.Fleet) {
	files, err := filepath.Glob("../../docs/guides/*.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks := readmeBlock.FindAllSubmatch(data, -1)
		if len(blocks) == 0 {
			continue
		}
		ran++
		t.Run(filepath.Base(file), func(t *testing.T) {
			script := "set -ex\n"
			for _, b := range blocks {
				script += string(b[1])
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
			cmd.Dir, cmd.Env = t.TempDir(), f.Env()
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	if ran == 0 {
		t.Fatal("no guide has a block that is marked to be run here")
	}
}

func hasKubectl() bool { _, err := exec.LookPath("kubectl"); return err == nil }

func status(t *testing.T, f *fleettest.Fleet, name string) app.StatusView {
	t.Helper()
	var v app.StatusView
	if err := json.Unmarshal([]byte(f.Skerry(t, "status", "app/"+name, "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// portOf returns the address at which a site answers, from `skerry status -o json`.
func portOf(t *testing.T, f *fleettest.Fleet, site fleet.SiteName) string {
	t.Helper()
	address := ""
	fleettest.Eventually(t, 30*time.Second, "the address of "+string(site), func() string {
		for _, s := range status(t, f, "welcome").Sites {
			if s.Site == site && s.URL != "" {
				address = strings.TrimSuffix(strings.TrimPrefix(s.URL, "http://"), "/")
				return ""
			}
		}
		return "not reported yet"
	})
	return address
}

// scripts runs the txtar files below testdata against the fleet.
func scripts(t *testing.T, f *fleettest.Fleet) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(programs.Skerry)+":"+os.Getenv("PATH"))
			env.Setenv("KUBECONFIG", filepath.Join(f.Dir, "kubeconfig"))
			env.Setenv("DATA", f.Dir)
			env.Setenv("SHOP1", portOf(t, f, "shop-1"))
			env.Setenv("SHOP2", portOf(t, f, "shop-2"))
			env.Setenv("HOME", os.Getenv("HOME"))
			env.Setenv("GOCACHE", goEnv("GOCACHE"))
			env.Setenv("GOFLAGS", "-buildvcs=false")
			return nil
		},
	})
}

func goEnv(name string) string {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func fourthSite(t *testing.T, f *fleettest.Fleet) {
	token := strings.TrimSpace(f.Skerry(t, "site", "token", "shop-4", "--label", "kind=shop"))
	if strings.ContainsAny(token, "\n ") {
		t.Fatalf("a token must be one line: %q", token)
	}
	dir := fleettest.NewDir(t)
	stop := runSite(t, dir, token)
	fleettest.Eventually(t, time.Minute, "welcome at shop-4", func() string {
		s, err := fleettest.StatusIn(dir)
		if err != nil {
			return err.Error()
		}
		if _, body, err := fleettest.Get(s.Gateway + "/"); err != nil || !strings.Contains(body, "shop-4") {
			return fmt.Sprintf("%v %s", err, body)
		}
		return ""
	})
	other := fleettest.NewDir(t)
	out, err := exec.Command(programs.Site, "run", "--join", token, "--data-dir", other).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "used already") {
		t.Errorf("a token used twice: %v\n%s", err, out)
	}
	f.Skerry(t, "site", "revoke", "shop-4")
	fleettest.Eventually(t, 20*time.Second, "shop-4 is cut off", func() string {
		s, err := fleettest.StatusIn(dir)
		if err != nil {
			return err.Error()
		}
		if s.Link == fleet.LinkConnected {
			return "it is still connected"
		}
		return ""
	})
	s, err := fleettest.StatusIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if code, _, err := fleettest.Get(s.Gateway + "/"); err != nil || code != 200 {
		t.Errorf("a revoked site must go on serving: %d %v", code, err)
	}
	stop()
	stop = runSite(t, dir, strings.TrimSpace(f.Skerry(t, "site", "token", "shop-4")))
	fleettest.Eventually(t, time.Minute, "shop-4 is back as a new member", func() string {
		now, err := fleettest.StatusIn(dir)
		if err != nil || now.Member == s.Member || now.Link != fleet.LinkConnected {
			return fmt.Sprint(now.Member, now.Link, err)
		}
		return ""
	})
	stop()
	f.Skerry(t, "delete", "site", "shop-4")
}

// runSite runs the small agent as site shop-4 until stop is called, in order, so that its apps end with it.
func runSite(t *testing.T, dir, token string) (stop func()) {
	t.Helper()
	cmd := exec.Command(programs.Site, "run", "--join", token, "--data-dir", dir, "--gateway-addr", "127.0.0.1:8084")
	logs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			t.Log(lines.Text())
		}
	}()
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func adopt(t *testing.T, f *fleettest.Fleet) {
	before, err := f.SiteStatus("shop-1")
	if err != nil {
		t.Fatal(err)
	}
	f.KillHub(t)
	if code, body, err := fleettest.Get(before.Gateway + "/"); err != nil || code != 200 || !strings.Contains(body, "shop-1") {
		t.Errorf("with the hub killed: %d %q %v", code, body, err)
	}
	fleettest.Eventually(t, 15*time.Second, "the app says that the hub is away", func() string {
		_, body, err := fleettest.Get(before.Gateway + "/")
		if err == nil && strings.Contains(body, "hub away") {
			return ""
		}
		return fmt.Sprint(body, err)
	})
	f.Start(t)
	after, err := f.SiteStatus("shop-1")
	if err != nil || after.PID != before.PID {
		t.Errorf("the site was process %d and is %d: %v", before.PID, after.PID, err)
	}
	fleettest.Eventually(t, 30*time.Second, "the site is connected again", func() string {
		s, err := f.SiteStatus("shop-1")
		if err != nil || s.Link != fleet.LinkConnected {
			return fmt.Sprint(s.Link, err)
		}
		return ""
	})
}

func restart(t *testing.T, f *fleettest.Fleet) {
	f.Interrupt(t)
	if _, err := f.SiteStatus("shop-1"); err == nil {
		t.Error("a site goes on after Ctrl-C")
	}
	// A disk may lose anything meanwhile.
	broken := filepath.Join(f.SiteDir("shop-2"), "store.db")
	must(t, os.WriteFile(broken, []byte(strings.Repeat("lost ", 10_000)), 0o600))
	f.Start(t)
	if v := status(t, f, "hello"); len(v.Sites) != 3 {
		t.Errorf("after a restart app/hello has %d sites", len(v.Sites))
	}
	fleettest.Eventually(t, time.Minute, "shop-2, whose store was lost, serves again", func() string {
		for _, s := range status(t, f, "hello").Sites {
			if s.Site == "shop-2" && s.Standing == app.StandingHealthy {
				return ""
			}
		}
		return "not healthy"
	})
	if _, err := os.Stat(broken + ".damaged"); err != nil {
		t.Errorf("the damaged file was not set aside: %v", err)
	}
}

func wiped(t *testing.T, f *fleettest.Fleet) {
	dir := filepath.Join(f.SiteDir("shop-3"), "apps")
	f.Skerry(t, "delete", "site", "shop-3", "--timeout=60s")
	fleettest.Eventually(t, 30*time.Second, "the agent of shop-3 ends", func() string {
		if _, err := f.SiteStatus("shop-3"); err != nil {
			return ""
		}
		return "it still runs"
	})
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}
