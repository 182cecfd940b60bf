package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/test/fleettest"
)

var programs fleettest.Binaries

func TestMain(m *testing.M) { fleettest.Main(m, &programs) }

// sites that `skerry up` runs.
var sites = []string{"shop-1", "shop-2", "shop-3"}

// rounds is how often each kind of process is killed: ten times, or as SKERRY_SOAK says.
func rounds(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("SKERRY_SOAK")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return 2
	}
	return 10
}

func random(t *testing.T) *rand.Rand { return rand.New(rand.NewPCG(seedOf(t), 1)) }

func seedOf(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("SKERRY_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("SKERRY_SEED=%d replays this run", seed)
	return seed
}

// world is a fleet under load whose app welcome gets a new release each round.
type world struct {
	*fleettest.Fleet
	t     *testing.T
	rand  *rand.Rand
	round int
}

func newWorld(t *testing.T) *world {
	fleettest.Require(t)
	f := fleettest.StartUp(t, programs, fleettest.NewDir(t))
	w := &world{Fleet: f, t: t, rand: random(t)}
	w.converged()
	return w
}

// release makes a new release: the same program with another environment.
func (w *world) release() {
	w.t.Helper()
	w.round++
	w.Skerry(w.t, "apply", "--server-side", "--force-conflicts", "-f", w.manifest())
}

func (w *world) manifest() string {
	w.t.Helper()
	path := w.Dir + "/round.yaml"
	text := fmt.Sprintf(`apiVersion: skerry.dev/v1alpha1
kind: App
metadata: {name: welcome, namespace: default}
spec:
  source: {bundle: "welcome:1.0.0"}
  placement: {sites: {matchLabels: {kind: shop}}}
  route: {path: /}
  env: {ROUND: "%d"}
`, w.round)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// pause waits for a random time in which a release is somewhere on its way.
func (w *world) pause() { time.Sleep(time.Duration(w.rand.IntN(2000)) * time.Millisecond) }

// converged waits until every site serves the newest release, which the spec of this round made.
func (w *world) converged() {
	w.t.Helper()
	fleettest.Eventually(w.t, 90*time.Second, fmt.Sprintf("round %d: every site serves the newest release", w.round), func() string {
		out, err := w.TrySkerry("get", "app", "welcome", "-o", "jsonpath={.metadata.generation} {.status.observedGeneration} {.status.release}")
		fields := strings.Fields(out)
		if err != nil || len(fields) != 3 || fields[0] != fields[1] {
			return fmt.Sprintf("app: %q %v", out, err)
		}
		var v app.StatusView
		raw, err := w.TrySkerry("status", "app/welcome", "-o", "json")
		if err != nil || json.Unmarshal([]byte(raw), &v) != nil {
			return raw
		}
		if len(v.Sites) != len(sites) {
			return fmt.Sprintf("%d sites", len(v.Sites))
		}
		for _, s := range v.Sites {
			if !s.Healthy || s.Running.Release != fields[2] {
				return fmt.Sprintf("%s: %s of %s, running %s: %s", s.Site, s.Phase, s.Desired.Release, s.Running.Release, s.Message)
			}
		}
		return ""
	})
}

// load asks a site again and again until stop is called, which returns how many requests succeeded and what
// went wrong.
func load(url string) (stop func() (int64, []string)) {
	ctx, cancel := context.WithCancel(context.Background())
	var ok atomic.Int64
	var mu sync.Mutex
	var failed []string
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				code, body, err := fleettest.Get(url)
				if err != nil || code != 200 {
					mu.Lock()
					failed = append(failed, fmt.Sprintf("%s %d %v %.100s", time.Now().Format("15:04:05.000"), code, err, body))
					mu.Unlock()
				} else {
					ok.Add(1)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return func() (int64, []string) { cancel(); wg.Wait(); return ok.Load(), failed }
}

func (w *world) url(site string) string {
	w.t.Helper()
	s, err := w.SiteStatus(site)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Gateway + "/"
}

func report(t *testing.T, site string, stop func() (int64, []string)) {
	t.Helper()
	ok, failed := stop()
	t.Logf("%s: %d requests answered, %d failed", site, ok, len(failed))
	if ok == 0 || len(failed) > 0 {
		t.Errorf("%s: %d requests answered, %d failed, such as %v", site, ok, len(failed), failed[:min(3, len(failed))])
	}
}

// TestKillHub kills the hub at random moments of a release. Nobody who asks an app may notice.
func TestKillHub(t *testing.T) {
	w := newWorld(t)
	stops := map[string]func() (int64, []string){}
	for _, site := range sites {
		stops[site] = load(w.url(site))
	}
	for range rounds(t) {
		w.release()
		w.pause()
		w.KillHub(t)
		w.pause()
		w.Start(t)
		w.converged()
	}
	for _, site := range sites {
		report(t, site, stops[site])
	}
}

// TestKillSites kills the agent of one site after the other at random moments of a release. The site comes
// back with everything; nobody who asks another site may notice.
func TestKillSites(t *testing.T) {
	w := newWorld(t)
	for range rounds(t) {
		victim := sites[w.rand.IntN(len(sites))]
		stops := map[string]func() (int64, []string){}
		for _, site := range sites {
			if site != victim {
				stops[site] = load(w.url(site))
			}
		}
		w.release()
		w.pause()
		w.kill(victim)
		w.converged()
		for site, stop := range stops {
			report(t, site, stop)
		}
	}
}

func (w *world) kill(site string) {
	w.t.Helper()
	s, err := w.SiteStatus(site)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
	fleettest.Eventually(w.t, 30*time.Second, site+" runs again", func() string {
		now, err := w.SiteStatus(site)
		if err != nil || now.PID == s.PID {
			return fmt.Sprint("process ", now.PID, err)
		}
		return ""
	})
}
