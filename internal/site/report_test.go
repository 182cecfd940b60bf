package site_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/wire"
)

func TestReport(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.tell("A", 3, map[string]string{"apps": "one"}, true)
		r.apps.set(func(m *module) { m.report = map[string]int{"running": 1} })
		r.apps.host.Changed()
		got := r.wantReport()
		got.Epoch, got.Sequence, got.Hardware = "", 0, fleet.Hardware{}
		want := wire.Report{
			Protocol: 1, Site: "shop-1", Member: "m-1", HubEpoch: "A", Generation: 3, Version: "1.2.3", Gateway: "http://127.0.0.1:8081",
			Modules: got.Modules,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if string(got.Modules["apps"]) != `{"running":1}` || len(got.Modules) != 1 {
			t.Errorf("modules report %v", got.Modules)
		}
		if hw := site.ReadHardware(); hw.OS == "" || hw.Arch == "" || hw.CPUs < 1 || hw.MemoryBytes < 1<<20 {
			t.Errorf("this machine is %+v", hw)
		}
	})
}

// reports follows what a site stores.
func (r *rig) reports() func() []wire.Report {
	r.t.Helper()
	var mu sync.Mutex
	var all []wire.Report
	_, err := r.hub.Subscribe(context.Background(), wire.AllReports, func(m wire.Message) {
		report, err := wire.DecodeReport(m.Data)
		if err != nil {
			r.t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, report)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return func() []wire.Report {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		out := all
		all = nil
		return out
	}
}

// TestReportsAreFew changes a module's state without end: reports come at most twice a second, and the last
// state is always told.
func TestReportsAreFew(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.wantReport()
		reports := r.reports()
		for i := range 1000 {
			r.apps.set(func(m *module) { m.report = i })
			r.apps.host.Changed()
			pass(10 * time.Millisecond)
		}
		pass(time.Second)
		got := reports()
		if len(got) < 10 || len(got) > 22 {
			t.Errorf("%d reports in eleven seconds of change", len(got))
		}
		if last := string(got[len(got)-1].Modules["apps"]); last != "999" {
			t.Errorf("the last report says %s", last)
		}
		pass(30 * time.Second)
		if got := reports(); len(got) > 0 {
			t.Errorf("%d reports although nothing changed", len(got))
		}
		pass(2 * time.Minute)
		if got := reports(); len(got) == 0 || len(got) > 2 {
			t.Errorf("%d reports in two minutes for counts alone", len(got))
		}
	})
}

// TestSequence restarts an agent, in order and not: no sequence number of an epoch comes twice.
func TestSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		reports := r.reports()
		seen := map[uint64]bool{}
		last := uint64(0)
		epoch := ""
		for life := range 4 {
			r.start()
			for range 3 {
				r.apps.host.Changed()
				pass(time.Second)
			}
			got := reports()
			if len(got) < 3 {
				t.Fatalf("life %d: %d reports", life, len(got))
			}
			for _, report := range got {
				if epoch == "" {
					epoch = report.Epoch
				}
				if report.Epoch != epoch || seen[report.Sequence] || report.Sequence <= last {
					t.Errorf("life %d: report %s/%d after %s/%d", life, report.Epoch, report.Sequence, epoch, last)
				}
				seen[report.Sequence], last = true, report.Sequence
			}
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			reports()
		}
		r.hub.Close()
	})
}

// failingPuts is a bus whose reports are lost for a while.
type failingPuts struct {
	wire.Bus
	mu    sync.Mutex
	times int
}

func (b *failingPuts) Put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.times > 0 {
		b.times--
		return 0, errors.New("stream is busy")
	}
	return b.Bus.Put(ctx, subject, data, revision)
}

func TestReportIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.wrap = func(b wire.Bus) wire.Bus { return &failingPuts{Bus: b, times: 3} }
		r.start()
		defer r.end()
		pass(20 * time.Second)
		if _, err := r.report(); err != nil {
			t.Errorf("a report that failed three times was given up: %v", err)
		}
	})
}

// TestReportOfALostLink changes something while the hub is away: it is told when the link is back.
func TestReportOfALostLink(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		before := r.wantReport()
		r.connect(false)
		r.apps.set(func(m *module) { m.report = "meanwhile" })
		r.apps.host.Changed()
		if got := r.wantReport(); got.Sequence != before.Sequence {
			t.Errorf("a report was stored without a link")
		}
		r.connect(true)
		if got := r.wantReport(); string(got.Modules["apps"]) != `"meanwhile"` {
			t.Errorf("the report says %s", got.Modules["apps"])
		}
		if r.apps.link != fleet.LinkConnected {
			t.Errorf("a module was told of link %q last", r.apps.link)
		}
	})
}

// TestReportThatIsTooLarge must neither end the agent nor keep it busy.
func TestReportThatIsTooLarge(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.apps.set(func(m *module) { m.report = strings.Repeat("x", wire.MaxMessage) })
		r.apps.host.Changed()
		pass(time.Minute)
		r.apps.set(func(m *module) { m.report = "small" })
		r.apps.host.Changed()
		pass(5 * time.Second)
		if got := r.wantReport(); string(got.Modules["apps"]) != `"small"` {
			t.Errorf("the report says %.40s", got.Modules["apps"])
		}
	})
}

// signs follows a member's signs of life.
func (r *rig) signs() func() []wire.Alive {
	r.t.Helper()
	var mu sync.Mutex
	var all []wire.Alive
	_, err := r.hub.Subscribe(context.Background(), wire.AliveSubject("shop-1", "m-1"), func(m wire.Message) {
		var alive wire.Alive
		if err := wire.DecodeJSON("alive", m.Data, &alive); err != nil {
			r.t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, alive)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return func() []wire.Alive {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		out := all
		all = nil
		return out
	}
}

func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		signs := r.signs()
		r.start()
		if got := signs(); len(got) == 0 || got[0].Leaving {
			t.Errorf("when it starts a member says %v", got)
		}
		pass(time.Second)
		signs()
		for range 3 {
			pass(wire.AliveSeconds * time.Second)
			got := signs()
			if len(got) != 1 || got[0].Leaving || got[0].Sequence == 0 {
				t.Errorf("in ten seconds a member says %v", got)
			}
		}
		r.connect(false)
		pass(time.Minute)
		if got := signs(); len(got) > 0 {
			t.Errorf("without a link a member says %v", got)
		}
		pass(3 * time.Second) // not at a beat of its timer
		r.connect(true)
		pass(100 * time.Millisecond)
		if got := signs(); len(got) == 0 {
			t.Error("the link is back, and the hub hears of it only at the next beat")
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if got := signs(); len(got) != 1 || !got[0].Leaving {
			t.Errorf("when it stops a member says %v", got)
		}
		r.hub.Close()
	})
}
