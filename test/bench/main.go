// Command bench measures what a person waits for and what a machine pays: starts, memory, releases, and the
// site gateway beside the app called directly. It builds the programs as they are released, runs them on
// this machine, and writes docs/benchmarks/spine.md and spine.json.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/test/fleettest"
)

// figure is one row of the result.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Aim is what the figure should be at most; zero when there is none.
	Aim float64 `json:"aim,omitempty"`
	// How says how it was made.
	How string `json:"how"`
}

// result is the whole page.
type result struct {
	Machine string   `json:"machine"`
	Go      string   `json:"go"`
	Figures []figure `json:"figures"`
}

func main() {
	out := flag.String("out", "docs/benchmarks", "directory of the page")
	idle := flag.Duration("idle", 5*time.Minute, "how long everything idles before memory is read")
	load := flag.Duration("load", 5*time.Second, "length of one run of the load")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *idle, *load); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, idle, load time.Duration) error {
	dir, err := os.MkdirTemp("", "skerry-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "building the programs …")
	bin, err := fleettest.Build(ctx, dir, fleettest.ReleaseFlags()...)
	if err != nil {
		return err
	}
	b := &bench{ctx: ctx, bin: bin, dir: dir, idle: idle, load: load}
	defer b.stop()
	for _, step := range []func() error{b.sizes, b.starts, b.fourthSite, b.release, b.gateway, b.memory, b.offlineRestart} {
		if err := step(); err != nil {
			return err
		}
	}
	return write(out, result{Machine: machine(), Go: runtime.Version(), Figures: b.figures})
}

func machine() string {
	model := "unknown CPU"
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d cores of %s, %s/%s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH)
}

func write(dir string, r result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "spine.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# The spine: starts, memory, releases, gateway\n\nMade by `make bench` on %s, %s. One run; orders of size, not promises.\n\n", r.Machine, r.Go)
	b.WriteString("| figure | reached | aim | how |\n| --- | --- | --- | --- |\n")
	for _, f := range r.Figures {
		aim := ""
		if f.Aim > 0 {
			aim = fmt.Sprintf("at most %g %s", f.Aim, f.Unit)
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s |\n", f.Name, short(f.Value), f.Unit, aim, f.How)
	}
	fmt.Print(b.String())
	return os.WriteFile(filepath.Join(dir, "spine.md"), []byte(b.String()), 0o644)
}

func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// command runs a program and returns what it printed.
func command(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
