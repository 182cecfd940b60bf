// Command wasm measures modules at a site: cold and warm requests through the gateway, beside a process app and
// beside nothing but wazero called in a loop, all in one run on one machine. It writes docs/benchmarks/wasm.md
// and wasm.json.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"
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

func main() {
	out := flag.String("out", "docs/benchmarks", "directory of the page")
	length := flag.Duration("length", 4*time.Second, "length of one measurement")
	apps := flag.Int("apps", 200, "how many apps run at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *length, *apps); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, length time.Duration, apps int) error {
	dir, err := os.MkdirTemp("", "skerry-bench-wasm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b := &bench{ctx: ctx, dir: dir, length: length}
	for _, step := range []func() error{
		b.build, b.cold, b.warm, b.floor, b.oneCore, b.memory, func() error { return b.many(apps) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return b.write(out)
}

func (b *bench) write(out string) error {
	machine := fmt.Sprintf("%d cores of %s, %s/%s, %s", runtime.NumCPU(), processor(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	data, err := json.MarshalIndent(struct {
		Machine string   `json:"machine"`
		Figures []figure `json:"figures"`
	}{machine, b.figures}, "", "  ")
	if err != nil {
		return err
	}
	var page strings.Builder
	fmt.Fprintf(&page, "# WebAssembly modules: cold, warm, many\n\nMade by `make bench-wasm` on %s. One run; orders of size, not promises.\n\n", machine)
	page.WriteString("| figure | reached | aim | how |\n| --- | --- | --- | --- |\n")
	for _, f := range b.figures {
		aim := ""
		if f.Aim != 0 {
			aim = fmt.Sprintf("below %.3g %s", f.Aim, f.Unit)
		}
		fmt.Fprintf(&page, "| %s | %.3g %s | %s | %s |\n", f.Name, f.Value, f.Unit, aim, f.How)
	}
	page.WriteString(meaning)
	if err := os.WriteFile(filepath.Join(out, "wasm.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "wasm.md"), []byte(page.String()), 0o644)
}

// meaning is what the figures say, in words.
const meaning = `
## What stands between these figures and wazero's own

- A request through the gateway pays for HTTP twice on loopback, the gateway's own work, and two changes of goroutine. "Gateway alone" is the
  same request to a handler that does nothing: what is above it is the module's.
- The engine looks at the head of every loop whether the guest is to end, which costs about 23 ns each time, and we add such a place to functions
  that may call themselves or run through much code. "Without checks" is what wazero does when nobody needs to end a guest.
- A stock Go module initialises its packages for each request, after the place up to which it can be prepared. With the SDK it says itself when it
  is ready, and only its own work is left.
`

func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
