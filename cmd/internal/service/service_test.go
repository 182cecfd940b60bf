package service_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/cmd/internal/service"
	"github.com/skerry-dev/skerry/internal/testenv"
)

func sample(t *testing.T, root string, args ...string) (service.Service, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	return service.Service{
		Name: "skerry-site", Description: "Skerry site agent", DataDir: "/var/lib/skerry-site", DataMode: 0o711,
		Delegate: true, Args: args, Root: root, Out: &out,
	}, &out
}

func TestInstallIntoARoot(t *testing.T) {
	root := t.TempDir()
	s, out := sample(t, root, "run", "--data-dir", "/var/lib/skerry-site")
	for range 2 { // what is there is set right
		if err := s.Install(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]fs.FileMode{
		"usr/local/bin/skerry-site": 0o755, "etc/systemd/system/skerry-site.service": 0o644, "var/lib/skerry-site": 0o711 | fs.ModeDir,
	} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v, want mode %v", path, info, err, mode)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want, _ := os.Stat(self)
	if got, err := os.Stat(filepath.Join(root, "usr/local/bin/skerry-site")); err != nil || got.Size() != want.Size() {
		t.Errorf("the program was not copied whole: %v", err)
	}
	if !strings.Contains(out.String(), "systemd does not run here") {
		t.Errorf("it says:\n%s", out)
	}
	left, err := filepath.Glob(filepath.Join(root, "*", "*", "*", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v %v", left, err)
	}

	if err := os.WriteFile(filepath.Join(root, "var/lib/skerry-site/store.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Uninstall(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "var/lib/skerry-site/store.db")); err != nil {
		t.Errorf("data went without being asked: %v", err)
	}
	if err := s.Uninstall(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"usr/local/bin/skerry-site", "etc/systemd/system/skerry-site.service", "var/lib/skerry-site"} {
		if _, err := os.Stat(filepath.Join(root, path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	out.Reset()
	if err := s.Uninstall(t.Context(), false); err != nil || !strings.Contains(out.String(), "is not installed") {
		t.Errorf("uninstalling nothing: %v, %s", err, out)
	}
}

// TestUnit gives the unit's own reader arguments that mean something to it.
func TestUnit(t *testing.T) {
	tests := []struct{ arg, want, reason string }{
		{"run", " run\n", "a plain word"},
		{"0.0.0.0:443", " 0.0.0.0:443\n", "an address"},
		{"a b", ` "a b"` + "\n", "a blank would make two words"},
		{"", ` ""` + "\n", "an empty word is a word"},
		{"100%", " 100%%\n", "a percent sign begins a specifier"},
		{"$HOME", " $$HOME\n", "a dollar sign begins a variable"},
		{`a"b\c`, ` "a\"b\\c"` + "\n", "quotes and backslashes are the reader's own"},
		{"a;b", ` "a;b"` + "\n", "a semicolon ends a command"},
	}
	for _, tt := range tests {
		s, _ := sample(t, "", tt.arg)
		unit, err := s.Unit()
		if err != nil || !strings.Contains(string(unit), "ExecStart=/usr/local/bin/skerry-site"+tt.want) {
			t.Errorf("%q: %v: %s\n%s", tt.arg, err, tt.reason, unit)
		}
	}
	s, _ := sample(t, "", "a\nExecStartPre=/bin/evil")
	if _, err := s.Unit(); err == nil {
		t.Error("a line break makes another line of the unit")
	}
}

// TestUnitIsUnderstood lets systemd read the unit.
func TestUnitIsUnderstood(t *testing.T) {
	testenv.Require(t, testenv.Tool("systemd-analyze"))
	root := t.TempDir()
	s, _ := sample(t, root, "run", "--gateway-name", "a $b %c")
	if err := s.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	unit, err := s.Unit()
	if err != nil {
		t.Fatal(err)
	}
	// The reader wants the program to exist.
	file := filepath.Join(t.TempDir(), "skerry-site.service")
	text := strings.ReplaceAll(string(unit), "/usr/local/bin/skerry-site", filepath.Join(root, "usr/local/bin/skerry-site"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "skerry-site.service:") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestInstallRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		s, _ := sample(t, "")
		if err := s.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "run this as root") {
			t.Errorf("without rights: %v", err)
		}
	}
	root := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(root, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := sample(t, root)
	if err := s.Install(t.Context()); err == nil {
		t.Error("a file is no root")
	}
}
