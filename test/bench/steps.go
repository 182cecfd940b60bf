package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// bench is one run.
type bench struct {
	ctx        context.Context
	bin        fleettest.Binaries
	dir        string
	idle, load time.Duration
	figures    []figure

	up, site *exec.Cmd
}

func (b *bench) add(name string, value float64, unit string, aim float64, how string) {
	b.figures = append(b.figures, figure{name, value, unit, aim, how})
	fmt.Fprintf(os.Stderr, "%-52s %s %s\n", name, short(value), unit)
}

func (b *bench) fleetDir() string { return filepath.Join(b.dir, "fleet") }
func (b *bench) siteDir() string  { return filepath.Join(b.dir, "shop-4") }

func (b *bench) env() []string {
	return append(os.Environ(), "KUBECONFIG="+filepath.Join(b.fleetDir(), "kubeconfig"))
}

func (b *bench) skerry(args ...string) (string, error) {
	return command(b.ctx, b.env(), b.bin.Skerry, args...)
}

func (b *bench) stop() {
	if b.site != nil {
		_ = b.site.Process.Signal(syscall.SIGTERM)
		_ = b.site.Wait()
	}
	if b.up != nil {
		_ = b.up.Process.Signal(os.Interrupt)
		_ = b.up.Wait()
	}
}

const mib = 1 << 20

func (b *bench) sizes() error {
	for name, row := range map[string]struct {
		path string
		aim  float64
	}{"binary of skerry": {b.bin.Skerry, 0}, "binary of skerry-site": {b.bin.Site, 40}} {
		info, err := os.Stat(row.path)
		if err != nil {
			return err
		}
		b.add(name, float64(info.Size())/1e6, "MB", row.aim, "`-trimpath -ldflags='-s -w'`, without cgo")
	}
	return nil
}

// starts measures the first start on an empty directory and a second one.
func (b *bench) starts() error {
	// The example is compiled at the first start; its standard library is compiled before, as on any machine
	// that built a Go program.
	warm := filepath.Join(b.dir, "warm")
	if _, err := b.skerry("app", "init", warm); err != nil {
		return err
	}
	build := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", os.DevNull, ".")
	build.Dir, build.Env = warm, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the example: %w\n%s", err, out)
	}
	for _, which := range []string{"first start", "second start"} {
		at, err := b.startUp()
		if err != nil {
			return err
		}
		aims := [3]float64{3, 8, 8}
		if which != "first start" {
			aims = [3]float64{}
		}
		b.add(which+": API ready", at["Kubernetes API"], "s", aims[0], "process start of `skerry up` to its line")
		b.add(which+": three sites ready, example answering at each", max(at["shop-1"], at["shop-2"], at["shop-3"]), "s", aims[1], "the same; a site's line ticks when the example answers there")
		if which == "first start" {
			if err := b.up.Process.Signal(os.Interrupt); err != nil {
				return err
			}
			_ = b.up.Wait()
		}
	}
	return nil
}

// startUp starts `skerry up` and returns after how many seconds each line was done.
func (b *bench) startUp() (map[string]float64, error) {
	begin := time.Now()
	b.up = exec.Command(b.bin.Skerry, "up", "--data-dir", b.fleetDir())
	b.up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := b.up.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.up.Start(); err != nil {
		return nil, err
	}
	at := map[string]float64{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if rest, ok := strings.CutPrefix(line, "✓ "); ok {
			at[strings.TrimSpace(rest[:min(16, len(rest))])] = time.Since(begin).Seconds()
		}
		if strings.HasPrefix(line, "skerry apply") {
			go func() {
				for lines.Scan() {
				}
			}()
			return at, nil
		}
	}
	return nil, errors.New("skerry up ended early")
}

// fourthSite joins the small agent.
func (b *bench) fourthSite() error {
	token, err := b.skerry("site", "token", "shop-4", "--label", "kind=shop")
	if err != nil {
		return err
	}
	if err := b.startSite(strings.TrimSpace(token)); err != nil {
		return err
	}
	return b.await(b.url)
}

func (b *bench) startSite(token string) error {
	b.site = exec.Command(b.bin.Site, "run", "--data-dir", b.siteDir(), "--gateway-addr", "127.0.0.1:8090")
	b.site.Env = append(os.Environ(), "SKERRY_JOIN_TOKEN="+token)
	return b.site.Start()
}

func (b *bench) url() string {
	s, err := fleettest.StatusIn(b.siteDir())
	if err != nil || s.Gateway == "" {
		return ""
	}
	return s.Gateway + "/"
}

// await returns when what url names answers 200.
func (b *bench) await(url func() string) error {
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if u := url(); u != "" {
			res, err := http.Get(u)
			if err == nil {
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					return nil
				}
			}
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("the example does not answer")
}

// release measures from `apply` until every site runs the new release.
func (b *bench) release() error {
	for _, which := range []struct{ name, limit, how string }{
		{"apply to every one of 4 sites, one at a time", "10%", "`skerry apply` of a changed environment until `skerry status` says that all serve it; maxUnavailable 10% of 4 is one"},
		{"apply to every one of 4 sites, all at once", "100%", "the same with maxUnavailable 100%"},
	} {
		file := filepath.Join(b.dir, "app.yaml")
		text := fmt.Sprintf("apiVersion: skerry.dev/v1alpha1\nkind: App\nmetadata: {name: welcome, namespace: default}\nspec:\n  source: {bundle: \"welcome:1.0.0\"}\n  placement: {sites: {matchLabels: {kind: shop}}}\n  route: {path: /}\n  env: {ROUND: %q}\n  update: {maxUnavailable: %q}\n", which.name, which.limit)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		before, err := b.status()
		if err != nil {
			return err
		}
		begin := time.Now()
		if _, err := b.skerry("apply", "--server-side", "--force-conflicts", "-f", file); err != nil {
			return err
		}
		for {
			v, err := b.status()
			if err != nil {
				return err
			}
			if v.Release != before.Release && allHealthy(v) {
				break
			}
			if time.Since(begin) > time.Minute {
				return errors.New("the release does not arrive")
			}
		}
		b.add(which.name, time.Since(begin).Seconds(), "s", 0, which.how)
	}
	return nil
}

func (b *bench) status() (app.StatusView, error) {
	var v app.StatusView
	out, err := b.skerry("status", "app/welcome", "-o", "json")
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal([]byte(out), &v)
}

func allHealthy(v app.StatusView) bool {
	for _, s := range v.Sites {
		if !s.Healthy || s.Running.Release != v.Release {
			return false
		}
	}
	return len(v.Sites) == 4
}

// memory reads what hub and agent use after they idled.
func (b *bench) memory() error {
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(b.idle):
	}
	for _, row := range []struct {
		name string
		pid  int
		aim  float64
	}{{"hub, with its API, bus and registry", b.up.Process.Pid, 350}, {"skerry-site as a fourth site", b.site.Process.Pid, 40}} {
		resident, anonymous, err := memoryOf(row.pid)
		if err != nil {
			return err
		}
		how := fmt.Sprintf("VmRSS and RssAnon after %s without requests, one app a site", b.idle)
		b.add(row.name+": resident", resident, "MiB", row.aim, how)
		b.add(row.name+": of it anonymous", anonymous, "MiB", 0, how)
	}
	return nil
}

func memoryOf(pid int) (resident, anonymous float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		n, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "VmRSS:":
			resident = n * 1024 / mib
		case "RssAnon:":
			anonymous = n * 1024 / mib
		}
	}
	return resident, anonymous, nil
}

// offlineRestart measures an agent that starts with no hub until its app answers.
func (b *bench) offlineRestart() error {
	url := b.url()
	if err := b.up.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	_ = b.up.Wait()
	b.up = nil
	if err := b.site.Process.Kill(); err != nil {
		return err
	}
	_ = b.site.Wait()
	begin := time.Now()
	if err := b.startSite(""); err != nil {
		return err
	}
	if err := b.await(func() string { return url }); err != nil {
		return err
	}
	b.add("offline agent restart to first answer", time.Since(begin).Seconds(), "s", 1, "kill -9 of `skerry-site` with the hub gone, start, first 200 through the gateway")
	return nil
}
