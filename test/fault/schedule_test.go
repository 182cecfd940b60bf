package fault

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/event"
	"github.com/skerry-dev/skerry/internal/testenv"
	"github.com/skerry-dev/skerry/test/fault/link"
	"github.com/skerry-dev/skerry/test/fault/powercut"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// place is a site of a schedule: a box behind a link of its own, and callers beside it.
type place struct {
	*box
	relay   *link.Relay
	disk    *powercut.Disk // nil: its power is not cut
	callers *callers
	manifests
}

// region is a hub with two addresses, and places.
type region struct {
	t      *testing.T
	rand   *rand.Rand
	hub    *fleettest.Hub
	dir    string
	args   []string
	homes  [2]*link.Address
	places []*place
	round  int
	// done counts the faults, by name.
	done map[string]int
}

// newRegion starts a hub and three places: two run programs, the third, whose power can be cut, modules as
// well.
func newRegion(t *testing.T, r *rand.Rand) *region {
	fleettest.Require(t)
	testenv.Require(t, powercut.Needs()...)
	network := link.New(t)
	g := &region{t: t, rand: r, dir: fleettest.NewDir(t), done: map[string]int{}}
	for k := range g.homes {
		g.homes[k] = network.Address()
	}
	port := strconv.Itoa(20_000 + os.Getpid()%10_000)
	url := func(a *link.Address) string { return "https://" + a.IP + ":" + port }
	g.args = []string{
		"--addr", "0.0.0.0:" + port, "--name", g.homes[0].IP, "--public-url", url(g.homes[0]),
		"--other-url", url(g.homes[1]), "--kube-addr", "127.0.0.1:0",
	}
	g.startHub()
	for k := range 3 {
		name := fmt.Sprintf("toll-%d", k+1)
		p := &place{box: newBox(t, name), relay: network.Relay(r.Uint64())}
		p.ns, p.gateway = p.relay.Namespace, "127.0.0.1:8081"
		flags := []string{"--label", "kind=toll"}
		if k == 2 {
			p.disk = p.onDisk()
			flags = append(flags, "--label", "modules=yes")
		}
		p.start(g.hub.Token(t, name, flags...))
		g.places = append(g.places, p)
	}
	placeHello(t, g.hub, "1.0.0")
	placeModule(t, g.hub)
	awaitNewest(t, g.hub, len(g.places))
	for k, p := range g.places {
		paths := []string{"/hello"}
		if k == 2 {
			paths = append(paths, "/prices")
		}
		p.awaitAnswers(paths)
		p.callers = call(p.ns, "http://127.0.0.1:8081", paths)
		p.manifests.watch(t, p.box)
	}
	return g
}

func (g *region) startHub() { g.hub = fleettest.StartHub(g.t, programs, g.dir, g.args...) }

// placeModule pushes the scaffold's WebAssembly app and places it where modules run.
func placeModule(t *testing.T, h *fleettest.Hub) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "prices")
	h.Skerry(t, "app", "init", dir, "--runtime", "wasm")
	h.Skerry(t, "push", dir, "--version", "1.0.0")
	manifest := filepath.Join(dir, "placed.yaml")
	text := `apiVersion: skerry.dev/v1alpha1
kind: SiteGrant
metadata: {name: modules}
spec: {namespaces: [default], sites: {matchLabels: {modules: "yes"}}, runtimes: [wasm]}
---
apiVersion: skerry.dev/v1alpha1
kind: App
metadata: {name: prices, namespace: default}
spec:
  source: {bundle: "prices:1.0.0"}
  placement: {sites: {matchLabels: {modules: "yes"}}}
  route: {path: /prices}
`
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Skerry(t, "apply", "-f", manifest)
}

// release lets a new release of hello go out.
func (g *region) release() {
	g.t.Helper()
	g.round++
	release(g.t, g.hub, g.round)
}

// fault does one fault of the schedule. Faults of links last until another fault or the end heals them.
func (g *region) fault() {
	p := g.places[g.rand.IntN(len(g.places))]
	some := func(low, high float64) float64 { return low + g.rand.Float64()*(high-low) }
	faults := []struct {
		name string
		do   func()
	}{
		{"loss", func() { p.relay.SetBoth(link.Faults{Loss: some(0.01, 0.3)}) }},
		{"asymmetric cut", func() {
			ways := []link.Way{link.To, link.From}
			p.relay.Set(ways[g.rand.IntN(2)], link.Faults{Cut: true})
		}},
		{"64 kbit/s", func() { p.relay.SetBoth(link.Faults{Rate: 64_000}) }},
		{"2 s delay", func() { p.relay.SetBoth(link.Faults{Delay: 2 * time.Second}) }},
		{"reordering and doubling", func() {
			p.relay.SetBoth(link.Faults{Jitter: time.Duration(some(10, 500)) * time.Millisecond, Double: some(0.05, 0.5)})
		}},
		{"flapping", func() {
			for range 3 {
				p.relay.SetBoth(link.Faults{Cut: true})
				time.Sleep(time.Duration(some(200, 1500)) * time.Millisecond)
				p.relay.SetBoth(link.Faults{})
				time.Sleep(time.Duration(some(200, 1500)) * time.Millisecond)
			}
		}},
		{"healed link", func() { p.relay.SetBoth(link.Faults{}) }},
		{"hub at another address", func() {
			old := g.rand.IntN(2)
			g.homes[1-old].Up()
			g.homes[old].Down()
		}},
		{"kill -9 of the hub", func() {
			g.hub.Kill(g.t)
			time.Sleep(time.Duration(some(0, 2000)) * time.Millisecond)
			g.startHub()
		}},
		{"kill -9 of an agent", func() { p.down(func() { p.kill(); p.start("") }) }},
		{"kill -9 of an app", func() { p.down(func() { p.killApps() }) }},
		{"power cut of a site", func() {
			p := g.places[2]
			g.t.Logf("the power cut is at %s", p.name)
			p.down(func() {
				if err := p.disk.Cut(g.rand, p.kill); err != nil {
					g.t.Fatal(err)
				}
				p.start("")
			})
		}},
	}
	f := faults[g.rand.IntN(len(faults))]
	g.done[f.name]++
	g.t.Logf("%s: %s", p.name, f.name)
	f.do()
}

// down does something to a place that its callers may notice, and waits until they are answered again.
func (p *place) down(do func()) {
	p.t.Helper()
	back := p.callers.excuse()
	do()
	p.awaitAnswers(p.callers.paths)
	back()
}

// awaitAnswers waits until the place answers its callers.
func (p *place) awaitAnswers(paths []string) {
	p.t.Helper()
	for _, path := range paths {
		fleettest.Eventually(p.t, time.Minute, p.name+" answers "+path, func() string {
			out, err := get(p.ns, "http://127.0.0.1:8081"+path)
			if err != nil {
				return fmt.Sprint(out, err)
			}
			return ""
		})
	}
}

// killApps ends every program that the agent started.
func (p *place) killApps() {
	names, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, name := range names {
		exe, err := os.Readlink(name)
		if err != nil || !filepath.IsAbs(exe) {
			continue
		}
		if rel, err := filepath.Rel(p.dir, exe); err == nil && filepath.IsLocal(rel) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
			}
		}
	}
}

// heal ends all faults that last.
func (g *region) heal() {
	for _, p := range g.places {
		p.relay.SetBoth(link.Faults{})
	}
	for _, a := range g.homes {
		a.Up()
	}
}

// scheduleFor is how long faults go on.
const scheduleFor = 20 * time.Second

// TestSchedule lets faults happen by a seeded schedule while releases go out and callers ask, heals all, and
// checks what must hold then: every site runs the newest release; one that cannot start is reported and the
// last good one goes on; no site went back to an older manifest; no request failed but at a site whose own
// machine or programs were killed; every event of a site arrived once and in order.
func TestSchedule(t *testing.T) {
	seed := seedOf(t)
	g := newRegion(t, rand.New(rand.NewPCG(seed, 2)))
	for until := time.Now().Add(scheduleFor); time.Now().Before(until); {
		if g.rand.IntN(3) == 0 {
			g.release()
		}
		g.fault()
		time.Sleep(time.Duration(g.rand.IntN(2000)) * time.Millisecond)
	}
	g.release()
	healed := time.Now()
	g.heal()
	good := awaitNewest(t, g.hub, len(g.places))
	took := time.Since(healed)
	t.Logf("in sync %s after the last fault was healed", took.Round(time.Millisecond))

	g.breakRelease(good)
	g.release()
	awaitNewest(t, g.hub, len(g.places))
	result := outcome{Seed: seed, Faults: g.done, Releases: g.round + 1, HealedMillis: took.Milliseconds()}
	for _, p := range g.places {
		asked, failed := p.callers.stop()
		result.Requests += asked
		result.Failed += int64(len(failed))
		if asked < 100 || len(failed) > 0 {
			t.Errorf("%s: of %d requests %d failed that may not, such as %v", p.name, asked, len(failed), failed[:min(3, len(failed))])
		}
		for _, back := range p.manifests.stop() {
			t.Errorf("%s went back: %s", p.name, back)
		}
	}
	for _, p := range g.places {
		result.Events += g.checkEvents(p.name)
	}
	result.Passed = !t.Failed()
	result.write(t)
}

// checkEvents checks that what happened at a site arrived at the hub once, in order and without a gap, and returns
// how many events that were.
func (g *region) checkEvents(site string) (events int) {
	g.t.Helper()
	out := g.hub.Skerry(g.t, "events", "--site", site, "--class", "alarm,event,sample", "--limit", strconv.Itoa(event.MaxLimit), "-o", "json")
	last := map[string]uint64{}
	for line := range strings.Lines(out) {
		var e event.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			g.t.Fatalf("events of %s: %v: %s", site, err, line)
		}
		life := string(e.Member) + " " + e.Epoch
		if e.Lost > 0 || last[life] != 0 && e.Sequence != last[life]+1 {
			g.t.Errorf("%s: after event %d of %s the hub has %s", site, last[life], life, line)
		}
		last[life] = e.Sequence
		events++
	}
	if events == 0 {
		g.t.Errorf("%s: the hub has no event of it", site)
	}
	return events
}

// outcome is what is published of a run.
type outcome struct {
	Seed         uint64         `json:"seed"`
	Passed       bool           `json:"passed"`
	Faults       map[string]int `json:"faults"`
	Releases     int            `json:"releases"`
	Requests     int64          `json:"requests"`
	Failed       int64          `json:"failed"`
	Events       int            `json:"events"`
	HealedMillis int64          `json:"healedMillis"`
}

// outcomeFile names the file that gets the outcome, for package soak.
const outcomeFile = "SKERRY_FAULT_OUTCOME"

func (o outcome) write(t *testing.T) {
	t.Helper()
	path := os.Getenv(outcomeFile)
	if path == "" {
		return
	}
	data, err := json.Marshal(o)
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	must(t, err)
}
