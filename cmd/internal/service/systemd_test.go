package service_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/skerry-dev/skerry/cmd/internal/service"
	"github.com/skerry-dev/skerry/internal/testenv"
)

// units are those of a site and a hub as the commands install them, with the paths of their programs below a root.
func units(t *testing.T) map[string]string {
	t.Helper()
	root := t.TempDir()
	out := map[string]string{}
	for name, commands := range map[string][]*cobra.Command{
		"skerry-site": service.SiteCommands(service.Options{Program: "skerry-site", Out: io.Discard}),
		"skerry-hub":  service.HubCommands(service.Options{Program: "skerry", Out: io.Discard}),
	} {
		install := commands[0]
		install.SetArgs([]string{"--root", root, "--", "--gateway-addr", "0.0.0.0:443"})
		if err := install.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, "etc/systemd/system", name+".service")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		moved := strings.ReplaceAll(string(data), "/usr/local/bin/", filepath.Join(root, "usr/local/bin")+"/")
		if err := os.WriteFile(path, []byte(moved), 0o600); err != nil {
			t.Fatal(err)
		}
		out[name] = path
	}
	return out
}

// TestUnitsAreUnderstood lets systemd read both units: an unknown setting or a wrong value is a complaint.
func TestUnitsAreUnderstood(t *testing.T) {
	testenv.Require(t, testenv.Tool("systemd-analyze"))
	for name, path := range units(t) {
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			// A machine without systemd as its first process has no sysinit.target to order units after.
			if strings.Contains(line, "sysinit.target not found") {
				err = nil
				continue
			}
			if strings.Contains(line, name) {
				t.Errorf("systemd says: %s", line)
			}
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// TestExposure holds the hub to few rights, by systemd's own measure from 0 to 10. A site's agent starts apps as users of
// their own and bounds them, for which it needs root's.
func TestExposure(t *testing.T) {
	testenv.Require(t, testenv.Tool("systemd-analyze"))
	out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", units(t)["skerry-hub"]).CombinedOutput()
	found := exposure.FindSubmatch(out)
	if found == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const most = 5.0
	if level, err := strconv.ParseFloat(string(found[1]), 64); err != nil || level > most {
		t.Errorf("the hub's exposure is %s, want at most %.1f", found[1], most)
	}
}
