package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// connections is how many requests are under way at once in the load.
const connections = 16

// runs is how often each side is measured, in turn; the median is quoted.
const runs = 3

// loadResult is one run against one address.
type loadResult struct{ perSecond, p50, p99 float64 }

// gateway measures the site gateway beside the app called directly, in turn within one run.
func (b *bench) gateway() error {
	direct, err := appAddress(b.siteDir())
	if err != nil {
		return err
	}
	targets := []struct{ name, url string }{
		{"app called directly", direct + "/healthz"},
		{"through the site gateway", strings.TrimSuffix(b.url(), "/") + "/healthz"},
	}
	results := map[string][]loadResult{}
	for range runs {
		for _, t := range targets {
			r, err := runLoad(b.ctx, t.url, b.load)
			if err != nil {
				return err
			}
			results[t.name] = append(results[t.name], r)
		}
	}
	for _, t := range targets {
		how := fmt.Sprintf("median of %d runs of %s in turn, %d connections, the load on the same two cores", runs, b.load, connections)
		b.add(t.name+": requests a second", median(results[t.name], func(r loadResult) float64 { return r.perSecond }), "1/s", 0, how)
		b.add(t.name+": p50", median(results[t.name], func(r loadResult) float64 { return r.p50 }), "ms", 0, how)
		b.add(t.name+": p99", median(results[t.name], func(r loadResult) float64 { return r.p99 }), "ms", 0, how)
	}
	return nil
}

func median(rs []loadResult, of func(loadResult) float64) float64 {
	var values []float64
	for _, r := range rs {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// appAddress finds where the example of the agent in dir listens: its environment says so.
func appAddress(dir string) (string, error) {
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return "", err
	}
	for _, path := range procs {
		program, err := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
		if err != nil || !strings.HasPrefix(program, dir+"/") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		env := map[string]string{}
		for kv := range strings.SplitSeq(string(data), "\x00") {
			k, v, _ := strings.Cut(kv, "=")
			env[k] = v
		}
		if env["PORT"] != "" {
			return "http://127.0.0.1:" + env["PORT"], nil
		}
	}
	return "", errors.New("the example's process was not found: run as the user of the agent")
}

func runLoad(ctx context.Context, url string, length time.Duration) (loadResult, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	begin := time.Now()
	for range connections {
		wg.Go(func() {
			var took []time.Duration
			var err error
			for ctx.Err() == nil && err == nil {
				start := time.Now()
				if err = ask(client, url); err == nil {
					took = append(took, time.Since(start))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, took...), errors.Join(failed, err)
		})
	}
	wg.Wait()
	if failed != nil {
		return loadResult{}, failed
	}
	slices.Sort(all)
	ms := func(q float64) float64 { return all[int(q*float64(len(all)-1))].Seconds() * 1000 }
	return loadResult{perSecond: float64(len(all)) / time.Since(begin).Seconds(), p50: ms(0.5), p99: ms(0.99)}, nil
}

func ask(client *http.Client, url string) error {
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, res.Status)
	}
	return nil
}
