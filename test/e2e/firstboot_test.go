package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/testenv"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// mounts is the right to mount in a namespace of one's own.
func mounts() testenv.Need {
	return testenv.Need{Name: "unshare --mount and the right to mount", Met: func() bool {
		return exec.Command("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt").Run() == nil
	}}
}

// firstBoot starts machines that nobody told anything but a file.
func firstBoot(t *testing.T, f *fleettest.Fleet) {
	testenv.Require(t, mounts())
	t.Run("from a stick", func(t *testing.T) { fromStick(t, f) })
	t.Run("with one claim code for all", func(t *testing.T) { fromClaim(t, f) })
}

// machineWith runs the agent with a directory in the place of /media.
func machineWith(t *testing.T, media, dataDir string) *fleettest.Process {
	t.Helper()
	return fleettest.Run(t, "unshare", "--mount", "sh", "-c", `mount --bind "$0" /media && exec "$@"`, media,
		programs.Site, "run", "--data-dir", dataDir)
}

func stick(t *testing.T, text string) (media, file string) {
	t.Helper()
	media = fleettest.NewDir(t)
	file = filepath.Join(media, "SKERRY", "skerry-site.yaml")
	must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	must(t, os.WriteFile(file, []byte(text), 0o644))
	return media, file
}

func fromStick(t *testing.T, f *fleettest.Fleet) {
	text := f.Skerry(t, "site", "token", "stick-1", "--label", "kind=stick", "--config") + "gateway-addr: 127.0.0.1:18471\n"
	media, file := stick(t, text)
	dir := fleettest.NewDir(t)
	first := machineWith(t, media, dir)
	fleettest.AwaitLink(t, dir, fleet.LinkConnected)
	left, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(left), "skj1.") || !strings.Contains(string(left), "gateway-addr") {
		t.Errorf("the file must lose its token and keep the rest: %v\n%s", err, left)
	}
	first.Kill(t)
	must(t, os.RemoveAll(filepath.Dir(file)))
	machineWith(t, media, dir) // the stick is gone
	fleettest.AwaitLink(t, dir, fleet.LinkConnected)
	if s, err := fleettest.StatusIn(dir); err != nil || s.Site != "stick-1" || !strings.Contains(s.Gateway, ":18471") {
		t.Errorf("after the second boot it is %s at %s: %v", s.Site, s.Gateway, err)
	}
}

func fromClaim(t *testing.T, f *fleettest.Fleet) {
	// Standard error says until when the code works; the file is what stands on standard output.
	cmd := exec.Command(programs.Skerry, "site", "claim-code", "create", "--config")
	cmd.Env = f.Env()
	text, err := cmd.Output()
	must(t, err)
	media, _ := stick(t, string(text))
	dir := fleettest.NewDir(t)
	machineWith(t, media, dir)
	claim := ""
	fleettest.Eventually(t, time.Minute, "the machine asks", func() string {
		claim = strings.TrimSpace(f.Skerry(t, "get", "siteclaims", "-o", "jsonpath={.items[?(@.spec.decision=='Pending')].metadata.name}"))
		if claim == "" || strings.Contains(claim, " ") {
			return fmt.Sprintf("claims %q", claim)
		}
		return ""
	})
	f.Skerry(t, "site", "approve", claim, "--as", "stick-2")
	fleettest.AwaitLink(t, dir, fleet.LinkConnected)
}

// TestCloudInit does what cloud-init would with the user-data: it writes the files and runs the commands. The
// machine's own directories are covered by ones that end with the test.
func TestCloudInit(t *testing.T) {
	fleettest.Require(t)
	testenv.Require(t, mounts(), testenv.Need{Name: "a machine that systemd does not run: the installer would make a service there", Met: func() bool {
		_, err := os.Stat("/run/systemd/system")
		return errors.Is(err, fs.ErrNotExist)
	}})
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", freePort(t), "--kube-addr", "127.0.0.1:0",
		"--site-binaries", filepath.Dir(programs.Site))
	var config struct {
		WriteFiles []struct{ Path, Permissions, Content string } `json:"write_files"`
		RunCommand [][]string                                    `json:"runcmd"`
	}
	must(t, yaml.Unmarshal([]byte(h.Token(t, "cloud-1", "--cloud-init")), &config))
	root := fleettest.NewDir(t)
	script := "set -eu\nmount -t tmpfs -o mode=755 none \"$ROOT\"\n"
	for i, dir := range []string{"/etc", "/usr/local", "/var/lib"} {
		script += fmt.Sprintf("over=\"$ROOT\"/%d\nmkdir -p \"$over/up\" \"$over/work\"\n"+
			"mount -t overlay overlay -o \"lowerdir=%[2]s,upperdir=$over/up,workdir=$over/work\" %[2]s\n", i, dir)
	}
	for _, w := range config.WriteFiles {
		script += fmt.Sprintf("mkdir -p $(dirname %[1]s)\nprintf %%s '%[2]s' > %[1]s\nchmod %[3]s %[1]s\n", w.Path, w.Content, w.Permissions)
	}
	for _, words := range config.RunCommand {
		script += "'" + strings.Join(quoteAll(words), "' '") + "'\n"
	}
	// What the unit says, with a directory that can be looked into from here.
	dir := fleettest.NewDir(t)
	script += "mount --bind \"$DATA\" /var/lib/skerry-site\nexec $(sed -n 's/^ExecStart=//p' /etc/systemd/system/skerry-site.service)\n"
	fleettest.Run(t, "env", "ROOT="+root, "DATA="+dir, "unshare", "--mount", "sh", "-c", script)
	fleettest.AwaitLink(t, dir, fleet.LinkConnected)
	if s, err := fleettest.StatusIn(dir); err != nil || s.Site != "cloud-1" {
		t.Errorf("it is %s: %v", s.Site, err)
	}
}

// quoteAll makes each word safe between single quotes.
func quoteAll(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strings.ReplaceAll(w, "'", `'\''`)
	}
	return out
}
