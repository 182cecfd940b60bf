package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// replaced puts new hardware in the place of a site's: what is declared stays, the old machine is cut off.
func replaced(t *testing.T, f *fleettest.Fleet) {
	if out, err := f.TrySkerry("site", "replace", "shop-55"); err == nil || !strings.Contains(out, "there is no site shop-55") {
		t.Errorf("a site with a slip of the pen: %v\n%s", err, out)
	}
	if out, err := f.TrySkerry("get", "site", "shop-55"); err == nil {
		t.Errorf("a refused replacement made the site:\n%s", out)
	}
	token := strings.TrimSpace(f.Skerry(t, "site", "token", "shop-5", "--label", "kind=shop"))
	oldDir, newDir := fleettest.NewDir(t), fleettest.NewDir(t)
	stopOld := runSite(t, oldDir, token)
	defer stopOld()
	serves := func(dir string) {
		t.Helper()
		fleettest.Eventually(t, time.Minute, "welcome at shop-5", func() string {
			s, err := fleettest.StatusIn(dir)
			if err != nil {
				return err.Error()
			}
			if _, body, err := fleettest.Get(s.Gateway + "/"); err != nil || !strings.Contains(body, "shop-5") {
				return fmt.Sprintf("%v %s", err, body)
			}
			return ""
		})
	}
	serves(oldDir)
	before, err := fleettest.StatusIn(oldDir)
	must(t, err)

	cmd := exec.Command(programs.Skerry, "site", "replace", "shop-5")
	cmd.Env = f.Env()
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || !strings.Contains(said.String(), "replaces member "+string(before.Member)) {
		t.Fatalf("replace: %v\n%s", err, said.String())
	}
	// Until the new machine is there, the old one serves and is connected.
	if now, err := fleettest.StatusIn(oldDir); err != nil || now.Link != fleet.LinkConnected {
		t.Errorf("the old machine is %s, %v before the new one joined", now.Link, err)
	}
	stopNew := runSite(t, newDir, strings.TrimSpace(string(out)))
	defer stopNew()
	serves(newDir)
	fleettest.Eventually(t, 20*time.Second, "the old machine is cut off", func() string {
		if s, err := fleettest.StatusIn(oldDir); err != nil || s.Link == fleet.LinkConnected {
			return fmt.Sprint(s.Link, err)
		}
		return ""
	})
	labels := f.Skerry(t, "get", "site", "shop-5", "-o", "jsonpath={.metadata.labels.kind} {.spec.revokedMembers} {.status.members[*].id}")
	after, err := fleettest.StatusIn(newDir)
	must(t, err)
	if want := fmt.Sprintf("shop [%q] %s %s", before.Member, before.Member, after.Member); labels != want {
		t.Errorf("the site is %q, want %q", labels, want)
	}
	stopNew()
	stopOld()
	f.Skerry(t, "delete", "site", "shop-5")
}
