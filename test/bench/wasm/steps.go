package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// cold measures from the start of an app until its first answer, without and with its compilation on disk.
func (b *bench) cold() error {
	for _, how := range []string{"compiled", "read back from disk"} {
		for _, name := range []string{cModule, goModule} {
			s, err := b.open("cache-cold-" + strings.ReplaceAll(name, " ", ""))
			if err != nil {
				return err
			}
			begun := time.Now()
			err = errors.Join(s.placeModule("cold", b.modules[name]), s.get("cold"))
			took := time.Since(begun)
			if err := errors.Join(err, s.close()); err != nil {
				return err
			}
			b.add(name+", cold, "+how, took.Seconds()*1000, "ms", 0, "start of the instance to its first answer through the gateway")
		}
	}
	return nil
}

// times are how long requests took.
type times []time.Duration

func (t times) ms(q float64) float64 {
	slices.Sort(t)
	return t[int(q*float64(len(t)-1))].Seconds() * 1000
}

// repeat calls do for the length of a measurement.
func (b *bench) repeat(do func() error) (times, error) {
	for range 20 {
		if err := do(); err != nil {
			return nil, err
		}
	}
	var all times
	for end := time.Now().Add(b.length); time.Now().Before(end); {
		begun := time.Now()
		if err := do(); err != nil {
			return nil, err
		}
		all = append(all, time.Since(begun))
	}
	return all, b.ctx.Err()
}

// all starts one app of each kind.
func (b *bench) all() (*shop, []string, error) {
	s, err := b.open("cache")
	if err != nil {
		return nil, nil, err
	}
	s.gateway.Set(fleet.AppKey{Namespace: "default", Name: "nothing"}, site.Route{Host: "nothing", Path: "/", State: site.RouteReady, Target: "nothing",
		Handler: &nothing{}})
	for host, module := range map[string]string{"c": cModule, "go": goModule, "sdk": sdkModule} {
		if err := s.placeModule(host, b.modules[module]); err != nil {
			return nil, nil, err
		}
	}
	return s, []string{"nothing", "c", "sdk", "go", "process"}, s.placeProcess("process")
}

// nothing is what a handler costs that does nothing.
type nothing struct{}

func (*nothing) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "Hello\n")
}

var labels = map[string]string{
	"nothing": "gateway alone", "c": cModule, "go": goModule, "sdk": sdkModule, "process": "process app",
}

// think is the pause between two requests of a caller.
const think = 30 * time.Millisecond

// warm measures one request after the other over the network.
func (b *bench) warm() error {
	s, hosts, err := b.all()
	if err != nil {
		return err
	}
	aims := map[string]float64{"c": 0.5, "go": 10}
	for _, host := range hosts {
		var got times
		for end := time.Now().Add(b.length); time.Now().Before(end); {
			time.Sleep(think)
			begun := time.Now()
			if err := s.get(host); err != nil {
				return err
			}
			got = append(got, time.Since(begun))
		}
		how := fmt.Sprintf("a request every %s through the gateway over loopback, client on the same machine: prepared instances are there", think)
		b.add(labels[host]+", warm: p50", got.ms(0.5), "ms", aims[host], how)
		b.add(labels[host]+", warm: p99", got.ms(0.99), "ms", 0, how)
		got, err := b.repeat(func() error { return s.get(host) })
		if err != nil {
			return err
		}
		how = "one request after the other without a pause: a slow module's prepared instances run out"
		b.add(labels[host]+", without a pause: p50", got.ms(0.5), "ms", aims[host], how)
		b.add(labels[host]+", without a pause: p99", got.ms(0.99), "ms", 0, how)
	}
	return s.close()
}

// floor measures wazero called in a loop, as its documentation does it.
func (b *bench) floor() error {
	for _, checks := range []bool{false, true} {
		for _, name := range []string{cModule, goModule} {
			rt := wazero.NewRuntimeWithConfig(b.ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(checks))
			wasi_snapshot_preview1.MustInstantiate(b.ctx, rt)
			compiled, err := rt.CompileModule(b.ctx, b.modules[name])
			if err != nil {
				return err
			}
			got, err := b.repeat(func() error {
				var out bytes.Buffer
				m, err := rt.InstantiateModule(b.ctx, compiled, wazero.NewModuleConfig().WithName("").WithStdout(&out).WithRandSource(rand.Reader).
					WithSysWalltime().WithSysNanotime().WithEnv("GATEWAY_INTERFACE", "CGI/1.1").WithEnv("REQUEST_METHOD", "GET").
					WithEnv("PATH_INFO", "/").WithEnv("REQUEST_URI", "/").WithEnv("SERVER_PROTOCOL", "HTTP/1.1").WithEnv("HTTP_HOST", "a"))
				var exit *sys.ExitError
				if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 0) {
					return err
				}
				if out.Len() == 0 {
					return errors.New("the module wrote nothing")
				}
				if m == nil {
					return nil
				}
				return m.Close(b.ctx)
			})
			if err := errors.Join(err, rt.Close(b.ctx)); err != nil {
				return err
			}
			label := "without checks"
			if checks {
				label = "with the engine's checks"
			}
			b.add("wazero in a loop, "+name+", "+label+": p50", got.ms(0.5), "ms", 0, "instantiate, run, close; no HTTP, nothing prepared")
		}
	}
	return nil
}

// oneCore measures how many requests one core serves, the gateway included and the network left out.
func (b *bench) oneCore() error {
	s, hosts, err := b.all()
	if err != nil {
		return err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, host := range hosts {
		got, err := b.repeat(func() error {
			req := httptest.NewRequestWithContext(b.ctx, http.MethodGet, "http://"+host+"/healthz", nil)
			w := httptest.NewRecorder()
			s.gateway.ServeHTTP(w, req)
			if w.Code != http.StatusOK {
				return fmt.Errorf("%s: %d %s", host, w.Code, w.Body)
			}
			return nil
		})
		if err != nil {
			return err
		}
		how := "the gateway's handler called in a loop with GOMAXPROCS=1"
		if host == "process" {
			how += "; the app itself has the other core"
		}
		b.add(labels[host]+": requests a second on one core", float64(len(got))/b.length.Seconds(), "1/s", 0, how)
	}
	return s.close()
}

// memory measures what a request holds while it is served.
func (b *bench) memory() error {
	const requests = 48
	for _, host := range []string{"c", "waits"} {
		s, err := b.open("cache")
		if err != nil {
			return err
		}
		name := map[string]string{"c": cModule, "waits": waitModule}[host]
		if err := s.placeModule(host, b.modules[name]); err != nil {
			return err
		}
		if err := s.get(host); err != nil {
			return err
		}
		before := anonymous()
		var wg sync.WaitGroup
		var reached sync.WaitGroup
		goOn := make(chan struct{})
		for range requests {
			reached.Add(1)
			wg.Go(func() {
				w := &slowWriter{header: http.Header{}, reached: reached.Done, goOn: goOn}
				s.gateway.ServeHTTP(w, httptest.NewRequestWithContext(b.ctx, http.MethodGet, "http://"+host+"/wait", nil))
			})
		}
		reached.Wait()
		during := anonymous()
		close(goOn)
		wg.Wait()
		if err := s.close(); err != nil {
			return err
		}
		b.add(name+": memory a concurrent request", float64(during-before)/requests/1024, "MiB", 0,
			fmt.Sprintf("anonymous memory of the agent with %d requests in the middle of their answers, less that before, a request", requests))
	}
	return nil
}

// slowWriter holds an answer at its first byte until it is told to go on.
type slowWriter struct {
	header  http.Header
	reached func()
	goOn    chan struct{}
	once    sync.Once
}

func (w *slowWriter) Header() http.Header { return w.header }
func (w *slowWriter) WriteHeader(int)     {}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.once.Do(func() {
		w.reached()
		<-w.goOn
	})
	return len(p), nil
}

// anonymous reads this process's own memory, in KiB.
func anonymous() int64 {
	debug.FreeOSMemory()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "RssAnon:" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n
		}
	}
	return 0
}

// many measures a site with many apps, each with a module of its own.
func (b *bench) many(apps int) error {
	s, err := b.open("cache-many")
	if err != nil {
		return err
	}
	if !bytes.Contains(b.modules[cModule], []byte("APP-0000")) {
		return errors.New("the C module's mark is missing")
	}
	before := anonymous()
	begun := time.Now()
	for n := range apps {
		module := bytes.Replace(b.modules[cModule], []byte("APP-0000"), fmt.Appendf(nil, "APP-%04d", n), 1)
		if err := s.placeModule("app"+strconv.Itoa(n), module); err != nil {
			return err
		}
	}
	name := fmt.Sprintf("%d apps", apps)
	b.add(name+": all started", time.Since(begun).Seconds(), "s", 0, "C modules that differ, one after the other, compiled")
	n := 0
	got, err := b.repeat(func() error { n++; return s.get("app" + strconv.Itoa(n%apps)) })
	if err != nil {
		return err
	}
	b.add(name+": p50", got.ms(0.5), "ms", 0.5, "as warm, each request to the next app")
	b.add(name+": p99", got.ms(0.99), "ms", 0, "as warm, each request to the next app")
	b.add(name+": memory an app", float64(anonymous()-before)/float64(apps)/1024, "MiB", 0, "anonymous memory, two prepared instances each")
	return s.close()
}
