package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/cli"
	"github.com/skerry-dev/skerry/internal/telemetry"
)

// upFlags are what a person says of `skerry up`.
type upFlags struct {
	dataDir   string
	sites     int
	noExample bool
	logLevel  string
}

func newUp(out, errOut io.Writer) *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "up",
		Short: "Run a hub, a few sites and an app on this machine",
		Long: "Run a hub with a Kubernetes API of its own, a few sites, and an example app that answers at each\n" +
			"of them. Ctrl-C stops everything in order; the same command continues where it was. Sites are\n" +
			"processes of their own: they go on serving when the hub is killed, and the next `up` finds them.",
		Example: "  skerry up\n  skerry up --sites 5 --data-dir /tmp/fleet",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := dirs.Data(f.dataDir)
			if err != nil {
				return err
			}
			f.dataDir = dir
			if f.sites < 0 || f.sites > 50 {
				return cli.Usage(fmt.Errorf("--sites %d: want 0 to 50", f.sites))
			}
			return runUp(cmd.Context(), f, out, errOut)
		},
	}
	c.Flags().StringVar(&f.dataDir, "data-dir", "", "where everything is kept (default: $SKERRY_HOME, then $XDG_DATA_HOME/skerry; /var/lib/skerry for root)")
	c.Flags().IntVar(&f.sites, "sites", 3, "how many sites to run")
	c.Flags().BoolVar(&f.noExample, "no-example", false, "do not run the example app")
	c.Flags().StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error, of what goes to DATA-DIR/hub.log")
	return c
}

// Names of the lines that tick to done.
const (
	lineAPI = "Kubernetes API"
	lineHub = "Hub and bus"
)

func runUp(ctx context.Context, f upFlags, out, errOut io.Writer) error {
	started := time.Now()
	if err := dirs.CheckPassable(f.dataDir); err != nil {
		return cli.Hint(err, "choose another --data-dir, such as /var/lib/skerry, or run chmod o+x on that directory")
	}
	log, closeLog, err := upLog(f)
	if err != nil {
		return err
	}
	defer closeLog()
	sites := localSites(f)
	lines := []string{lineAPI, lineHub}
	for _, s := range sites {
		lines = append(lines, s.name)
	}
	fmt.Fprintf(out, "Skerry in %s\n\n", f.dataDir)
	p := newProgress(out, started, lines...)
	u := &up{flags: f, log: log, progress: p, sites: sites, out: out, errOut: errOut}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	u.example = startExample(ctx, f, log)
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHub()
	running, done := make(chan runningHub, 1), make(chan error, 1)
	go func() {
		done <- runHub(hubCtx, hubOptions{
			dataDir: f.dataDir, addr: "127.0.0.1:7443", kubeAddr: "127.0.0.1:6443", adminAddr: "127.0.0.1:0", log: log,
		}, hubEvents{
			api: func(url string) { p.done(lineAPI, url) },
			hub: func(url string) { p.done(lineHub, url) },
		}, func(r runningHub) { running <- r })
	}()
	var hubErr error
	select {
	case r := <-running:
		err = u.bringUp(ctx, r)
		if err == nil && ctx.Err() == nil {
			u.farewell()
			select {
			case <-ctx.Done():
			case hubErr = <-done:
			}
		}
	case hubErr = <-done:
		if errors.Is(hubErr, dirs.ErrInUse) {
			return cli.Hint(hubErr, "`skerry down` stops it, or choose another --data-dir")
		}
		return hubErr
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		err = nil
		fmt.Fprintln(out, "\nStopping: sites, hub, bus, API …")
	}
	cancel(nil)
	u.keepers.Wait()
	err = errors.Join(err, u.stopSites(context.WithoutCancel(ctx)))
	stopHub()
	if hubErr == nil {
		hubErr = <-done
	}
	return errors.Join(err, hubErr)
}

// upLog opens the hub's own log: the terminal is for what a person wants to see.
func upLog(f upFlags) (*slog.Logger, func(), error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, nil, cli.Usage(fmt.Errorf("--log-level %q: want debug, info, warn or error", f.logLevel))
	}
	if err := dirs.Make(f.dataDir); err != nil {
		return nil, nil, err
	}
	file, err := os.OpenFile(filepath.Join(f.dataDir, "hub.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	log, err := telemetry.NewLogger(file, "json", level)
	if err != nil {
		return nil, nil, err
	}
	return log, func() { _ = file.Close() }, nil
}

func localSites(f upFlags) []localSite {
	var sites []localSite
	for i := range f.sites {
		name := fmt.Sprintf("shop-%d", i+1)
		sites = append(sites, localSite{
			name: name, dir: filepath.Join(f.dataDir, "sites", name), gateway: fmt.Sprintf("127.0.0.1:%d", 8081+i),
		})
	}
	return sites
}

// up is one run of `skerry up`.
type up struct {
	flags    upFlags
	log      *slog.Logger
	progress *progress
	sites    []localSite
	out      io.Writer
	errOut   io.Writer
	example  *example

	// keepers end with their context, reapers with the agents that they wait for.
	keepers, reapers sync.WaitGroup
}

// reap waits for a child; the channel is closed when it ended. How it ended stands in its own log.
func (u *up) reap(cmd *exec.Cmd) <-chan struct{} {
	ended := make(chan struct{})
	u.reapers.Go(func() { _ = cmd.Wait(); close(ended) })
	return ended
}

// bringUp makes what the first start needs, starts the sites that do not run, and waits until the example
// answers at each.
func (u *up) bringUp(ctx context.Context, r runningHub) error {
	binary, err := installBinary(u.flags.dataDir)
	if err != nil {
		return err
	}
	objects, err := newObjects(ctx, r)
	if err != nil {
		return err
	}
	if err := objects.grantDefault(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all error
	fail := func(name string, err error) {
		if err == nil || ctx.Err() != nil {
			return
		}
		u.progress.fail(name, err)
		mu.Lock()
		defer mu.Unlock()
		all = errors.Join(all, err)
	}
	exampleReady := make(chan error, 1)
	wg.Go(func() { exampleReady <- u.example.place(ctx, r, objects) })
	placed := sync.OnceValue(func() error { return <-exampleReady })
	for _, s := range u.sites {
		wg.Go(func() {
			if err := u.startSite(ctx, s, binary, objects); err != nil {
				fail(s.name, err)
				return
			}
			fail(s.name, u.awaitSite(ctx, s, placed))
			u.keepers.Go(func() { u.keepRunning(ctx, s, binary) })
		})
	}
	wg.Wait()
	return all
}

func (u *up) startSite(ctx context.Context, s localSite, binary string, objects *objects) error {
	if _, err := s.status(ctx); err == nil {
		return nil // it went on without us
	}
	if err := objects.site(ctx, s.name); err != nil {
		return err
	}
	token := ""
	if !s.enrolled() {
		var err error
		if token, err = objects.token(ctx, s.name); err != nil {
			return err
		}
	}
	cmd, err := s.start(binary, token)
	if err != nil {
		return err
	}
	u.reap(cmd)
	return nil
}

// restartPause is how long a site that died stays away: long enough that one which dies at once does not
// keep the machine busy.
const restartPause = time.Second

// keepRunning starts a site's agent again when it died, as a service manager does on a real box. One that
// forgot who it is was deleted at the hub and stays away.
func (u *up) keepRunning(ctx context.Context, s localSite, binary string) {
	for {
		if err := s.awaitEnd(ctx); err != nil {
			if ctx.Err() == nil {
				u.log.Error("site is not watched any more", "site", s.name, "error", err)
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartPause):
		}
		if _, err := s.status(ctx); err == nil {
			continue
		}
		if !s.enrolled() {
			u.log.Info("site is gone", "site", s.name)
			return
		}
		u.log.Warn("site died and is started again", "site", s.name)
		cmd, err := s.start(binary, "")
		if err != nil {
			u.log.Error("site was not started", "site", s.name, "error", err)
			continue
		}
		u.adopt(ctx, s, cmd)
	}
}

// adopt returns when a child's agent answers or it ended.
func (u *up) adopt(ctx context.Context, s localSite, cmd *exec.Cmd) {
	ended := u.reap(cmd)
	for {
		if _, err := s.status(ctx); err == nil {
			return
		}
		select {
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-time.After(exitPoll):
		}
	}
}

// siteTimeout bounds the wait for a site, and for the example there, at the start.
const siteTimeout = 90 * time.Second

// awaitSite waits until the site's gateway answers, with the example when there is one.
func (u *up) awaitSite(ctx context.Context, s localSite, placed func() error) error {
	ctx, cancel := context.WithTimeout(ctx, siteTimeout)
	defer cancel()
	url := ""
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		status, err := s.status(ctx)
		if err != nil || status.Gateway == "" {
			return false, nil
		}
		url = status.Gateway + "/"
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("site %s did not start: see %s", s.name, filepath.Join(s.dir, "agent.log"))
	}
	if err := placed(); err != nil {
		u.progress.done(s.name, strings.TrimSuffix(url, "/")+"  (without the example: "+err.Error()+")")
		return nil
	}
	err = wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		// The gateway is asked only once the agent says that it will answer: an error that this program
		// provokes would stand in the app's counts.
		return s.serves(ctx, exampleName) && answers(ctx, url), nil
	})
	if err != nil {
		return fmt.Errorf("the example does not answer at %s: see `skerry status app/%s`", url, exampleName)
	}
	u.progress.done(s.name, url)
	return nil
}

func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// stopSites stops every site, at the same time, and waits for the children.
func (u *up) stopSites(ctx context.Context) error {
	err := stopAll(ctx, u.sites)
	if err == nil {
		u.reapers.Wait()
	}
	return err
}

func stopAll(ctx context.Context, sites []localSite) error {
	var wg sync.WaitGroup
	errs := make([]error, len(sites))
	for i, s := range sites {
		wg.Go(func() { errs[i] = s.stop(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// installBinary keeps this program in the data directory, so that it has a path that stays: what `go run`
// builds is gone with it. It is replaced only when it differs.
func installBinary(dataDir string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	path := filepath.Join(dataDir, "bin", "skerry")
	if self == path || sameFile(self, path) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("keep this program: %w", err)
	}
	in, err := os.Open(self)
	if err != nil {
		return "", fmt.Errorf("keep this program: %w", err)
	}
	defer in.Close()
	tmp, err := os.CreateTemp(filepath.Dir(path), ".skerry-*")
	if err != nil {
		return "", fmt.Errorf("keep this program: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, in)
	err = errors.Join(err, tmp.Chmod(0o755), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("keep this program: %w", err)
	}
	return path, nil
}

// sameFile reports whether a kept program is this one: same size, and not older.
func sameFile(self, kept string) bool {
	a, errA := os.Stat(self)
	b, errB := os.Stat(kept)
	return errA == nil && errB == nil && a.Size() == b.Size() && !b.ModTime().Before(a.ModTime())
}

// farewell says what to do next: the last lines are to be pasted.
func (u *up) farewell() {
	kubeconfig := filepath.Join(u.flags.dataDir, "kubeconfig")
	fmt.Fprintf(u.out, `
Ready in %.1f s. Ctrl-C stops everything; the same command continues. In another terminal:

  export PATH=%s:$PATH
  export KUBECONFIG=%s

  skerry get sites
  skerry status app/%s
  skerry app init hello && cd hello
  skerry push . --version 1.0.0
  skerry apply -f app.yaml
`, time.Since(u.progress.started).Seconds(), filepath.Join(u.flags.dataDir, "bin"), kubeconfig, exampleName)
}
