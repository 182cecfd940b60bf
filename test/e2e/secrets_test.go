package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// vault is an App that gets a Secret's key as a variable and another Secret whole, as files.
const vault = `apiVersion: skerry.dev/v1alpha1
kind: App
metadata: {name: vault}
spec:
  source: {bundle: "vault:1.0.0"}
  placement: {sites: {matchLabels: {vault: "yes"}}}
  route: {path: /vault}
  env: {MARK: canary-in-the-clear}
  secretRefs:
  - name: db
    env: [{name: DB_PASSWORD, key: password}]
  - name: keys
    onChange: Signal
`

// TestSecrets brings Secrets to one site, changes them, kills and cuts off what can be, and then looks for
// their values in every byte that hub, bus and sites have stored or said.
func TestSecrets(t *testing.T) {
	fleettest.Require(t)
	f := fleettest.StartUp(t, programs, fleettest.NewDir(t))
	s := &secretWorld{Fleet: f, t: t, files: t.TempDir()}
	f.Skerry(t, "label", "site", "shop-1", "vault=yes")
	s.push()

	s.apply(vault)
	s.reason("SecretNotFound", "there is no Secret db in namespace default")
	s.secret("db", "other", "x")
	s.reason("SecretNotFound", `Secret db in namespace default has no key \"password\"`)
	s.secret("db", "password", s.value("one"))
	s.secret("keys", "signing.pem", s.value("two"))
	f.Skerry(t, "wait", "app/vault", "--for=condition=Ready", "--timeout=60s")
	first := s.shows("one", "two", 0)
	if os.Geteuid() == 0 && strings.Contains(first, "user 0\n") {
		t.Errorf("the app runs as root:\n%s", first)
	}
	release := f.Skerry(t, "get", "app", "vault", "-o", "jsonpath={.status.release}")

	t.Run("a changed file is signalled", func(t *testing.T) {
		s.secret("keys", "signing.pem", s.value("three"))
		if now := s.shows("one", "three", 1); pid(now) != pid(first) {
			t.Errorf("the program was started anew:\n%s\n%s", first, now)
		}
	})
	t.Run("a changed variable starts the program anew, in the same release", func(t *testing.T) {
		s.secret("db", "password", s.value("four"))
		if now := s.shows("four", "three", 0); pid(now) == pid(first) {
			t.Errorf("the program was not started anew:\n%s", now)
		}
		if now := f.Skerry(t, "get", "app", "vault", "-o", "jsonpath={.status.release}"); now != release {
			t.Errorf("release was %s and is %s", release, now)
		}
	})
	t.Run("a site without a hub comes back with its secrets", func(t *testing.T) {
		f.KillHub(t)
		s.restartAgent("shop-1")
		s.shows("four", "three", 0)
		f.Start(t)
	})
	t.Run("a deleted Secret is kept where it is used", func(t *testing.T) {
		f.Skerry(t, "delete", "secret", "db")
		s.condition("SecretMissing", "there is no Secret db in namespace default")
		s.shows("four", "three", 0)
		f.Skerry(t, "wait", "app/vault", "--for=condition=Ready", "--timeout=60s")
		s.secret("db", "password", s.value("five"))
		s.shows("five", "three", 0)
	})
	t.Run("no value is stored or said anywhere", func(t *testing.T) { s.grep() })
	t.Run("nothing stays in memory", func(t *testing.T) {
		if left := s.memory(); len(left) == 0 {
			t.Error("no directory in memory was found while the app runs: this test looks in the wrong place")
		}
		f.Skerry(t, "delete", "app", "vault")
		fleettest.Eventually(t, 30*time.Second, "the app leaves", func() string {
			if left := s.memory(); len(left) > 0 {
				return fmt.Sprint(left)
			}
			return ""
		})
		s.grep()
	})
}

type secretWorld struct {
	*fleettest.Fleet
	t     *testing.T
	files string
	// values are all that were ever given, by nickname.
	values map[string]string
}

// value makes a value that is found in no other data by chance.
func (s *secretWorld) value(nickname string) string {
	if s.values == nil {
		s.values = map[string]string{}
	}
	sum := sha256.Sum256([]byte(nickname + s.t.TempDir()))
	s.values[nickname] = "plain-" + nickname + "-" + hex.EncodeToString(sum[:12])
	return s.values[nickname]
}

func (s *secretWorld) push() {
	s.t.Helper()
	dir := filepath.Join(s.files, "vault")
	if err := os.CopyFS(dir, os.DirFS("testdata/vault")); err != nil {
		s.t.Fatal(err)
	}
	s.Skerry(s.t, "push", dir, "--version", "1.0.0")
}

// apply writes an object as people do: kubectl keeps what was last applied in an annotation of it.
func (s *secretWorld) apply(object string) {
	s.t.Helper()
	path := filepath.Join(s.files, "object.yaml")
	if err := os.WriteFile(path, []byte(object), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.Skerry(s.t, "apply", "-f", path)
}

func (s *secretWorld) secret(name, key, value string) {
	s.t.Helper()
	s.apply(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: default}\nstringData: {%s: %q}\n", name, key, value))
}

func (s *secretWorld) reason(reason, message string) {
	s.t.Helper()
	s.says("Ready", fmt.Sprintf(`"reason":%q`, reason), message)
}

func (s *secretWorld) condition(kind, message string) {
	s.t.Helper()
	s.says(kind, `"status":"True"`, message)
}

// says waits until a condition of the app holds all of what.
func (s *secretWorld) says(kind string, what ...string) {
	s.t.Helper()
	fleettest.Eventually(s.t, 30*time.Second, "condition "+kind, func() string {
		got := s.Skerry(s.t, "get", "app", "vault", "-o", fmt.Sprintf(`jsonpath={.status.conditions[?(@.type==%q)]}`, kind))
		for _, want := range what {
			if !strings.Contains(got, want) {
				return fmt.Sprintf("it is %s, want %s", got, want)
			}
		}
		return ""
	})
}

func digestOf(value string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(value))) }

// shows waits until the app at shop-1 has the values, and has heard so many signals.
func (s *secretWorld) shows(env, file string, signals int) string {
	s.t.Helper()
	var body string
	want := []string{
		"env " + digestOf(s.values[env]), fmt.Sprintf("signals %d ", signals),
		"file keys/signing.pem -r-------- " + digestOf(s.values[file]),
	}
	fleettest.Eventually(s.t, time.Minute, "the app has values "+env+" and "+file, func() string {
		status, err := s.SiteStatus("shop-1")
		if err != nil {
			return err.Error()
		}
		if _, body, err = fleettest.Get(status.Gateway + "/vault"); err != nil {
			return err.Error()
		}
		for _, w := range want {
			if !strings.Contains(body, w) {
				return fmt.Sprintf("it lacks %q:\n%s", w, body)
			}
		}
		return ""
	})
	return body
}

func pid(answer string) string { return regexp.MustCompile(`pid \d+`).FindString(answer) }

// restartAgent kills the agent of a site and starts it again, as a machine does after a power cut.
func (s *secretWorld) restartAgent(name string) {
	s.t.Helper()
	status, err := s.SiteStatus(name)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Kill(status.PID, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	fleettest.Eventually(s.t, 10*time.Second, "the agent is gone", func() string {
		if _, err := s.SiteStatus(name); err == nil {
			return "it answers"
		}
		return ""
	})
	log, err := os.OpenFile(filepath.Join(s.SiteDir(name), "agent.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(programs.Skerry, "site", "run", "--data-dir", s.SiteDir(name), "--gateway-addr", strings.TrimPrefix(status.Gateway, "http://"), "--log-level", "debug")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }() // `skerry down` ends it
}

// memory lists the directories of secrets of instances on this machine that apps of this test use.
func (s *secretWorld) memory() []string {
	var out []string
	for _, place := range []string{"/run", "/dev/shm", os.Getenv("XDG_RUNTIME_DIR")} {
		found, _ := filepath.Glob(filepath.Join(place, "skerry-*", "default.vault.*"))
		out = append(out, found...)
	}
	return out
}

// forms are ways in which a value may be written down.
func forms(value string) map[string][]byte {
	out := map[string][]byte{"plain": []byte(value), "hex": []byte(hex.EncodeToString([]byte(value))),
		"HEX": []byte(strings.ToUpper(hex.EncodeToString([]byte(value)))), "digest": []byte(digestOf(value))}
	// Base64 of the value inside of something else begins at one of three places; the ends are cut off.
	for shift := range 3 {
		text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + value))
		out[fmt.Sprintf("base64+%d", shift)] = []byte(text[4 : len(text)-4])
	}
	sum := sha256.Sum256([]byte(value))
	out["raw digest"] = sum[:]
	out["base64 digest"] = []byte(base64.RawStdEncoding.EncodeToString(sum[:]))
	return out
}

// grep looks for every value that was ever given, in every form, in every file of hub and sites, in the
// command lines of all processes, and in what people may read of the app.
func (s *secretWorld) grep() {
	s.t.Helper()
	needles := map[string][]byte{}
	for nickname, value := range s.values {
		for form, bytes := range forms(value) {
			needles[nickname+" "+form] = bytes
		}
	}
	canary, found := []byte("canary-in-the-clear"), map[string]bool{}
	look := func(where string, data []byte) {
		for name, needle := range needles {
			if bytes.Contains(data, needle) {
				s.t.Errorf("%s holds value %s", where, name)
			}
		}
		if bytes.Contains(data, canary) {
			found[strings.Split(where, string(filepath.Separator))[0]] = true
		}
	}
	err := filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			if errors.Is(err, fs.ErrNotExist) {
				err = nil // removed meanwhile
			}
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		rel, _ := filepath.Rel(s.Dir, path)
		look(rel, data)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, where := range []string{"kubernetes", "bus", "sites"} {
		if !found[where] {
			s.t.Errorf("what is known to be below %s was not found: this test looks in the wrong place", where)
		}
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		if data, err := os.ReadFile(path); err == nil {
			look(path, data)
		}
	}
	look("output of skerry up", []byte(s.Output()))
	for _, args := range [][]string{
		{"get", "releases", "-o", "yaml"}, {"get", "apps", "-o", "yaml"}, {"get", "sites", "-o", "yaml"}, {"get", "events", "-o", "yaml"},
		{"status", "app/vault", "-o", "json"}, {"render", "app/vault", "--site", "shop-1"}, {"why", "app/vault"}, {"logs", "app/vault", "--site", "shop-1"},
	} {
		out, err := s.TrySkerry(args...)
		if err != nil && !strings.Contains(out, "not found") && !strings.Contains(out, "not placed") {
			s.t.Errorf("skerry %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		look("skerry "+strings.Join(args, " "), []byte(out))
	}
	var told struct{ Link fleet.Link }
	if status, err := s.SiteStatus("shop-1"); err != nil || status.Link != fleet.LinkConnected {
		s.t.Errorf("shop-1 is %v, %v", status.Link, err)
	} else if data, err := json.Marshal(status); err != nil || json.Unmarshal(data, &told) != nil {
		s.t.Error(err)
	} else {
		look("status of shop-1", data)
	}
}
