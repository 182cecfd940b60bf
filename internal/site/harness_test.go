package site_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// diary is what modules were called for, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) write(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

// read returns the lines since the last call.
func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := d.lines
	d.lines = nil
	return lines
}

// module is a small site.Module that writes what it is called for into a diary.
type module struct {
	name  string
	diary *diary
	host  *site.Host

	mu sync.Mutex
	// applying is called within Apply; its error is Apply's.
	applying func(body []byte) error
	wiping   func() error
	starting error
	report   any
	facts    fleet.Facts
	link     fleet.Link
}

func (m *module) Name() string { return m.name }

func (m *module) Start(context.Context) error {
	m.diary.write("start %s", m.name)
	return m.starting
}

func (m *module) Apply(_ context.Context, body []byte, facts fleet.Facts) error {
	m.mu.Lock()
	m.facts = facts
	applying := m.applying
	m.mu.Unlock()
	if body == nil {
		m.diary.write("%s gone", m.name)
	} else {
		m.diary.write("%s = %s", m.name, body)
	}
	if applying != nil {
		return applying(body)
	}
	return nil
}

func (m *module) set(fn func(*module)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(m)
}

func (m *module) Report() any {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.report
}

func (m *module) Stop(context.Context) error {
	m.diary.write("stop %s", m.name)
	return nil
}

func (m *module) Wipe(context.Context) error {
	m.diary.write("wipe %s", m.name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wiping != nil {
		return m.wiping()
	}
	return nil
}

func (m *module) LinkChanged(link fleet.Link) { m.set(func(m *module) { m.link = link }) }

// gateway is a module that routes nothing.
type gateway struct{ *module }

func (gateway) Set(fleet.AppKey, site.Route)                 {}
func (gateway) Remove(fleet.AppKey)                          {}
func (gateway) Drain(context.Context, string) error          { return nil }
func (gateway) Counts() map[fleet.AppKey]fleet.RequestCounts { return nil }
func (gateway) URL() string                                  { return "http://127.0.0.1:8081" }

// silence listens to nothing until it is closed.
type silence struct {
	once   sync.Once
	closed chan struct{}
}

func (s *silence) Accept() (net.Conn, error) { <-s.closed; return nil, net.ErrClosed }
func (s *silence) Close() error              { s.once.Do(func() { close(s.closed) }); return nil }
func (s *silence) Addr() net.Addr            { return &net.UnixAddr{} }

// rig is an agent with two small modules, on a bus in memory, whose hub is the test.
type rig struct {
	t      *testing.T
	dir    string
	broker *membus.Broker
	hub    *membus.Client
	diary  *diary

	bus       *membus.Client
	wrap      func(wire.Bus) wire.Bus
	store     *store.Store
	agent     *site.Agent
	apps      *module
	rules     *module
	forgotten int
	// outboxBudget is the agent's, when it is not zero.
	outboxBudget int64
	cancel       context.CancelFunc
	done         chan error
}

// newRig makes a rig in a bubble of time; start starts its agent.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), broker: membus.New(), diary: &diary{}}
	r.hub = r.broker.Client()
	return r
}

// make opens the store and makes the agent.
func (r *rig) make() {
	r.t.Helper()
	var err error
	if r.store, err = store.Open(filepath.Join(r.dir, "store.db")); err != nil {
		r.t.Fatal(err)
	}
	r.bus = r.broker.Client()
	var bus wire.Bus = r.bus
	if r.wrap != nil {
		bus = r.wrap(bus)
	}
	r.apps, r.rules = &module{name: "apps", diary: r.diary}, &module{name: "rules", diary: r.diary}
	maker := func(m *module) site.Maker {
		return site.Maker{Name: m.name, New: func(h *site.Host) (site.Module, error) { m.host = h; return m, nil }}
	}
	r.agent, err = site.New(site.Options{
		Site: "shop-1", Member: "m-1", Dir: r.dir, Store: r.store, Bus: bus, Version: "1.2.3",
		Gateway: func(h *site.Host) (site.Gateway, error) {
			return gateway{&module{name: "gateway", diary: r.diary, host: h}}, nil
		},
		Modules: []site.Maker{maker(r.apps), maker(r.rules)},
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: prometheus.NewRegistry(),
		Forget: func() error { r.forgotten++; return nil }, OutboxBudget: r.outboxBudget,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.agent.SetListen(func(string) (net.Listener, error) { return &silence{closed: make(chan struct{})}, nil })
}

// run runs the agent that make made.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan error, 1)
	go func() { r.done <- r.agent.Run(ctx) }()
	synctest.Wait()
}

// start starts an agent that finds the hub at once.
func (r *rig) start() {
	r.t.Helper()
	r.make()
	r.run()
	r.agent.SetLink(fleet.LinkConnected)
	synctest.Wait()
}

// connect makes the bus, and with it the link, be there or not.
func (r *rig) connect(connected bool) {
	r.bus.SetConnected(connected)
	r.agent.SetLink(map[bool]fleet.Link{true: fleet.LinkConnected, false: fleet.LinkAway}[connected])
	synctest.Wait()
}

// stop ends the agent in order and returns what Run returned.
func (r *rig) stop() error {
	r.t.Helper()
	r.cancel()
	err := <-r.done
	r.close()
	return err
}

func (r *rig) close() {
	r.bus.Close()
	if err := r.store.Close(); err != nil {
		r.t.Error(err)
	}
}

// end is a deferred stop.
func (r *rig) end() {
	if err := r.stop(); err != nil {
		r.t.Errorf("Run returned %v", err)
	}
	r.hub.Close()
}

// put stores a section's body as the hub would.
func (r *rig) put(section, body string) {
	r.t.Helper()
	if _, err := r.hub.Put(context.Background(), wire.DesiredSubject("shop-1", section), []byte(body), wire.AnyRevision); err != nil {
		r.t.Fatal(err)
	}
}

// tell stores a manifest that names bodies, after the bodies, and hints at it when hint is set.
func (r *rig) tell(epoch string, generation uint64, bodies map[string]string, hint bool) {
	r.t.Helper()
	for name, body := range bodies {
		r.put(name, body)
	}
	r.manifest(manifest(epoch, generation, bodies), hint)
}

func manifest(epoch string, generation uint64, bodies map[string]string) wire.Manifest {
	m := wire.Manifest{HubEpoch: epoch, Generation: generation, Sections: map[string]wire.SectionRef{}}
	for name, body := range bodies {
		m.Sections[name] = wire.SectionRef{Digest: fleet.DigestOf([]byte(body)), Size: int64(len(body))}
	}
	return m
}

func (r *rig) manifest(m wire.Manifest, hint bool) {
	r.t.Helper()
	data, err := m.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	r.put(wire.ManifestSection, string(data))
	if hint {
		r.hint()
	}
}

func (r *rig) hint() {
	r.t.Helper()
	if err := r.hub.Publish(context.Background(), wire.HintSubject("shop-1"), nil); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

// report returns the newest one that the agent stored.
func (r *rig) report() (wire.Report, error) {
	m, err := r.hub.Get(context.Background(), wire.ReportSubject("shop-1", "m-1"))
	if err != nil {
		return wire.Report{}, err
	}
	return wire.DecodeReport(m.Data)
}

// wantReport lets time pass until a report was due, and returns it.
func (r *rig) wantReport() wire.Report {
	r.t.Helper()
	pass(time.Second)
	report, err := r.report()
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// wantDiary fails unless modules were called for exactly want since it was last asked.
func (r *rig) wantDiary(reason string, want ...string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.diary.read(); !slices.Equal(got, want) {
		r.t.Errorf("%s: modules were called for %q, want %q", reason, got, want)
	}
}

// stored returns what the store holds under a key of the agent's own.
func (r *rig) stored(key string) string {
	r.t.Helper()
	b, err := r.store.Bucket("agent")
	if err != nil {
		r.t.Fatal(err)
	}
	data, err := b.GetBytes(key)
	if errors.Is(err, store.ErrNotFound) {
		return ""
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

// pass lets time pass and everything that follows from it happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// inBubble runs fn on a rig whose agent is started, in a bubble of time.
func inBubble(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.diary.read()
		defer r.end()
		fn(t, r)
	})
}
