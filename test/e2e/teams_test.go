package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/test/fleettest"
)

// person is somebody with a kubeconfig of their own.
type person struct {
	t          *testing.T
	kubeconfig string
	dir        string
}

// skerry runs the command line as this person; files are written to the working directory first.
func (p person) skerry(args ...string) (string, error) {
	cmd := exec.Command(programs.Skerry, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// may checks that a command succeeds, and says what it prints.
func (p person) may(args ...string) string {
	p.t.Helper()
	out, err := p.skerry(args...)
	if err != nil {
		p.t.Errorf("skerry %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// mayNot checks that a command is refused in these words.
func (p person) mayNot(words string, args ...string) {
	p.t.Helper()
	out, err := p.skerry(args...)
	if err == nil || !strings.Contains(out, words) {
		p.t.Errorf("skerry %s: %v\n%s, want a refusal with %q", strings.Join(args, " "), err, out, words)
	}
}

// file writes an object for apply and returns its name.
func (p person) file(name, text string) string {
	p.t.Helper()
	must(p.t, os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600))
	return name
}

// app is a manifest of an app of namespace shop.
func (p person) app(name, bundle, sites, more string) string {
	return p.file(name+".yaml", fmt.Sprintf(
		"apiVersion: skerry.dev/v1alpha1\nkind: App\nmetadata: {name: %s, namespace: shop, labels: {region: south}}\nspec:\n  source: {bundle: %q}\n  placement: {sites: %s}\n%s", name, bundle, sites, more))
}

// teams gives namespace shop the sites of one region, and looks over every wall that stands around its editor.
func teams(t *testing.T, f *fleettest.Fleet) {
	f.Skerry(t, "label", "site", "shop-1", "region=north")
	f.Skerry(t, "label", "site", "shop-2", "region=south")
	dir := t.TempDir()
	admin := person{t: t, kubeconfig: filepath.Join(f.Dir, "kubeconfig"), dir: dir}
	admin.may("user", "add", "ana", "--role", "editor", "--namespace", "shop")
	admin.may("user", "add", "ben", "--role", "viewer", "--namespace", "shop")
	if list := admin.may("user", "list"); !strings.Contains(list, "editor@shop") || !strings.Contains(list, "viewer@shop") {
		t.Errorf("user list prints:\n%s", list)
	}
	if info, err := os.Stat(filepath.Join(dir, "ana.kubeconfig")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kubeconfig is %v, %v; want mode 0600", info, err)
	}
	admin.may("apply", "-f", admin.file("grant.yaml",
		"apiVersion: skerry.dev/v1alpha1\nkind: SiteGrant\nmetadata: {name: shop-north}\nspec: {namespaces: [shop], sites: {matchLabels: {region: north}}, runtimes: [process]}\n"))
	ana := person{t: t, kubeconfig: filepath.Join(dir, "ana.kubeconfig"), dir: dir}
	ben := person{t: t, kubeconfig: filepath.Join(dir, "ben.kubeconfig"), dir: dir}

	t.Run("an editor pushes and places within the grant", func(t *testing.T) {
		ana.t = t
		ana.may("app", "init", "till")
		ana.may("push", "till", "--version", "1.0.0")
		out := ana.may("apply", "-f", ana.app("till", "till:1.0.0", "{}", "  route: {path: /till}\n"))
		if !strings.Contains(out, "of which namespace shop is granted 1") {
			t.Errorf("apply does not warn of sites that are not granted:\n%s", out)
		}
		ana.may("wait", "app/till", "--for=condition=Ready", "--timeout=60s")
		if out := ana.may("status", "app/till"); !strings.Contains(out, "shop-1") || strings.Contains(out, "shop-2") {
			t.Errorf("the app should be at shop-1 alone:\n%s", out)
		}
		ana.may("logs", "app/till", "--site", "shop-1")
	})
	t.Run("an editor does not place beyond the grant", func(t *testing.T) {
		ana.t = t
		ana.mayNot("no SiteGrant lets namespace shop", "apply", "-f", ana.app("south", "till:1.0.0", "{matchLabels: {region: south}}", ""))
		ana.mayNot("as root", "apply", "-f", ana.app("root", "till:1.0.0", "{matchLabels: {region: north}}", "  process: {allowRoot: true}\n"))
		ana.mayNot("spec.source.bundle", "apply", "-f", ana.app("foreign", "../default/welcome:1.0.0", "{matchLabels: {region: north}}", ""))
		ana.mayNot("forbidden", "apply", "-f", ana.file("release.yaml", "apiVersion: skerry.dev/v1alpha1\nkind: Release\nmetadata: {name: till-0000000000, namespace: shop}\n"+
			"spec: {app: till, runtime: process, bundle: {repository: default/welcome, digest: 'sha256:"+strings.Repeat("0", 64)+"', size: 1}}\n"))
		ana.mayNot("forbidden", "label", "site", "shop-2", "region=north", "--overwrite")
		ana.mayNot("forbidden", "apply", "-f", ana.file("own-grant.yaml",
			"apiVersion: skerry.dev/v1alpha1\nkind: SiteGrant\nmetadata: {name: mine}\nspec: {namespaces: [shop], sites: {}, runtimes: [process]}\n"))
		ana.mayNot("may not", "push", "till", "--version", "6.6.6", "-n", "default")
		ana.mayNot("forbidden", "site", "token", "shop-9")
		ana.mayNot("forbidden", "site", "revoke", "shop-1")
		ana.mayNot("forbidden", "user", "add", "eve", "--role", "fleet-admin")
	})
	t.Run("an editor does not reach Secrets and ConfigMaps beyond the namespace", func(t *testing.T) {
		ana.t, admin.t = t, t
		admin.may("apply", "-f", admin.file("vault.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: vault, namespace: default}\nstringData: {key: value}\n"+
			"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: words, namespace: default}\ndata: {a: b}\n"))
		const north = "{matchLabels: {region: north}}"
		for _, name := range []string{"default/vault", "../default/vault", "vault.default/", "*"} {
			ana.mayNot("spec.secretRefs[0].name", "apply", "-f", ana.app("thief", "till:1.0.0", north, fmt.Sprintf("  secretRefs: [{name: %q}]\n", name)))
			ana.mayNot("spec.valuesFrom[0].configMapRef.name", "apply", "-f", ana.app("thief", "till:1.0.0", north, fmt.Sprintf("  valuesFrom: [{configMapRef: {name: %q}}]\n", name)))
		}
		ana.mayNot("values.vault", "apply", "-f", ana.app("thief", "till:1.0.0", north, "  env: {A: '${values.vault}'}\n"))
		// A name is one of the own namespace, whatever others have.
		for more, reason := range map[string]string{"  secretRefs: [{name: vault}]\n": "SecretNotFound", "  valuesFrom: [{configMapRef: {name: words}}]\n": "ConfigMapNotFound"} {
			out, err := ana.skerry("apply", "-f", ana.app("thief", "till:1.0.0", north, more))
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			ana.may("wait", "app/thief", "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}="+reason, "--timeout=30s")
			ana.may("delete", "app", "thief")
		}
	})
	t.Run("an editor does not see beyond the namespace", func(t *testing.T) {
		ana.t = t
		ana.mayNot("forbidden", "get", "apps", "-n", "default")
		ana.mayNot("forbidden", "get", "apps", "-A")
		ana.mayNot("forbidden", "get", "secrets", "-n", "default")
		ana.mayNot("forbidden", "get", "secrets", "-n", "skerry-system")
		ana.mayNot("forbidden", "get", "sites")
		ana.mayNot("may not get apps/status", "status", "app/welcome", "-n", "default")
		ana.mayNot("may not get apps/log", "logs", "app/welcome", "-n", "default", "--site", "shop-1")
		ana.mayNot("not found", "logs", "app/welcome", "--site", "shop-1")
	})
	t.Run("a viewer sees and changes nothing", func(t *testing.T) {
		ben.t = t
		ben.may("get", "apps")
		ben.may("status", "app/till")
		ben.may("logs", "app/till", "--site", "shop-1")
		ben.mayNot("forbidden", "apply", "-f", "till.yaml", "--server-side")
		ben.mayNot("forbidden", "delete", "app", "till")
		ben.mayNot("forbidden", "get", "secrets")
		ben.mayNot("may not create bundles", "push", "till", "--version", "6.6.6")
	})
	t.Run("whoever is asked about is written down", func(t *testing.T) {
		log, err := os.ReadFile(filepath.Join(f.Dir, "hub.log"))
		must(t, err)
		audited := 0
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, `"msg":"audit"`) && strings.Contains(line, "skerry-users:ana") && strings.Contains(line, `"allowed":false`) {
				audited++
			}
		}
		if audited < 3 {
			t.Errorf("%d refusals of ana are in the hub's log, want at least 3", audited)
		}
	})
	t.Run("who is removed is out", func(t *testing.T) {
		admin.t = t
		admin.may("user", "remove", "ana")
		fleettest.Eventually(t, 30*time.Second, "ana is refused", func() string {
			if out, err := ana.skerry("status", "app/till"); err == nil {
				return out
			}
			return ""
		})
		admin.may("delete", "app", "till", "-n", "shop")
		admin.may("delete", "sitegrant", "shop-north")
	})
}
