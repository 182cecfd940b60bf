package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// TestExistingCluster runs a hub on an API server that is there already, and lets a site join.
func TestExistingCluster(t *testing.T) {
	fleettest.Require(t)
	api := kubetest.Start(t)
	dir := fleettest.NewDir(t)
	h := fleettest.StartHub(t, programs, dir, "--kubeconfig", api.Kubeconfig, "--addr", "127.0.0.1:0")
	h.Kubeconfig = api.Kubeconfig
	h.Join(t, "box-1")
	if _, err := os.Stat(filepath.Join(dir, "kubernetes")); !os.IsNotExist(err) {
		t.Errorf("the hub started an API server of its own: %v", err)
	}
}
