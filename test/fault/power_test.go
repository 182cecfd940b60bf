package fault

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/testenv"
	"github.com/skerry-dev/skerry/test/fault/link"
	"github.com/skerry-dev/skerry/test/fault/powercut"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// onDisk puts a box's data on a disk whose power can be cut, and its programs into a machine of their own,
// which ends at once with all of them.
func (b *box) onDisk() *powercut.Disk {
	b.t.Helper()
	testenv.Require(b.t, powercut.Needs()...)
	disk := powercut.New(powercut.Strict)
	if err := disk.Mount(b.dir); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		b.stop()
		if err := disk.Unmount(); err != nil {
			b.t.Error(err)
		}
	})
	b.machine = true
	return disk
}

// release gives the app hello a new release, number n: the same program with another environment.
func release(t *testing.T, h *fleettest.Hub, n int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hello.yaml")
	text := fmt.Sprintf(`apiVersion: skerry.dev/v1alpha1
kind: App
metadata: {name: hello, namespace: default}
spec:
  source: {bundle: "hello:1.0.0"}
  placement: {sites: {matchLabels: {kind: toll}}}
  route: {path: /hello}
  env: {ROUND: "%d"}
`, n)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	apply(t, h, path)
}

// apply applies a file, as soon as the hub answers.
func apply(t *testing.T, h *fleettest.Hub, path string) {
	t.Helper()
	fleettest.Eventually(t, time.Minute, "the hub takes "+path, func() string {
		if out, err := h.TrySkerry("apply", "--server-side", "--force-conflicts", "-f", path); err != nil {
			return out
		}
		return ""
	})
}

// newest is the release that the hub means sites to run; empty while it does not know.
func newest(h *fleettest.Hub) (name, wrong string) {
	out, err := h.TrySkerry("get", "app", "hello", "-o", "jsonpath={.metadata.generation} {.status.observedGeneration} {.status.release}")
	fields := strings.Fields(out)
	if err != nil || len(fields) != 3 || fields[0] != fields[1] {
		return "", fmt.Sprintf("app: %q %v", out, err)
	}
	return fields[2], ""
}

// awaitNewest waits until the hub says that each of so many sites runs the newest release.
func awaitNewest(t *testing.T, h *fleettest.Hub, sites int) (name string) {
	t.Helper()
	fleettest.Eventually(t, 2*time.Minute, "every site runs the newest release", func() (wrong string) {
		if name, wrong = newest(h); wrong != "" {
			return wrong
		}
		var v app.StatusView
		raw, err := h.TrySkerry("status", "app/hello", "-o", "json")
		if err != nil || json.Unmarshal([]byte(raw), &v) != nil {
			return raw
		}
		if len(v.Sites) != sites {
			return fmt.Sprintf("%d sites", len(v.Sites))
		}
		for _, s := range v.Sites {
			if !s.Healthy || s.Running.Release != name {
				return fmt.Sprintf("%s: %s of %s, running %s: %s", s.Site, s.Phase, s.Desired.Release, s.Running.Release, s.Message)
			}
		}
		return ""
	})
	return name
}

// cutDuring lets the power of a disk go off at a random operation of what begins now, or after a while, and
// brings back what survived.
func cutDuring(t *testing.T, r *rand.Rand, disk *powercut.Disk, kill func()) {
	t.Helper()
	went := disk.CutAfter(r.IntN(60))
	select {
	case <-went:
	case <-time.After(time.Duration(1+r.IntN(4)) * time.Second):
	}
	if err := disk.Cut(r, kill); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCutAtASite cuts a site's power again and again while releases go out. It starts each time, with no
// network at first, serves what it had, never an older manifest than it had said to have, and then takes
// the newest release.
func TestPowerCutAtASite(t *testing.T) {
	fleettest.Require(t)
	r := random(t)
	c := link.New(t).Cable()
	h := fleettest.StartHub(t, programs, fleettest.NewDir(t), "--addr", c.Here+":7443", "--name", c.Here,
		"--public-url", "https://"+c.Here+":7443", "--kube-addr", "127.0.0.1:0")
	b := newBox(t, "toll-1")
	disk := b.onDisk()
	b.ns, b.gateway = c.Namespace, "127.0.0.1:8081"
	token := h.Token(t, b.name, "--label", "kind=toll")
	placeHello(t, h, "1.0.0")
	for range min(rounds(t), 3) { // while it joins and starts its first app
		b.start(token)
		cutDuring(t, r, disk, b.kill)
	}
	b.start(token)
	awaitNewest(t, h, 1)
	for n := range min(rounds(t), 4) {
		before, err := fleettest.StatusIn(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		release(t, h, n)
		stopWatch := b.watch()
		cutDuring(t, r, disk, b.kill)
		seen := max(before.Generation, stopWatch())
		c.Pull()
		b.start("")
		fleettest.Eventually(t, time.Minute, fmt.Sprintf("round %d: it serves with no network", n), func() string {
			if said, err := get(c.Namespace, "http://127.0.0.1:8081/hello"); err != nil || !strings.Contains(said, "from toll-1") {
				return fmt.Sprint(said, err)
			}
			return ""
		})
		after, err := fleettest.StatusIn(b.dir)
		if err != nil || after.Generation < seen {
			t.Errorf("round %d: it had manifest %d before the cut and has %d after it %v", n, seen, after.Generation, err)
		}
		c.Plug()
		awaitNewest(t, h, 1)
	}
}

// watch asks the agent for its manifest until stop is called, which returns the newest that it said to have.
func (b *box) watch() (stop func() uint64) {
	quit, newest := make(chan struct{}), make(chan uint64)
	go func() {
		last := uint64(0)
		for {
			select {
			case newest <- last:
				return
			case <-quit:
			case <-time.After(5 * time.Millisecond):
			}
			if s, err := fleettest.StatusIn(b.dir); err == nil {
				last = max(last, s.Generation)
			}
		}
	}()
	return func() uint64 { defer close(quit); return <-newest }
}

// freeAddress is one on loopback on which nobody listens now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

// TestPowerCutAtTheHub cuts the hub's power while releases go out. It starts each time and knows every object
// that it acknowledged; sites, whose apps nobody finds slower for it, take the newest release.
func TestPowerCutAtTheHub(t *testing.T) {
	t.Parallel()
	fleettest.Require(t)
	testenv.Require(t, powercut.Needs()...)
	r := random(t)
	dir := fleettest.NewDir(t)
	disk := powercut.New(powercut.Journal) // which etcd and NATS rely on
	must(t, disk.Mount(dir))
	var h *fleettest.Hub
	t.Cleanup(func() { must(t, disk.Unmount()) }) // after the hub stopped
	addr := freeAddress(t)
	start := func() { h = fleettest.StartHub(t, programs, dir, "--addr", addr, "--kube-addr", "127.0.0.1:0") }
	start()
	b := newBox(t, "toll-1")
	b.start(h.Token(t, b.name, "--label", "kind=toll"))
	placeHello(t, h, "1.0.0")
	awaitNewest(t, h, 1)
	s, err := fleettest.StatusIn(b.dir)
	must(t, err)
	load := load(s.Gateway + "/hello")
	for n := range min(rounds(t), 3) {
		release(t, h, n)
		cutDuring(t, r, disk, func() { h.Kill(t) })
		start()
		fleettest.Eventually(t, time.Minute, fmt.Sprintf("round %d: the hub knows what it acknowledged", n), func() string {
			out, err := h.TrySkerry("get", "app", "hello", "-o", "jsonpath={.spec.env.ROUND}")
			if want := fmt.Sprint(n); err == nil && out != want {
				t.Fatalf("it acknowledged round %s and has %q", want, out)
			}
			if err != nil {
				return out
			}
			return ""
		})
		awaitNewest(t, h, 1)
	}
	report(t, b.name, load)
}
