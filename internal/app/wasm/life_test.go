package wasm

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/wasm/wasmtest"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// eventually waits for what nothing tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

func TestFiles(t *testing.T) {
	k := newKitchen(t, nil)
	config, secrets, hub := t.TempDir(), t.TempDir(), t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	for file, text := range map[string]string{
		config + "/level": "info", secrets + "/key": "hidden", hub + "/state": "away", outside: "not theirs",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := k.serve("files", goGuest(t, "kitchen"), func(s *appsite.Spec, c *app.WasmConfig) {
		s.ConfigDir, s.SecretDir = config, secrets
		s.Env["SKERRY_HUB_FILE"] = hub + "/state"
		c.Data = []string{"ledger"}
	})
	// A process release of the same app may have left links.
	data := d.spec.DataDirs["ledger"]
	for link, to := range map[string]string{"way-out": outside, "up": "../../.."} {
		if err := os.Symlink(to, filepath.Join(data, link)); err != nil {
			t.Fatal(err)
		}
	}
	if _, body := d.get("/write/data/ledger/a"); body != "<nil>\n" {
		t.Errorf("an app cannot write to its data: %s", body)
	}
	for path, want := range map[string]string{
		"/read/config/level":             "info|<nil>",
		"/read/secrets/key":              "hidden|<nil>",
		"/read/run/skerry/state":         "away|<nil>",
		"/write/data/ledger/a":           "<nil>",
		"/read/data/ledger/a":            "written|<nil>",
		"/write/config/level":            "!",
		"/write/app.wasm":                "!",
		"/write/new":                     "!",
		"/read/data/ledger/way-out":      "!",
		"/write/data/ledger/way-out":     "!",
		"/read/data/ledger/up/x":         "!",
		"/read/data/ledger/../../x":      "!",
		"/read/../../../../etc/passwd":   "!",
		"/read/etc/passwd":               "!",
		"/link/etc/passwd=data/ledger/l": "!",
		"/read/data/skerry-kv/kv.db":     "!",
	} {
		// As a raw target, so that no client cleans the path.
		req := d.request(http.MethodGet, "/", nil)
		req.URL.Opaque = path
		code, body := 0, ""
		res, body := d.do(req)
		code = res.StatusCode
		body = strings.TrimSpace(body)
		switch {
		case code != 200:
			t.Errorf("%s: %d %s", path, code, body)
		case want == "!" && (strings.Contains(body, "<nil>") || strings.Contains(body, "root:") || strings.Contains(body, "not theirs")):
			t.Errorf("%s was allowed: %s", path, body)
		case want != "!" && body != want:
			t.Errorf("%s: %q, want %q", path, body, want)
		}
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "not theirs" {
		t.Errorf("a file outside was changed: %q %v", text, err)
	}
	if _, body := d.get("/files/app.wasm"); !strings.HasPrefix(body, "5") && !strings.HasPrefix(body, "6") {
		t.Errorf("an instance opens %d files at most, those of its directories included: %s", maxOpenFiles, body)
	}
	if _, body := d.get("/env"); !strings.Contains(body, "SKERRY_DATA_LEDGER=/data/ledger\n") || !strings.Contains(body, "SKERRY_HUB_FILE=/run/skerry/state\n") || !strings.Contains(body, "SKERRY_CONFIG_DIR=/config\n") || !strings.Contains(body, "SKERRY_SECRETS_DIR=/secrets\n") || strings.Contains(body, data) {
		t.Errorf("environment: %s", body)
	}
}

func TestTasks(t *testing.T) {
	k := newKitchen(t, func(o *Options) { o.HealthyAfter = time.Hour })
	d := k.serve("tasks", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) {
		c.Tasks = []app.WasmTask{{Name: "stays", Args: []string{"a", "b c"}}, {Name: "fails"}, {Name: "ends"}}
	})
	eventually(t, "restarts", func() bool { return d.Status().Restarts >= 6 })
	eventually(t, "the task that stays", func() bool { return strings.Contains(d.out.String(), "task stays a,b c\n") })
	if n := strings.Count(d.out.String(), "task stays"); n != 1 {
		t.Errorf("the task that stays was started %d times", n)
	}
	s := d.Status()
	if s.Phase != fleet.PhaseRunning || !strings.Contains(s.Conditions["Task/fails"], "exit code 4") || !strings.Contains(s.Conditions["Task/ends"], "ended by itself") {
		t.Errorf("status is %+v", s)
	}
	if code, _ := d.get("/hello"); code != 200 {
		t.Errorf("beside its tasks the app answers %d", code)
	}
	if k.count("skerry_wasm_runs_total", map[string]string{"reason": "exit"}) == 0 || k.count("skerry_wasm_runs_total", map[string]string{"reason": ""}) == 0 {
		t.Error("runs were not counted")
	}
	begun := time.Now()
	d.end()
	if took := time.Since(begun); took > 5*time.Second || k.rt.guests.Load() != 0 {
		t.Errorf("after %s %d instances are left", took, k.rt.guests.Load())
	}
}

func TestSchedules(t *testing.T) {
	// A clock at which each second is a minute.
	begun := time.Now()
	now := func() time.Time {
		return time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC).Add(60 * time.Since(begun))
	}
	k := newKitchen(t, func(o *Options) { o.Clock = func() (time.Time, bool) { return now(), true } })
	s := k.spec("cron", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) {
		c.Schedules = []app.WasmSchedule{
			{Name: "often", ScheduleRules: app.ScheduleRules{Cron: "* * * * *"}, Args: []string{"x"}}, {Name: "fails", ScheduleRules: app.ScheduleRules{Cron: "* * * * *"}}, {Name: "never-today", ScheduleRules: app.ScheduleRules{Cron: "0 0 1 1 *"}},
		}
	})
	d := k.start(s)
	d.await("running", func(s appsite.Status) bool { return s.Phase == fleet.PhaseRunning })
	i := d.Instance.(*instance)
	i.wake() // the pause until the next look is by the machine's clock
	eventually(t, "a run", func() bool { i.wake(); return strings.Contains(d.out.String(), "task often x\n") })
	eventually(t, "a remark", func() bool { return strings.Contains(d.Status().Conditions["Schedule/fails"], "exit code 4") })
	if strings.Contains(d.out.String(), "never-today") || d.Status().Conditions["Schedule/often"] != "" {
		t.Errorf("status %+v, output:\n%s", d.Status(), d.out)
	}
}

// TestScheduleWithoutTime has a clock that is unknown, then says a year that is wrong, then the right one: runs
// wait, and those that were planned by the wrong clock do not keep the others waiting for years.
func TestScheduleWithoutTime(t *testing.T) {
	var clock atomic.Pointer[time.Time]
	set := func(at time.Time) { clock.Store(&at) }
	set(time.Time{})
	k := newKitchen(t, func(o *Options) { o.Clock = func() (time.Time, bool) { return *clock.Load(), !clock.Load().IsZero() } })
	d := k.start(k.spec("timeless", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) {
		c.Schedules = []app.WasmSchedule{{Name: "often", ScheduleRules: app.ScheduleRules{Cron: "* * * * *"}, Args: []string{"x"}}}
	}))
	i := d.Instance.(*instance)
	eventually(t, "a condition", func() bool { return strings.Contains(d.Status().Conditions["Clock"], "schedules wait") })
	if strings.Contains(d.out.String(), "task often") {
		t.Errorf("it ran at an unknown time:\n%s", d.out)
	}
	set(time.Date(2040, 1, 1, 12, 0, 30, 0, time.UTC))
	eventually(t, "the condition goes", func() bool { i.wake(); return d.Status().Conditions["Clock"] == "" })
	minute := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	eventually(t, "a run by the clock that was put right", func() bool {
		minute = minute.Add(time.Minute)
		set(minute)
		i.wake()
		return strings.Contains(d.out.String(), "task often x\n")
	})
}

// TestScheduleInTheSitesTimeZone has a site two hours east of UTC, where it is one minute past two in the
// afternoon.
func TestScheduleInTheSitesTimeZone(t *testing.T) {
	begun := time.Now()
	k := newKitchen(t, func(o *Options) {
		o.Clock = func() (time.Time, bool) {
			return time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC).Add(60 * time.Since(begun)), true
		}
	})
	at := func(name, zone string) *dish {
		return k.start(k.spec(name, goGuest(t, "kitchen"), func(s *appsite.Spec, c *app.WasmConfig) {
			s.Env = map[string]string{appsite.EnvTimeZone: zone}
			c.Schedules = []app.WasmSchedule{
				{Name: "local", ScheduleRules: app.ScheduleRules{Cron: "1-59 14 * * *"}, Args: []string{"x"}}, {Name: "utc", ScheduleRules: app.ScheduleRules{Cron: "1-59 12 * * *"}, Args: []string{"x"}},
			}
		}))
	}
	for name, row := range map[string]struct{ zone, runs, not string }{
		"east":    {"Africa/Johannesburg", "task local x\n", "task utc"},
		"unknown": {"Middle/Earth", "task utc x\n", "task local"},
	} {
		d := at(name, row.zone)
		d.await("running", func(s appsite.Status) bool { return s.Phase == fleet.PhaseRunning })
		i := d.Instance.(*instance)
		eventually(t, "a run in "+row.zone, func() bool { i.wake(); return strings.Contains(d.out.String(), row.runs) })
		if strings.Contains(d.out.String(), row.not) {
			t.Errorf("%s: what is for another hour ran:\n%s", row.zone, d.out)
		}
		if remark := d.Status().Conditions["TimeZone"]; (remark != "") != (name == "unknown") {
			t.Errorf("%s: remark %q", row.zone, remark)
		}
	}
}

func TestPreparedAhead(t *testing.T) {
	k := newKitchen(t, func(o *Options) { o.IdleAfter = 300 * time.Millisecond })
	d := k.serve("ahead", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) { c.Limits.Prepared = 3 })
	parked := func() int64 { return k.rt.guests.Load() }
	eventually(t, "three prepared instances", func() bool { return parked() == 3 })
	memory := k.rt.budget.used.Load()
	if memory == 0 {
		t.Error("prepared instances have no memory")
	}
	// The clock that it sees is that of the request, not of its making.
	if _, body := d.get("/clock"); body == "" {
		t.Error("no clock")
	}
	if n := k.count("skerry_wasm_prepared_total", nil); n != 1 {
		t.Errorf("%v requests found a prepared instance", n)
	}
	eventually(t, "an idle app to let go of them", func() bool { return parked() == 0 })
	if left := k.rt.budget.used.Load(); left != 0 {
		t.Errorf("%d bytes of memory are left", left)
	}
	if code, _ := d.get("/hello"); code != 200 {
		t.Errorf("the next request got %d", code)
	}
	eventually(t, "them to come back", func() bool { return parked() > 0 })
}

func TestStartRefuses(t *testing.T) {
	k := newKitchen(t, nil)
	hand := func(m wasmtest.Module) string { return handmade(t, m) }
	for name, row := range map[string]struct {
		module string
		edit   func(*appsite.Spec, *app.WasmConfig)
		says   string
	}{
		"no-module": {hand(wasmtest.Module{Functions: [][]byte{{}}}), func(_ *appsite.Spec, c *app.WasmConfig) { c.Module = "none.wasm" }, "wasm.module"},
		"no-start":  {hand(wasmtest.Module{Functions: [][]byte{{}}, NoStart: true}), nil, "_start"},
		"memory":    {goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) { c.Limits.MemoryBytes = 1 << 16 }, "wasm.limits.memoryBytes"},
	} {
		spec := k.spec(name, row.module, row.edit)
		if _, err := k.rt.Start(t.Context(), spec); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: error %v, want ErrSpec that says %q", name, err, row.says)
		}
	}
	// What only the engine finds is told by the status.
	d := k.start(k.spec("broken", hand(wasmtest.Module{Functions: [][]byte{{0x1a}}}), nil)) // drop of nothing
	for d.Status().Phase != fleet.PhaseFailed {
		<-d.Changes()
	}
	if s := d.Status(); !strings.Contains(s.Message, "app.wasm") {
		t.Errorf("status is %+v", s)
	}
}

func TestStopLetsRequestsEnd(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("stop", goGuest(t, "kitchen"), nil)
	answers := make(chan int, 1)
	go func() {
		res, err := http.DefaultClient.Do(d.request(http.MethodGet, "/sleep/1s", nil))
		if err != nil {
			answers <- 0
			return
		}
		res.Body.Close()
		answers <- res.StatusCode
	}()
	i := d.Instance.(*instance)
	eventually(t, "the request to be served", func() bool { return len(i.slots) == 1 })
	d.end()
	if code := <-answers; code != 200 {
		t.Errorf("a request that was served got %d", code)
	}
	if status, reason := d.reason("/hello"); status != 503 || reason != "stopped" {
		t.Errorf("after the stop it answers %d %q", status, reason)
	}
	if k.rt.guests.Load() != 0 || k.rt.budget.used.Load() != 0 {
		t.Errorf("%d instances and %d bytes are left", k.rt.guests.Load(), k.rt.budget.used.Load())
	}
	// One that would go on for ever is cut off when the patience ends.
	e := k.serve("stop2", goGuest(t, "kitchen"), func(_ *appsite.Spec, c *app.WasmConfig) { c.Limits.TimeoutSeconds = 3600 })
	go func() {
		if res, err := http.DefaultClient.Do(e.request(http.MethodGet, "/loop", nil)); err == nil {
			res.Body.Close()
		}
	}()
	eventually(t, "the loop to be served", func() bool { return len(e.Instance.(*instance).slots) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := e.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func TestBudgetIsShared(t *testing.T) {
	k := newKitchen(t, func(o *Options) { o.MemoryBytes = 1 << 20 })
	d := k.serve("big", goGuest(t, "kitchen"), nil)
	if status, reason := d.reason("/hello"); status != 503 && status != 500 || reason != "budget" && reason != "memory" {
		t.Errorf("without memory for one instance: %d %q", status, reason)
	}
}

func TestCompilationsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "compiled")
	module := cacheGuest(t)
	start := func() {
		k := newKitchen(t, func(o *Options) { o.CacheDir = dir })
		d := k.serve("kept", module, nil)
		if status, reason := d.reason("/"); status != 500 || reason != "trap" {
			t.Errorf("got %d %q", status, reason)
		}
		d.end()
	}
	files := func() map[string]time.Time {
		out := map[string]time.Time{}
		_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() && filepath.Base(path) != sumFile {
				info, err := e.Info()
				if err != nil || info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
				}
				out[path] = info.ModTime()
			}
			return nil
		})
		return out
	}
	start()
	first := files()
	if len(first) != 1 {
		t.Fatalf("files are %v", first)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	start()
	for path, at := range files() {
		if !first[path].Equal(at) {
			t.Errorf("%s was written again", path)
		}
		// Any damage means that it is compiled anew: also where the engine itself does not look.
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, flip := range []int{0, 8, 20, 30, len(data) / 2, len(data) - 1} {
			bad := append([]byte{}, data...)
			bad[flip] ^= 0xff
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			start()
			if again, err := os.ReadFile(path); err != nil || string(again) != string(data) {
				t.Errorf("byte %d: the damaged entry was not made anew: %v", flip, err)
			}
		}
		if err := os.Truncate(path, 10); err != nil {
			t.Fatal(err)
		}
		start()
	}
}

func cacheGuest(t *testing.T) string {
	return handmade(t, wasmtest.Module{Functions: [][]byte{{0x01}, {0x10, 0x00, 0x00}}})
}

func TestCompilationsAreBounded(t *testing.T) {
	dir := t.TempDir()
	c := &cache{dir: dir, most: 100, open: map[string]*compilation{}}
	for n, name := range []string{"old", "mid", "new"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "code"), make([]byte, 20), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1000+n), 0)
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	c.open["old"] = &compilation{}
	size := sizeOf(filepath.Join(dir, "mid"))
	c.most = 2 * size
	if err := c.makeRoom(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(dir + "/*")
	if err != nil || len(left) != 2 || strings.Contains(strings.Join(left, " "), "mid") {
		t.Errorf("left are %v: want what is in use and what was used last", left)
	}
}
