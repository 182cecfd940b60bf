package e2e

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/skerry-dev/skerry/test/fleettest"
)

// outside takes a bundle through a registry of somebody else's: pushed there, copied from there, placed.
func outside(t *testing.T, f *fleettest.Fleet) {
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "registry.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	repository := strings.TrimPrefix(server.URL, "https://") + "/acme/stand"
	dir := t.TempDir()
	skerry := func(args ...string) (string, error) {
		cmd := exec.Command(programs.Skerry, args...)
		cmd.Dir, cmd.Env = dir, append(f.Env(), "SSL_CERT_FILE="+ca)
		out, err := cmd.Output()
		return string(out), err
	}
	if out, err := skerry("app", "init", "stand"); err != nil {
		t.Fatal(out, err)
	}
	pushed, err := skerry("push", "stand", "--version", "1.0.0", "--to", repository)
	if err != nil {
		t.Fatal(pushed, err)
	}
	copied, err := skerry("push", "--from", repository+":1.0.0")
	_, digest, _ := strings.Cut(strings.TrimSpace(pushed), "@")
	if err != nil || copied != "default/stand:1.0.0@"+digest+"\n" || digest == "" {
		t.Fatalf("copied %q of %q: %v", copied, pushed, err)
	}
	if out, err := skerry("push", "--from", repository+"@"+digest, "--version", "stable"); err != nil || !strings.HasPrefix(out, "default/stand:stable@"+digest) {
		t.Errorf("by digest: %q %v", out, err)
	}
	for _, bad := range []string{repository + ":2.0.0", repository, "nothing"} {
		if out, err := skerry("push", "--from", bad); err == nil {
			t.Errorf("--from %s: %s", bad, out)
		}
	}
	f.Skerry(t, "apply", "-f", filepath.Join(dir, "stand", "app.yaml"))
	f.Skerry(t, "wait", "app/stand", "--for=condition=Ready", "--timeout=60s")
	f.Skerry(t, "delete", "app", "stand")
}
