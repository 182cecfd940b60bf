package process

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/testenv"
)

var _ appsite.Signaller = (*instance)(nil)

func TestSignal(t *testing.T) {
	e := newEnv(t)
	i := e.start(e.spec("serve", nil))
	signaller, ok := i.(appsite.Signaller)
	if !ok {
		t.Fatal("an instance takes no signals")
	}
	e.awaitRunning(i)
	if err := signaller.Signal("SIGNONE"); !errors.Is(err, ErrSpec) {
		t.Errorf("a signal that does not exist was answered with %v", err)
	}
	// The program under test takes no SIGHUP: it ends by it, which shows that it came.
	if err := signaller.Signal("SIGHUP"); err != nil {
		t.Fatal(err)
	}
	e.await(i, "the end by the signal", func(s appsite.Status) bool {
		return s.Phase == fleet.PhaseBackOff && strings.Contains(s.Message, "killed by signal 1")
	})
	if err := signaller.Signal("SIGHUP"); err != nil {
		t.Errorf("between two runs: %v", err)
	}
	e.awaitRunning(i)
	if err := i.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := signaller.Signal("SIGHUP"); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

// TestSecretDirIsTheApps gives an app of its own user a directory that only root could enter.
func TestSecretDirIsTheApps(t *testing.T) {
	testenv.Require(t, testenv.Root(), testenv.Memory())
	e := newEnv(t)
	base, err := os.MkdirTemp(testenv.MemoryDir, "skerry-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	dir := filepath.Join(base, "i-1")
	file := filepath.Join(dir, "..v-1", "password")
	if err := errors.Join(os.Chmod(base, 0o711), os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("hunter2"), 0o400),
		os.Symlink("..v-1", filepath.Join(dir, "..data")), os.Symlink("..data/password", filepath.Join(dir, "password"))); err != nil {
		t.Fatal(err)
	}
	const plain = "plain-value-of-a-variable"
	spec := e.spec("serve", func(s *appsite.Spec, _ *app.ProcessConfig) { s.SecretDir, s.Env["DB_PASSWORD"] = dir, plain })
	i := e.start(spec)
	target := e.awaitRunning(i).Target
	if env := e.describe(target).Env; !slices.Contains(env, "SKERRY_SECRETS_DIR="+dir) {
		t.Errorf("the app is not told of its directory: %v", env)
	}
	if code, body := e.get(target, "/read", "path", filepath.Join(dir, "password")); code != 200 || body != "hunter2" {
		t.Errorf("the app reads its secret: %d %q", code, body)
	}
	other := e.start(e.spec("serve", func(s *appsite.Spec, _ *app.ProcessConfig) { s.ID, s.App.Name = "other", "other" }))
	if code, body := e.get(e.awaitRunning(other).Target, "/read", "path", filepath.Join(dir, "password")); code == 200 {
		t.Errorf("another app reads it too: %q", body)
	}
	data, err := os.ReadFile(filepath.Join(e.state, "store.db"))
	if err != nil || !strings.Contains(string(data), spec.ID) {
		t.Errorf("the instance is not on record in the store, where this test looks: %v", err)
	}
	if strings.Contains(string(data), plain) {
		t.Error("the runtime stores the values of variables")
	}
	if err := os.Chmod(base, 0o700); err != nil {
		t.Fatal(err)
	}
	rt := e.newRuntime(Options{})
	_, err = rt.Start(t.Context(), e.spec("serve", func(s *appsite.Spec, _ *app.ProcessConfig) { s.ID, s.SecretDir = "third", dir }))
	if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), base+" ") {
		t.Errorf("a directory that the app's user cannot reach was answered with %v", err)
	}
}
