package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fault/link"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// callers ask a site's apps from the site's own network, again and again.
type callers struct {
	paths  []string
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	asked   int64
	failed  []string
	excused int       // how many faults that callers may notice are under way
	since   time.Time // when the last of them ended
}

// call begins to ask the paths below base.
func call(from *link.Namespace, base string, paths []string) *callers {
	ctx, cancel := context.WithCancel(context.Background())
	c := &callers{paths: paths, cancel: cancel}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: from.Dial}}
	for _, path := range paths {
		c.wg.Go(func() {
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				begun := time.Now()
				c.count(begun, path, ask(ctx, client, base+path))
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return c
}

func ask(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// count notes a request that began at a time. One that met a fault of the site itself does not count.
func (c *callers) count(begun time.Time, path string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.excused > 0 || begun.Before(c.since):
	case err == nil:
		c.asked++
	default:
		c.asked++
		c.failed = append(c.failed, fmt.Sprintf("%s %s: %v", begun.Format("15:04:05.000"), path, err))
	}
}

// excuse says that callers may notice what happens until back is called.
func (c *callers) excuse() (back func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.excused++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.excused--
		c.since = time.Now()
	}
}

// stop ends the callers and returns how many requests counted, and those that failed.
func (c *callers) stop() (asked int64, failed []string) {
	c.excuse() // what is under way is broken off
	c.cancel()
	c.wg.Wait()
	return c.asked, c.failed
}

// manifests follow which manifest an agent says to have, over all its lives.
type manifests struct {
	quit chan struct{}
	done chan struct{}
	back []string
}

func (m *manifests) watch(t *testing.T, b *box) {
	m.quit, m.done = make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { m.stop() })
	go func() {
		defer close(m.done)
		last := uint64(0)
		for {
			select {
			case <-m.quit:
				return
			case <-time.After(20 * time.Millisecond):
			}
			s, err := fleettest.StatusIn(b.dir)
			if err != nil {
				continue // it is down
			}
			if s.Generation < last {
				m.back = append(m.back, fmt.Sprintf("from manifest %d to %d", last, s.Generation))
			}
			last = max(last, s.Generation)
		}
	}()
}

// stop ends the watch and returns each step back; it may be called again.
func (m *manifests) stop() []string {
	if m.quit != nil {
		close(m.quit)
		<-m.done
		m.quit = nil
	}
	return m.back
}

// breakRelease lets a release go out that cannot start, and checks that a site reports it as failed, that good
// goes on everywhere, and that no site is told otherwise than it reports.
func (g *region) breakRelease(good string) {
	g.t.Helper()
	path := filepath.Join(g.t.TempDir(), "bad.yaml")
	// Go's runtime refuses to start a program with such a limit.
	text := `apiVersion: skerry.dev/v1alpha1
kind: App
metadata: {name: hello, namespace: default}
spec:
  source: {bundle: "hello:1.0.0"}
  placement: {sites: {matchLabels: {kind: toll}}}
  route: {path: /hello}
  env: {ROUND: "bad", GOMEMLIMIT: "broken"}
`
	must(g.t, os.WriteFile(path, []byte(text), 0o600))
	apply(g.t, g.hub, path)
	fleettest.Eventually(g.t, time.Minute, "a site reports that the release does not start, and runs its last good one", func() (wrong string) {
		name, wrong := newest(g.hub)
		if wrong != "" {
			return wrong
		}
		raw, err := g.hub.TrySkerry("status", "app/hello", "-o", "json")
		var v app.StatusView
		if err != nil || json.Unmarshal([]byte(raw), &v) != nil {
			return raw
		}
		failed := 0
		for _, s := range v.Sites {
			switch {
			case s.Running.Release != good:
				return fmt.Sprintf("%s runs %s: %s", s.Site, s.Running.Release, s.Message)
			case s.Desired.Release == name && s.Message != "" && (s.Phase == fleet.PhaseBackOff || s.Phase == fleet.PhaseFailed):
				failed++
			case s.Desired.Release != good && s.Desired.Release != name:
				return fmt.Sprintf("%s: %s of %s", s.Site, s.Phase, s.Desired.Release)
			}
		}
		if failed == 0 || name == good {
			return raw
		}
		return ""
	})
}
