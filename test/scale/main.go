package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/test/fleettest"
)

// options of a run.
type options struct {
	// sites is how many connect to NATS' own port in the end, webSocket how many through the hub's port beside
	// them; full of the first have stores of their own.
	sites, webSocket, full int
	// perProcess bounds the sites of one client process.
	perProcess int
	idleSigns  int
	// restarts says that the hub is killed and started again at each step.
	restarts bool
	out      string
	profiles string
	// program is the built skerry; empty: it is built.
	program string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if config := os.Getenv(clientEnv); config != "" {
		// A person's Ctrl-C reaches the whole group; the end of the input is what ends this process.
		if err := runClient(context.Background(), config, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "scale client:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.sites, "sites", 15_000, "how many sites connect to NATS' own port in the end")
	flag.IntVar(&o.webSocket, "websocket", -1, "how many connect through the hub's port beside them (default: a tenth of -sites, at most 1000)")
	flag.IntVar(&o.full, "full", 500, "how many of the sites have a store of their own that is synced (at most a half of the first step)")
	flag.IntVar(&o.perProcess, "per-process", 4000, "sites of one client process, at most; each takes up to four files")
	flag.IntVar(&o.idleSigns, "idle", 2, "length of the idle times, in signs of life of 10 s each")
	flag.BoolVar(&o.restarts, "restarts", true, "kill the hub at every step, and not at the last alone")
	flag.StringVar(&o.out, "out", "docs/benchmarks", "directory of the page")
	flag.StringVar(&o.profiles, "profiles", "", "directory for profiles of the hub (default: none)")
	flag.StringVar(&o.program, "program", "", "a built skerry (default: build it)")
	flag.Parse()
	if o.webSocket < 0 {
		o.webSocket = min(1000, o.sites/10)
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

var started = time.Now()

// progress tells who waits how far the run is.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
}

// run makes one run and writes what it found after each step, so that a run that fails leaves what it had.
func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "skerry-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.program == "" {
		progress("building skerry …")
		bin, err := fleettest.Build(ctx, dir)
		if err != nil {
			return err
		}
		o.program = bin.Skerry
	}
	b, err := newBench(ctx, o, dir)
	if err != nil {
		return err
	}
	defer b.end()
	r := &result{Machine: machine(), Go: runtime.Version(), Clients: len(b.clients.all), Full: o.full, Asked: o.sites}
	err = measureAll(b, o, r)
	if err != nil {
		r.Failed = err.Error()
	}
	err = errors.Join(err, write(o.out, r))
	fmt.Print(table(r))
	return err
}

// newBench makes what a run needs; end ends it.
func newBench(ctx context.Context, o options, dir string) (*bench, error) {
	memory, err := memoryDir(dir)
	if err != nil {
		return nil, err
	}
	b := &bench{ctx: ctx, dir: dir, memory: memory, idleSigns: o.idleSigns, profiles: o.profiles, clients: &clients{}}
	if b.hub, err = newHub(o.program, dir); err != nil {
		return nil, errors.Join(err, b.end())
	}
	all := o.sites + o.webSocket
	if b.clients, err = startClients((all+o.perProcess-1)/o.perProcess, memory, dir); err != nil {
		b.clients = &clients{}
		return nil, errors.Join(err, b.end())
	}
	return b, nil
}

// memoryDir makes a directory on a file system in memory, or below dir where there is none.
func memoryDir(dir string) (string, error) {
	if d, err := os.MkdirTemp("/dev/shm", "skerry-scale-"); err == nil {
		return d, nil
	}
	d := filepath.Join(dir, "memory")
	return d, os.Mkdir(d, 0o700)
}

// end ends all processes, the hub first: sites that leave it are news to it, of which nobody wants to know.
func (b *bench) end() error {
	if b.hub != nil {
		b.hub.kill()
	}
	return errors.Join(b.clients.stop(), os.RemoveAll(b.memory))
}

// stepsTo are the numbers of sites at which is measured.
func stepsTo(sites int) []int {
	var out []int
	for _, n := range []int{min(1000, sites), sites / 3, sites * 2 / 3, sites} {
		if len(out) == 0 || n > out[len(out)-1] {
			out = append(out, n)
		}
	}
	return out
}

func measureAll(b *bench, o options, r *result) error {
	if err := b.begin(); err != nil {
		return err
	}
	progress("the hub runs")
	steps := stepsTo(o.sites)
	fulls := min(o.full, steps[0]/2)
	r.Full = fulls
	kindOf := func(i int) kind {
		switch {
		case i < fulls:
			return full
		case i >= o.sites:
			return webSocket
		}
		return light
	}
	if o.webSocket > 0 {
		steps = append(steps, o.sites+o.webSocket)
	}
	for i, n := range steps {
		s := &step{Sites: n, WebSocket: max(0, n-o.sites)}
		r.Steps = append(r.Steps, s)
		last := n == o.sites
		if err := b.measure(s, n, kindOf, last || o.restarts && n < o.sites, last); err != nil {
			return fmt.Errorf("at %d sites: %w", n, err)
		}
		if err := write(o.out, r); err != nil {
			return err
		}
		progress("step %d of %d is done", i+1, len(steps))
	}
	return nil
}

// measure makes one step, with a restart of the hub where that is asked for.
func (b *bench) measure(s *step, n int, kindOf func(int) kind, restart, untilKnown bool) error {
	progress("%d sites: joining …", n)
	g := &growth{Added: n - b.sites}
	if err := b.grow(n, kindOf, g); err != nil {
		return err
	}
	s.Growth = g
	progress("  made in %.1f s, joined in %.1f s (%d put off), settled after %.1f s; %.1f writes a site", g.Import, g.Join, g.Refusals, g.Settle, g.WritesPerSite)
	idle := &idleness{}
	if err := b.idle(idle); err != nil {
		return err
	}
	s.Idle = idle
	progress("  idle: %.0f MiB resident, %.0f MiB anonymous, %.0f %% of a core, %d writes [%s], %.0f bytes a site and hour", idle.Resident, idle.Anonymous, idle.CPU, idle.Writes.total(), idle.Writes, idle.WireBytes)
	release := &spread{}
	if err := b.release(release); err != nil {
		return err
	}
	s.Release = release
	progress("  release: %s", release)
	if !restart {
		return nil
	}
	again := &spread{}
	if err := b.restart(again, untilKnown); err != nil {
		return err
	}
	s.Restart = again
	progress("  restart: %s", again)
	return nil
}

// String is the spread in a line.
func (s *spread) String() string {
	return fmt.Sprintf("p50 %.1f s, p99 %.1f s, max %.1f s; %d writes [%s], %d when settled [%s] %.1f s later", s.P50, s.P99, s.Max, s.Writes.total(), s.Writes, s.WritesSettled.total(), s.WritesSettled, s.Settle)
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
