package fault

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/testenv"
	"github.com/skerry-dev/skerry/test/fault/link"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// placeLarge pushes the scaffold's app with as many bytes beside it that no compression makes fewer, and places it
// on every toll gate.
func placeLarge(t *testing.T, h *fleettest.Hub, size int) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "large")
	h.Skerry(t, "app", "init", dir)
	source, err := os.ReadFile(filepath.Join(dir, "bundle.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(source), "build:\n", "build:\n  files:\n  - from: ballast\n", 1)
	with = strings.Replace(with, "linux/amd64, linux/arm64", "linux/"+goarch(), 1)
	ballast := make([]byte, size)
	seed := [32]byte{1}
	if _, err := rand.NewChaCha8(seed).Read(ballast); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"bundle.yaml": []byte(with), "ballast": ballast} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.Skerry(t, "push", dir, "--version", "1.0.0")
	manifest := filepath.Join(dir, "placed.yaml")
	text := `apiVersion: skerry.dev/v1alpha1
kind: SiteGrant
metadata: {name: tolls}
spec: {namespaces: [default], sites: {}, runtimes: [process]}
---
apiVersion: skerry.dev/v1alpha1
kind: App
metadata: {name: large, namespace: default}
spec:
  source: {bundle: "large:1.0.0"}
  placement: {sites: {matchLabels: {kind: toll}}}
`
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	apply(t, h, manifest)
}

func goarch() string {
	out, err := exec.Command("go", "env", "GOARCH").Output()
	if err != nil {
		return "amd64"
	}
	return strings.TrimSpace(string(out))
}

// received is how many bytes came over a cable to its other host.
func received(t *testing.T, c *link.Cable) int64 {
	t.Helper()
	out, err := exec.Command("ip", "-n", c.Name, "-s", "-j", "link", "show", "eth0").Output()
	if err != nil {
		t.Fatal(err)
	}
	var links []struct {
		Stats64 struct {
			RX struct{ Bytes int64 }
		} `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return links[0].Stats64.RX.Bytes
}

// reset makes the other host's kernel end every connection for a moment, as a line that drops does.
func reset(t *testing.T, c *link.Cable) {
	t.Helper()
	nft := func(rules string) {
		cmd := exec.Command("nsenter", c.Args("nft", "-f", "-")...)
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
	}
	nft("table ip linedrop\ndelete table ip linedrop\ntable ip linedrop {\nchain in { type filter hook input priority 0; iifname \"eth0\" meta l4proto tcp reject with tcp reset\n}\n" +
		"chain out { type filter hook output priority 0; oifname \"eth0\" meta l4proto tcp reject with tcp reset\n}\n}\n")
	time.Sleep(500 * time.Millisecond) // as long as the line is down
	nft("table ip linedrop\ndelete table ip linedrop\n")
}

// TestLargeBundleOverALineThatDrops brings 200 MB over a line that drops every ten seconds: what arrived is never
// sent again.
func TestLargeBundleOverALineThatDrops(t *testing.T) {
	fleettest.Require(t)
	testenv.Require(t, testenv.Tool("nft"), testenv.Tool("tc"))
	const size = 200 << 20
	c := link.New(t).Cable()
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", c.Here+":7443", "--name", c.Here,
		"--public-url", "https://"+c.Here+":7443", "--kube-addr", "127.0.0.1:0")
	b := newBox(t, "toll-1")
	b.ns = c.Namespace
	b.start(h.Token(t, "toll-1", "--label", "kind=toll"))
	b.awaitConnected()
	c.Slow(50_000_000)
	before := received(t, c)
	placeLarge(t, h, size)
	begun := time.Now()
	drops := 0
	drop := begun.Add(10 * time.Second)
	fleettest.Eventually(t, 5*time.Minute, "the app runs", func() string {
		if time.Now().After(drop) {
			drops++
			reset(t, c)
			drop = time.Now().Add(10 * time.Second)
		}
		out, err := h.TrySkerry("status", "app/large", "-o", "json")
		if err != nil || !strings.Contains(out, `"healthy": true`) {
			return fmt.Sprint("not yet ", err)
		}
		return ""
	})
	got := received(t, c) - before
	t.Logf("%d MB took %v over a line of 50 Mbit/s that dropped %d times, and %d MB were sent", size>>20, time.Since(begun).Round(time.Second), drops, got>>20)
	if drops < 2 {
		t.Errorf("the line dropped %d times: too fast to show anything", drops)
	}
	if got > size*5/4 {
		t.Errorf("%d MB were sent for %d MB: something began anew", got>>20, size>>20)
	}
}

// TestNeighbours puts two sites on one network, one of them behind a slow line: it takes content from the other, and
// the other says whether it is there.
func TestNeighbours(t *testing.T) {
	fleettest.Require(t)
	testenv.Require(t, testenv.Tool("tc"))
	n := link.New(t)
	a, b := n.Cable(), n.Cable()
	between(t, a, b)
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", "0.0.0.0:18443", "--name", a.Here, "--name", b.Here,
		"--public-url", "https://"+a.Here+":18443", "--kube-addr", "127.0.0.1:0")
	const size = 30 << 20
	boxes := map[string]*box{}
	for i, c := range []*link.Cable{a, b} {
		name := fmt.Sprintf("toll-%d", i+1)
		one := newBox(t, name)
		one.ns, one.neighbour = c.Namespace, fmt.Sprintf("192.168.77.%d:7444", i+1)
		one.start(h.Token(t, name, "--label", "network=none"))
		one.awaitConnected()
		boxes[name] = one
	}
	for name := range boxes {
		patch := filepath.Join(t.TempDir(), "site.yaml")
		text := fmt.Sprintf("apiVersion: skerry.dev/v1alpha1\nkind: Site\nmetadata: {name: %s}\nspec: {network: plaza}\n", name)
		if err := os.WriteFile(patch, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Skerry(t, "apply", "--server-side", "-f", patch)
	}
	placeLarge(t, h, size)
	healthy := func(site string) {
		t.Helper()
		fleettest.Eventually(t, 2*time.Minute, "the app runs at "+site, func() string {
			out, err := h.TrySkerry("get", "site", site, "-o", "name")
			if err == nil {
				out, err = h.TrySkerry("status", "app/large", "-o", "json")
			}
			if err != nil || strings.Count(out, `"healthy": true`) < int(site[len(site)-1]-'0') {
				return fmt.Sprint("not yet ", err)
			}
			return ""
		})
	}
	h.Skerry(t, "label", "site", "toll-1", "kind=toll")
	healthy("toll-1")
	b.Slow(256_000)
	before := received(t, b)
	h.Skerry(t, "label", "site", "toll-2", "kind=toll")
	healthy("toll-2")
	if got := received(t, b) - before; got > size/4 {
		t.Errorf("%d KB came from the hub over the slow line: a neighbour had the content", got>>10)
	}

	b.Slow(0)
	b.Pull()
	believed := func(want string) {
		t.Helper()
		fleettest.Eventually(t, 2*time.Minute, "what is believed of toll-2", func() string {
			out, err := h.TrySkerry("get", "site", "toll-2", "-o", "jsonpath={.status.away.belief}: {.status.away.why}")
			if err != nil || !strings.HasPrefix(out, want) {
				return fmt.Sprint(out, err)
			}
			return ""
		})
	}
	believed("LinkDown: its neighbour toll-1 hears it")
	boxes["toll-2"].kill()
	believed("SiteDown: its neighbour toll-1 is connected and does not hear it")
}

// between joins two hosts by a cable of their own.
func between(t *testing.T, a, b *link.Cable) {
	t.Helper()
	for _, args := range [][]string{
		{"link", "add", "lan", "netns", a.Name, "type", "veth", "peer", "name", "lan", "netns", b.Name},
		{"-n", a.Name, "addr", "add", "192.168.77.1/24", "dev", "lan"}, {"-n", a.Name, "link", "set", "lan", "up"},
		{"-n", b.Name, "addr", "add", "192.168.77.2/24", "dev", "lan"}, {"-n", b.Name, "link", "set", "lan", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
}
