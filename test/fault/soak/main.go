// Command soak runs the seeded schedule of faults with many seeds and writes docs/benchmarks/faults.md and
// faults.json: what happened, and what an idle agent writes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// run is the outcome of one seed, as the test writes it.
type run struct {
	Seed         uint64         `json:"seed"`
	Passed       bool           `json:"passed"`
	Faults       map[string]int `json:"faults"`
	Releases     int            `json:"releases"`
	Requests     int64          `json:"requests"`
	Failed       int64          `json:"failed"`
	Events       int            `json:"events"`
	HealedMillis int64          `json:"healedMillis"`
}

// idle is what an agent with one app wrote while nothing happened.
type idle struct {
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"`
	Writes  int64   `json:"writes"`
	Syncs   int64   `json:"syncs"`
}

// result is what is published.
type result struct {
	Date string `json:"date"`
	Idle idle   `json:"idle"`
	Runs []run  `json:"runs"`
}

func main() {
	seeds := flag.Int("seeds", 10, "how many seeds")
	first := flag.Uint64("first", 1, "the first seed; the others follow it")
	idleFor := flag.Duration("idle", 10*time.Minute, "how long an idle agent's writes are counted")
	out := flag.String("out", "docs/benchmarks", "directory of faults.md and faults.json")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := soak(ctx, *seeds, *first, *idleFor, *out); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func soak(ctx context.Context, seeds int, first uint64, idleFor time.Duration, out string) error {
	dir, err := os.MkdirTemp("", "skerry-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := result{Date: time.Now().UTC().Format(time.DateOnly)}
	if err := test(ctx, dir, "TestIdleWrites", &r.Idle, "SKERRY_IDLE="+idleFor.String()); err != nil {
		return err
	}
	var failed []error
	for seed := first; seed < first+uint64(seeds); seed++ {
		one := run{Seed: seed}
		if err := test(ctx, dir, "TestSchedule", &one, "SKERRY_SEED="+strconv.FormatUint(seed, 10)); err != nil {
			failed = append(failed, fmt.Errorf("SKERRY_SEED=%d: %w", seed, err))
			one.Passed = false
		}
		r.Runs = append(r.Runs, one)
		fmt.Printf("seed %d: passed %v, %d requests, in sync after %d ms\n", seed, one.Passed, one.Requests, one.HealedMillis)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errors.Join(failed...), write(r, out))
}

// test runs one test of package fault and reads the outcome that it writes. What a failed one said is shown.
func test(ctx context.Context, dir, name string, outcome any, env ...string) error {
	file, log := filepath.Join(dir, "outcome.json"), filepath.Join(dir, name+".log")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	to, err := os.Create(log)
	if err != nil {
		return err
	}
	defer to.Close()
	cmd := exec.CommandContext(ctx, "go", "test", "./test/fault", "-count=1", "-timeout=60m", "-v", "-run", "^"+name+"$")
	cmd.Env = append(append(os.Environ(), "SKERRY_FAULT_OUTCOME="+file), env...)
	cmd.Stdout, cmd.Stderr = to, to
	ran := cmd.Run()
	if ran != nil {
		said, err := os.ReadFile(log)
		fmt.Fprintf(os.Stderr, "%s\n", said[max(0, len(said)-100_000):])
		ran = errors.Join(fmt.Errorf("%s: %w", name, ran), err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return errors.Join(ran, err)
	}
	return errors.Join(ran, json.Unmarshal(data, outcome))
}

func write(r result, out string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "faults.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	page, err := os.Create(filepath.Join(out, "faults.md"))
	if err != nil {
		return err
	}
	return errors.Join(show(page, r), page.Close())
}

// show writes the page.
func show(w io.Writer, r result) error {
	passed, faults := 0, map[string]int{}
	var releases, events int
	var requests, failed int64
	var healed []int64
	for _, one := range r.Runs {
		if one.Passed {
			passed++
			healed = append(healed, one.HealedMillis)
		}
		releases, events, requests, failed = releases+one.Releases, events+one.Events, requests+one.Requests, failed+one.Failed
		for name, n := range one.Faults {
			faults[name] += n
		}
	}
	slices.Sort(healed)
	var b []byte
	say := func(format string, args ...any) { b = fmt.Appendf(b, format+"\n", args...) }
	say("# Faults\n")
	say("Written by `make soak` on %s, on a machine of 2 cores shared with other work. What is done and checked stands in", r.Date)
	say("[the guide](../guides/faults.md); `SKERRY_SEED=n go test ./test/fault -run TestSchedule` replays a run. The figures are in")
	say("`docs/benchmarks/faults.json`, run by run.\n")
	say("| | |\n| --- | --- |")
	say("| seeds run, passed | %d, %d |", len(r.Runs), passed)
	say("| releases sent out meanwhile | %d |", releases)
	say("| requests to apps that no fault of their own site could touch, failed | %d, %d |", requests, failed)
	say("| events of sites at the hub, each once and in order | %d |", events)
	if len(healed) > 0 {
		say("| from the last fault healed until every site ran the newest release: median, longest | %.1f s, %.1f s |",
			float64(healed[len(healed)/2])/1000, float64(healed[len(healed)-1])/1000)
	}
	say("\n| fault | times |\n| --- | --- |")
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		say("| %s | %d |", name, faults[name])
	}
	perHour := 3600 / max(r.Idle.Seconds, 1)
	say("\n## What an idle agent writes\n")
	say("An agent with one app, connected, nothing to do, counted at the file system for %.0f s: %d bytes in %d writes, %d syncs; that is %.0f bytes and",
		r.Idle.Seconds, r.Idle.Bytes, r.Idle.Writes, r.Idle.Syncs, float64(r.Idle.Bytes)*perHour)
	say("%.0f syncs an hour. `TestIdleWrites` bounds it in each run of CI.", float64(r.Idle.Syncs)*perHour)
	_, err := w.Write(b)
	return err
}
