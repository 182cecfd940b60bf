package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// bench is one run.
type bench struct {
	ctx context.Context
	// dir is on a disk, memory on a file system in memory where there is one.
	dir, memory string
	hub         *hub
	clients     *clients
	sites       int
	round       int
	// idleSigns is how many signs of life, one every 10 s, an idle time lasts.
	idleSigns int
	// profiles is a directory for profiles of the hub; empty for none.
	profiles string
}

// Bounds of the waits; a run that reaches one ends with what it has.
const (
	base       = 60 * time.Second // and, for each site that joins, perJoin
	perJoin    = 60 * time.Millisecond
	settleTime = 5 * time.Minute
	quietTime  = 3 * time.Second
)

// begin starts the hub, and places an app on every site there will be.
func (b *bench) begin() error {
	if err := b.hub.start(b.ctx); err != nil {
		return err
	}
	app := filepath.Join(b.dir, "app")
	files := map[string]string{
		"bundle.yaml": "name: nothing\nruntime: process\nbuild:\n  files: [{from: run.sh, to: bin/run, mode: \"0755\"}]\nprocess:\n  command: [bin/run]\n",
		"run.sh":      "#!/bin/sh\nsleep 1000000\n",
	}
	if err := os.MkdirAll(app, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(app, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if _, err := b.hub.skerry(b.ctx, "push", app, "--version", "1.0.0"); err != nil {
		return err
	}
	return b.apply()
}

// apply makes a new release of the app: the same program with another environment.
func (b *bench) apply() error {
	b.round++
	file := filepath.Join(b.dir, "app.yaml")
	text := fmt.Sprintf(`apiVersion: skerry.dev/v1alpha1
kind: SiteGrant
metadata: {name: all}
spec: {namespaces: [default], sites: {}, runtimes: [process]}
---
apiVersion: skerry.dev/v1alpha1
kind: App
metadata: {name: nothing, namespace: default}
spec:
  source: {bundle: "nothing:1.0.0"}
  placement: {sites: {}}
  env: {%s: "%d"}
  update: {maxUnavailable: "100%%"}
`, roundEnv, b.round)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := b.hub.skerry(b.ctx, "apply", "--server-side", "--force-conflicts", "-f", file)
	return err
}

func (b *bench) roundName() string { return strconv.Itoa(b.round) }

// importSites makes n sites with `skerry site import` and returns them with their tokens.
func (b *bench) importSites(n int, kindOf func(i int) kind) ([]newSite, error) {
	table, tokens := filepath.Join(b.dir, "sites.csv"), filepath.Join(b.dir, fmt.Sprintf("tokens-%d.csv", b.sites))
	var text strings.Builder
	text.WriteString("name,zone\n")
	kinds := map[string]kind{}
	for i := range n {
		name := fmt.Sprintf("site-%05d", b.sites+i)
		kinds[name] = kindOf(i)
		fmt.Fprintf(&text, "%s,zone-%d\n", name, (b.sites+i)/100)
	}
	if err := os.WriteFile(table, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	if _, err := b.hub.skerry(b.ctx, "site", "import", table, "--out", tokens); err != nil {
		return nil, err
	}
	file, err := os.Open(tokens)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, err
	}
	var out []newSite
	for _, row := range rows[1:] {
		out = append(out, newSite{Name: row[0], Token: row[1], Kind: kinds[row[0]]})
	}
	if len(out) != n {
		return nil, fmt.Errorf("%d tokens for %d sites", len(out), n)
	}
	return out, nil
}

// importTogether is how many sites are made at a time; those before them join meanwhile.
const importTogether = 1000

// grow adds sites until there are total, and waits until each is connected and runs the app.
func (b *bench) grow(total int, kindOf func(i int) kind, r *growth) error {
	n := total - b.sites
	before, err := b.hub.look(b.ctx)
	if err != nil {
		return err
	}
	defer b.profile("join", profileSeconds)()
	begin := time.Now()
	for b.sites < total {
		made, first := time.Now(), b.sites
		part := min(importTogether, total-b.sites)
		sites, err := b.importSites(part, func(i int) kind { return kindOf(first + i) })
		if err != nil {
			return err
		}
		r.Import += time.Since(made).Seconds()
		if err := b.clients.add(sites); err != nil {
			return err
		}
		b.sites += part
	}
	count, err := b.clients.await(b.ctx, base+time.Duration(n)*perJoin, "join and connect", request{Round: b.roundName()}, func(c counts) bool {
		return c.OnRound == b.sites && c.Linked == b.sites
	})
	r.Join, r.Refusals = time.Since(begin).Seconds(), count.Refusals
	if err != nil {
		return err
	}
	after, settled, err := b.settle(time.Time{})
	if err != nil {
		return err
	}
	r.Settle = settled.Seconds()
	r.Writes = after.writes.since(before.writes)
	r.WritesPerSite = float64(r.Writes.total()) / float64(n)
	r.CPU = (after.cpu - before.cpu).Seconds()
	return nil
}

// settle waits until nothing is written to the Kubernetes API any more, and until some time at least, and
// returns how long the last write took.
func (b *bench) settle(least time.Time) (look, time.Duration, error) {
	begin := time.Now()
	last, err := b.hub.look(b.ctx)
	quiet := last.at
	for err == nil {
		if time.Since(quiet) > quietTime && time.Now().After(least) {
			return last, quiet.Sub(begin), nil
		}
		if time.Since(begin) > settleTime {
			return last, time.Since(begin), fmt.Errorf("the hub still writes to the Kubernetes API after %s", settleTime)
		}
		select {
		case <-b.ctx.Done():
			return last, 0, b.ctx.Err()
		case <-time.After(quietTime / 3):
		}
		var next look
		if next, err = b.hub.look(b.ctx); err == nil {
			if w := next.writes.since(last.writes); w.total() > 0 {
				quiet = next.at
				progress("  still written: %s", w)
			}
			last = next
		}
	}
	return last, 0, err
}

// idle measures while nothing happens, for as long as every site takes for some signs of life.
func (b *bench) idle(r *idleness) error {
	before, err := b.hub.look(b.ctx)
	if err != nil {
		return err
	}
	carried, err := b.clients.ask(request{Traffic: true})
	if err != nil {
		return err
	}
	defer b.profile("idle", profileSeconds)()
	signs := carried.Count.Alive + b.idleSigns
	_, err = b.clients.await(b.ctx, base+time.Duration(b.idleSigns)*10*time.Second, "idle", request{}, func(c counts) bool { return c.Alive >= signs })
	if err != nil {
		return err
	}
	// Sites say that they live at different moments: the last of them may have had only a part of the time.
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(time.Until(before.at.Add(time.Duration(b.idleSigns*wire.AliveSeconds) * time.Second))):
	}
	after, err := b.hub.look(b.ctx)
	if err != nil {
		return err
	}
	later, err := b.clients.ask(request{Traffic: true})
	if err != nil {
		return err
	}
	took := after.at.Sub(before.at).Seconds()
	n := float64(b.sites)
	r.Seconds = took
	r.Resident, r.Anonymous = after.resident/mib, after.anonymous/mib
	r.Heap, r.Stacks = after.metrics["go_memstats_heap_inuse_bytes"]/mib, after.metrics["go_memstats_stack_inuse_bytes"]/mib
	r.Goroutines = after.metrics["go_goroutines"]
	r.CPU = 100 * (after.cpu - before.cpu).Seconds() / took
	r.Writes = after.writes.since(before.writes)
	r.WritesPerSecond = float64(r.Writes.total()) / took
	bytes := float64(later.Traffic.Bytes - carried.Traffic.Bytes)
	packets := float64(later.Traffic.Segments - carried.Traffic.Segments)
	r.StreamBytes = bytes * 3600 / took / n
	r.WireBytes = (bytes + headers*packets) * 3600 / took / n
	return nil
}

const mib = 1 << 20

// profileSeconds is how long a profile of the hub's CPU lasts.
const profileSeconds = 10

// profile keeps profiles of the hub's CPU, and at its end of its memory, when that is asked for. What it returns
// waits for them.
func (b *bench) profile(name string, seconds int) (wait func()) {
	if b.profiles == "" {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for what, path := range map[string]string{"cpu": fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds), "heap": "/debug/pprof/heap", "goroutine": "/debug/pprof/goroutine"} {
			file, err := os.Create(filepath.Join(b.profiles, fmt.Sprintf("%s-%d.%s", name, b.sites, what)))
			if err == nil {
				err = errors.Join(b.hub.admin(b.ctx, path, file), file.Close())
			}
			if err != nil {
				progress("  no profile: %v", err)
			}
		}
	}()
	return func() { <-done }
}

// release brings a new release to every site.
func (b *bench) release(r *spread) error {
	before, err := b.hub.look(b.ctx)
	if err != nil {
		return err
	}
	defer b.profile("release", profileSeconds)()
	begin := time.Now()
	if err := b.apply(); err != nil {
		return err
	}
	_, err = b.clients.await(b.ctx, base+time.Duration(b.sites)*perJoin, "release", request{Round: b.roundName()}, func(c counts) bool { return c.OnRound == b.sites })
	after, err2 := b.hub.look(b.ctx)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	r.Writes, r.CPU = after.writes.since(before.writes), (after.cpu - before.cpu).Seconds()
	if err := b.spread(r, begin, func(s siteTimes) time.Time { return s.Reported }); err != nil {
		return err
	}
	settled, took, err := b.settle(time.Time{})
	if err != nil {
		return err
	}
	r.Settle, r.WritesSettled = took.Seconds(), settled.writes.since(before.writes)
	return nil
}

// hubKnows is how long after its start a hub at last says of every site whether it is there (internal/hub).
const hubKnows = 31 * time.Second

// restart kills the hub and starts it again at once. It waits until the hub says of every site whether it is there:
// untilKnown until it would say so of one that never came, too.
func (b *bench) restart(r *spread, untilKnown bool) error {
	begin := time.Now()
	b.hub.kill()
	if err := b.hub.start(b.ctx); err != nil {
		return err
	}
	ready := time.Now()
	r.Ready = ready.Sub(begin).Seconds()
	defer b.profile("restart", profileSeconds)()
	_, err := b.clients.await(b.ctx, base+time.Duration(b.sites)*perJoin, "restart", request{After: begin}, func(c counts) bool { return c.Synced == b.sites })
	after, err2 := b.hub.look(b.ctx)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	r.Writes, r.CPU = after.writes, after.cpu.Seconds()
	if err := b.spread(r, begin, func(s siteTimes) time.Time { return s.Synced }); err != nil {
		return err
	}
	if err := b.awaitKnown(ready); err != nil {
		return err
	}
	r.Known = time.Since(begin).Seconds()
	var least time.Time
	if untilKnown {
		least = ready.Add(hubKnows)
	}
	settled, took, err := b.settle(least)
	r.Settle, r.WritesSettled, r.Resident = took.Seconds(), settled.writes, settled.resident/mib
	return err
}

// awaitKnown waits until the hub itself calls every site connected.
func (b *bench) awaitKnown(ready time.Time) error {
	for {
		l, err := b.hub.look(b.ctx)
		if err != nil {
			return err
		}
		n := int(l.metrics["skerry_hub_sites/"+string(fleet.LinkConnected)])
		switch {
		case n == b.sites:
			return nil
		case time.Since(ready) > 2*hubKnows:
			return fmt.Errorf("%s after its start the hub calls %d of %d sites connected", 2*hubKnows, n, b.sites)
		}
		select {
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// spread fills in how the sites' times lie after begin, of all and of the kinds that there are.
func (b *bench) spread(r *spread, begin time.Time, of func(siteTimes) time.Time) error {
	a, err := b.clients.ask(request{Sites: true})
	if err != nil {
		return err
	}
	var all []float64
	kinds := map[kind][]float64{}
	for _, s := range a.Sites {
		seconds := of(s).Sub(begin).Seconds()
		all, kinds[s.Kind] = append(all, seconds), append(kinds[s.Kind], seconds)
	}
	r.P50, r.P99, r.Max = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
	r.Kinds = map[kind][2]float64{}
	for k, v := range kinds {
		r.Kinds[k] = [2]float64{quantile(v, 0.5), quantile(v, 0.99)}
	}
	return nil
}

// quantile returns the smallest value that at least the part q of all do not exceed; zero of none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	return values[max(0, int(math.Ceil(q*float64(len(values))))-1)]
}
