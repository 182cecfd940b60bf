package fault

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fault/link"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// TestInstall pastes the line of `skerry site token --install` into a shell of another host, which has nothing
// of ours, and then does what systemd would: run what the unit says.
func TestInstall(t *testing.T) {
	fleettest.Require(t)
	c := link.New(t).Cable()
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", c.Here+":7443", "--name", c.Here,
		"--public-url", "https://"+c.Here+":7443", "--kube-addr", "127.0.0.1:0", "--site-binaries", filepath.Dir(programs.Site))
	line := h.Token(t, "gate-1", "--install")
	if strings.Contains(line, "\n") || !strings.HasPrefix(line, "curl ") {
		t.Fatalf("what is to be pasted is not one line of curl: %s", line)
	}
	paste := func(line, root string, flags ...string) (string, error) {
		script := line + " --root " + root + " " + strings.Join(flags, " ")
		cmd := exec.Command("nsenter", c.Args("sh", "-c", script)...)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	nothingIn := func(root, reason string) {
		t.Helper()
		for _, path := range []string{"usr/local/bin/skerry-site", "etc/systemd/system/skerry-site.service"} {
			if _, err := os.Stat(filepath.Join(root, path)); err == nil {
				t.Errorf("%s, and yet %s is installed", reason, path)
			}
		}
	}

	forged := fleettest.NewDir(t)
	before, digest, _ := strings.Cut(line, `echo "`)
	out, err := paste(before+`echo "`+strings.Map(func(r rune) rune {
		if r == '0' {
			return '1'
		}
		return r
	}, digest[:64])+digest[64:], forged)
	if err == nil || !strings.Contains(out, "FAILED") && !strings.Contains(out, "did NOT match") {
		t.Errorf("a script of another digest: %v\n%s", err, out)
	}
	nothingIn(forged, "the script was not the hub's")

	root := fleettest.NewDir(t)
	out, err = paste(line, root, "-- --gateway-addr 127.0.0.1:8081")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"joined", "installed /usr/local/bin/skerry-site", "systemd does not run here"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	command := execStart(t, root)
	stop := runUntil(t, "nsenter", c.Args(command...)...)
	fleettest.AwaitLink(t, filepath.Join(root, "var/lib/skerry-site"), fleet.LinkConnected)
	h.Skerry(t, "wait", "site/gate-1", "--for=condition=Ready", "--timeout=30s")

	again := fleettest.NewDir(t)
	if out, err := paste(line, again); err == nil || !strings.Contains(out, "used already") {
		t.Errorf("the line a second time: %v\n%s", err, out)
	}
	nothingIn(again, "the token was used already")
	stop()
	if out, err := exec.Command(filepath.Join(root, "usr/local/bin/skerry-site"), "uninstall", "--root", root, "--purge").CombinedOutput(); err != nil {
		t.Errorf("uninstall: %v\n%s", err, out)
	}
	nothingIn(root, "it was uninstalled")
}

// execStart is the command of the installed unit, with the root before its paths.
func execStart(t *testing.T, root string) []string {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/skerry-site.service"))
	if err != nil {
		t.Fatal(err)
	}
	_, command, ok := strings.Cut(string(unit), "ExecStart=")
	command, _, _ = strings.Cut(command, "\n")
	words := strings.Fields(command)
	if !ok || len(words) == 0 {
		t.Fatalf("the unit starts nothing:\n%s", unit)
	}
	for i, w := range words {
		if strings.HasPrefix(w, "/usr/") || strings.HasPrefix(w, "/var/") {
			words[i] = filepath.Join(root, w)
		}
	}
	return words
}
