package site_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// This file explores the protocol between the real hub.Desired and real agents: every operation on the bus waits
// until a scheduler lets it go on, loses it, or loses its answer; hub and agents may be killed between any two, and
// the hub may lose its memory. The scheduler tries every run that differs from the plain one in a bounded number of
// places, by running each from the start. What an agent keeps on its disk is copied at its kill, as a disk would be
// found.

// maxSteps bounds a run.
const maxSteps = 60

// pendingOp is an operation on the bus that waits for the scheduler.
type pendingOp struct {
	name string
	// verdict is what becomes of it.
	verdict chan verdict
	// write says that it changes something, so that its answer can be lost after it was done.
	write bool
}

type verdict int

const (
	goOn verdict = iota
	lose
	loseAnswer
)

var errNetwork = fmt.Errorf("the network lost it: %w", wire.ErrDisconnected)

// gated is a bus whose operations wait for the scheduler, but for signs of life and events, which are no part of
// what is explored.
type gated struct {
	wire.Bus
	w   *exploration
	who string
	// dead says that its owner was killed: nothing that it still does has an effect.
	mu   sync.Mutex
	dead bool
}

func (g *gated) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
}

func (g *gated) isDead() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead
}

// wait returns what the scheduler says. Operations of the dead are lost.
func (g *gated) wait(ctx context.Context, op, subject string, write bool) (verdict, error) {
	if g.isDead() {
		return lose, errNetwork
	}
	p := &pendingOp{name: g.who + " " + op + " " + strings.TrimPrefix(subject, "skerry.v1."), verdict: make(chan verdict, 1), write: write}
	g.w.add(p)
	defer g.w.drop(p)
	select {
	case v := <-p.verdict:
		if g.isDead() || v == lose {
			return lose, errNetwork
		}
		return v, nil
	case <-ctx.Done():
		return lose, ctx.Err()
	}
}

func explored(subject string) bool {
	return !strings.HasPrefix(subject, "skerry.v1.alive.") && !strings.HasPrefix(subject, "skerry.v1.events.")
}

func (g *gated) Get(ctx context.Context, subject string) (wire.Message, error) {
	if !explored(subject) {
		return wire.Message{}, wire.ErrForbidden
	}
	if _, err := g.wait(ctx, "get", subject, false); err != nil {
		return wire.Message{}, err
	}
	return g.Bus.Get(ctx, subject)
}

func (g *gated) Put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	if !explored(subject) {
		return 0, wire.ErrForbidden
	}
	v, err := g.wait(ctx, "put", subject, true)
	if err != nil {
		return 0, err
	}
	stored, err := g.Bus.Put(ctx, subject, data, revision)
	if v == loseAnswer && err == nil {
		return 0, errNetwork
	}
	return stored, err
}

func (g *gated) Publish(ctx context.Context, subject string, data []byte) error {
	if !explored(subject) {
		return nil
	}
	if _, err := g.wait(ctx, "publish", subject, false); err != nil {
		return err
	}
	return g.Bus.Publish(ctx, subject, data)
}

// exploration is one run: a hub, two sites, and what they are told one after the other.
type exploration struct {
	t      *testing.T
	dir    string
	broker *membus.Broker

	mu      sync.Mutex
	pending []*pendingOp

	// told is what the hub was asked to tell each site, last one counts; every one of them is a whole.
	told    map[fleet.SiteName][]string
	desired *hub.Desired
	hubBus  *gated
	hubRaw  *membus.Client
	telling chan error // of the Set under way; nil when none is
	boxes   []*exploredSite
	left    []command
}

// command is what somebody wants of the hub.
type command struct {
	site fleet.SiteName
	body string
}

// exploredSite is an agent with one module, killed and started again.
type exploredSite struct {
	w    *exploration
	name fleet.SiteName
	life int

	bus    *gated
	raw    *membus.Client
	store  *store.Store
	agent  *site.Agent
	cancel context.CancelFunc
	done   chan error
	module *seenModule
}

// seenModule notes what it is told.
type seenModule struct {
	module
	mu   sync.Mutex
	body string
}

func (m *seenModule) Apply(_ context.Context, body []byte, _ fleet.Facts) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.body = string(body)
	return nil
}

func (m *seenModule) now() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.body
}

func (w *exploration) add(p *pendingOp) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = append(w.pending, p)
}

func (w *exploration) drop(p *pendingOp) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = slices.DeleteFunc(w.pending, func(o *pendingOp) bool { return o == p })
}

// waiting returns the operations that wait, in an order that does not depend on which goroutine was quicker.
func (w *exploration) waiting() []*pendingOp {
	w.mu.Lock()
	defer w.mu.Unlock()
	ops := slices.Clone(w.pending)
	slices.SortStableFunc(ops, func(a, b *pendingOp) int { return strings.Compare(a.name, b.name) })
	return ops
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// startHub loads what the bus holds, as a hub that starts does, without the scheduler: it serves nobody before.
func (w *exploration) startHub() {
	w.hubRaw = w.broker.Client()
	w.hubBus = &gated{Bus: w.hubRaw, w: w, who: "hub"}
	loading := &gated{Bus: w.hubRaw, w: w}
	var err error
	w.desired, err = hub.LoadDesired(context.Background(), &switchable{gated: w.hubBus, plain: loading.Bus, loading: true}, w.hubRaw, quiet())
	if err != nil {
		w.t.Fatal(err)
	}
}

// switchable is plain while the hub loads, and gated from its first Put of a section on.
type switchable struct {
	*gated
	plain   wire.Bus
	loading bool
}

func (s *switchable) Get(ctx context.Context, subject string) (wire.Message, error) {
	if subject == wire.HubEpochSubject {
		return s.plain.Get(ctx, subject)
	}
	return s.gated.Get(ctx, subject)
}

func (s *switchable) Put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	if subject == wire.HubEpochSubject {
		return s.plain.Put(ctx, subject, data, revision)
	}
	return s.gated.Put(ctx, subject, data, revision)
}

// tell begins the next command, or the last one of each site again after a hub was started: its owner compares.
func (w *exploration) tell(c command) {
	w.telling = make(chan error, 1)
	desired, done := w.desired, w.telling
	go func() { done <- desired.Set(context.Background(), c.site, "apps", []byte(c.body)) }()
}

// killHub ends the hub between two operations; forget loses what the bus holds as well.
func (w *exploration) killHub(forget bool) {
	w.hubBus.kill()
	for _, p := range w.waiting() {
		if strings.HasPrefix(p.name, "hub ") {
			p.verdict <- lose
		}
	}
	synctest.Wait()
	if w.telling != nil {
		<-w.telling
		w.telling = nil
	}
	if forget {
		if err := w.hubRaw.Purge(context.Background(), wire.AllDesired); err != nil {
			w.t.Fatal(err)
		}
	}
	w.hubRaw.Close()
	w.startHub()
	// Level-triggered: whoever owns the section says again what is to be.
	for _, b := range w.boxes {
		if said := w.told[b.name]; len(said) > 0 {
			w.left = append([]command{{b.name, said[len(said)-1]}}, w.left...)
		}
	}
}

func (w *exploration) newSite(name fleet.SiteName) *exploredSite {
	b := &exploredSite{w: w, name: name}
	w.boxes = append(w.boxes, b)
	b.start("")
	return b
}

// start starts an agent on what an earlier life left on the disk.
func (b *exploredSite) start(disk string) {
	dir := filepath.Join(b.w.dir, fmt.Sprintf("%s-%d", b.name, b.life))
	b.life++
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.w.t.Fatal(err)
	}
	if disk != "" {
		if err := os.CopyFS(dir, os.DirFS(disk)); err != nil {
			b.w.t.Fatal(err)
		}
	}
	var err error
	if b.store, err = store.Open(filepath.Join(dir, "store.db")); err != nil {
		b.w.t.Fatal(err)
	}
	b.raw = b.w.broker.Client()
	b.bus = &gated{Bus: b.raw, w: b.w, who: string(b.name)}
	diary := &diary{}
	b.module = &seenModule{module: module{name: "apps", diary: diary}}
	b.agent, err = site.New(site.Options{
		Site: b.name, Member: "m-1", Dir: dir, Store: b.store, Bus: b.bus, Version: "1",
		Gateway: func(h *site.Host) (site.Gateway, error) {
			return gateway{&module{name: "gateway", diary: diary, host: h}}, nil
		},
		Modules: []site.Maker{{Name: "apps", New: func(*site.Host) (site.Module, error) { return b.module, nil }}},
		Log:     quiet(), Metrics: prometheus.NewRegistry(), Forget: func() error { return nil },
	})
	if err != nil {
		b.w.t.Fatal(err)
	}
	b.agent.SetListen(func(string) (net.Listener, error) { return &silence{closed: make(chan struct{})}, nil })
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.done = cancel, make(chan error, 1)
	go func() { b.done <- b.agent.Run(ctx) }()
	synctest.Wait()
	b.agent.SetLink(fleet.LinkConnected)
}

// kill ends the agent between two operations: what it does from now on, on the bus or its disk, is lost.
func (b *exploredSite) kill() (disk string) {
	synctest.Wait()
	disk = filepath.Join(b.w.dir, fmt.Sprintf("%s-%d-found", b.name, b.life))
	if err := os.CopyFS(disk, os.DirFS(filepath.Dir(b.storePath()))); err != nil {
		b.w.t.Fatal(err)
	}
	b.end()
	return disk
}

func (b *exploredSite) storePath() string {
	return filepath.Join(b.w.dir, fmt.Sprintf("%s-%d", b.name, b.life-1), "store.db")
}

func (b *exploredSite) end() {
	b.bus.kill()
	for _, p := range b.w.waiting() {
		if strings.HasPrefix(p.name, string(b.name)+" ") {
			p.verdict <- lose
		}
	}
	b.cancel()
	<-b.done
	b.raw.Close()
	if err := b.store.Close(); err != nil {
		b.w.t.Error(err)
	}
}

// action is one thing that may happen next.
type action struct {
	name string
	do   func()
}

// actions are what may happen now; the first is what happens when nothing goes wrong.
func (w *exploration) actions() []action {
	var plain, faults []action
	for _, p := range w.waiting() {
		plain = append(plain, action{p.name, func() { p.verdict <- goOn }})
		faults = append(faults, action{"lose " + p.name, func() { p.verdict <- lose }})
		if p.write {
			faults = append(faults, action{"lose the answer of " + p.name, func() { p.verdict <- loseAnswer }})
		}
	}
	if w.telling == nil && len(w.left) > 0 {
		next := w.left[0]
		plain = append(plain, action{"command " + next.body, func() { w.left = w.left[1:]; w.note(next); w.tell(next) }})
	}
	faults = append(faults, action{"kill hub", func() { w.killHub(false) }}, action{"hub loses its memory", func() { w.killHub(true) }})
	for _, b := range w.boxes {
		faults = append(faults, action{"kill " + string(b.name), func() { b.start(b.kill()) }})
	}
	if len(plain) == 0 {
		plain = []action{{"time passes", func() { time.Sleep(3 * time.Second) }}}
	}
	return append(plain, faults...)
}

// whole reports whether what is stored is one manifest with just the bodies that it names.
func (b *exploredSite) whole() error {
	bucket, err := b.store.Bucket("agent")
	if err != nil {
		return err
	}
	var m wire.Manifest
	if err := bucket.Get("manifest", &m); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	}
	for name, ref := range m.Sections {
		body, err := bucket.GetBytes("section/" + name)
		if err == nil {
			err = ref.Digest.Check(body)
		}
		if err != nil {
			return fmt.Errorf("section %s of generation %d: %w", name, m.Generation, err)
		}
	}
	return nil
}

func (w *exploration) note(c command) {
	if said := w.told[c.site]; len(said) == 0 || said[len(said)-1] != c.body {
		w.told[c.site] = append(said, c.body)
	}
}

// check holds what must hold at any moment: a site was told whole what it works towards, and it never goes back
// to what was said before something that it knew already, but by a hub that lost its memory and said it again.
func (w *exploration) check(seen map[fleet.SiteName]string) string {
	for _, b := range w.boxes {
		now := b.module.now()
		if now != "" && !slices.Contains(w.told[b.name], now) {
			return fmt.Sprintf("%s works towards %q, which nobody said", b.name, now)
		}
		if err := b.whole(); err != nil {
			return fmt.Sprintf("%s: on the disk: %v", b.name, err)
		}
		before, after := slices.Index(w.told[b.name], seen[b.name]), slices.Index(w.told[b.name], now)
		if after >= 0 && after < before {
			return fmt.Sprintf("%s went back from %q to %q", b.name, seen[b.name], now)
		}
		if now != "" {
			seen[b.name] = now
		}
	}
	return ""
}

// settled reports what is not as it should be in the end.
func (w *exploration) settled() string {
	if w.telling != nil {
		return "the hub still tells" // and holds what would be asked for below
	}
	for _, b := range w.boxes {
		want := w.told[b.name][len(w.told[b.name])-1]
		if got := b.module.now(); got != want {
			return fmt.Sprintf("%s works towards %q, want %q", b.name, got, want)
		}
		m, err := w.hubRaw.Get(context.Background(), wire.ReportSubject(b.name, "m-1"))
		if err != nil {
			return fmt.Sprintf("%s has not reported: %v", b.name, err)
		}
		report, err := wire.DecodeReport(m.Data)
		if manifest := w.desired.Manifest(b.name); err != nil || report.Generation != manifest.Generation || report.HubEpoch != manifest.HubEpoch {
			return fmt.Sprintf("%s reports generation %d of %s, it is told %d of %s", b.name, report.Generation, report.HubEpoch, manifest.Generation, manifest.HubEpoch)
		}
	}
	return ""
}

// run makes one run: at each step the action that differs names, else the plain one. It returns how many actions
// each step had.
func run(t *testing.T, dir string, differs map[int]int) (choices []int, trace []string, wrong string) {
	synctest.Test(t, func(t *testing.T) {
		w := &exploration{t: t, dir: dir, broker: membus.New(), told: map[fleet.SiteName][]string{}}
		w.left = []command{{"shop-1", "one"}, {"shop-2", "uno"}, {"shop-1", "two"}}
		w.startHub()
		w.newSite("shop-1")
		w.newSite("shop-2")
		seen := map[fleet.SiteName]string{}
		quietSteps := 0
		for step := range maxSteps {
			synctest.Wait()
			if w.telling != nil {
				select {
				case err := <-w.telling:
					w.telling = nil
					if err != nil { // its owner tries again
						for _, b := range w.boxes {
							if said := w.told[b.name]; len(said) > 0 {
								w.left = append([]command{{b.name, said[len(said)-1]}}, w.left...)
							}
						}
					}
				default:
				}
			}
			actions := w.actions()
			n := len(actions)
			if actions[0].name == "time passes" && len(trace) > 0 && trace[len(trace)-1] == "time passes" {
				n = 1 // a fault between two waits is the fault before the first
			}
			choices = append(choices, n)
			do := actions[min(differs[step], len(actions)-1)]
			trace = append(trace, do.name)
			do.do()
			synctest.Wait()
			if wrong = w.check(seen); wrong != "" {
				break
			}
			if do.name != "time passes" || differs[step] != 0 {
				quietSteps = 0
			} else if quietSteps++; quietSteps > 3 && w.settled() == "" {
				break
			}
		}
		if wrong == "" {
			wrong = w.finish()
		}
		for _, b := range w.boxes {
			b.end()
		}
		w.hubBus.kill()
		for _, p := range w.waiting() {
			p.verdict <- lose
		}
		if w.telling != nil {
			<-w.telling
		}
		w.hubRaw.Close()
	})
	return choices, trace, wrong
}

// finish lets everything go well for as long as a site takes to look by itself, and says what is wrong then.
func (w *exploration) finish() string {
	for range 400 {
		synctest.Wait()
		if w.telling != nil {
			select {
			case err := <-w.telling:
				w.telling = nil
				if err != nil {
					return "the hub cannot tell although nothing is lost: " + err.Error()
				}
			default:
			}
		}
		if w.settled() == "" && w.telling == nil && len(w.left) == 0 {
			return ""
		}
		actions := w.actions()
		if actions[0].name == "time passes" {
			time.Sleep(30 * time.Second)
			continue
		}
		actions[0].do()
	}
	return w.settled()
}

// TestExplore makes every run that differs from the plain one in at most deviations places.
func TestExplore(t *testing.T) {
	depth := deviations
	if testing.Short() {
		depth = 1
	}
	base, err := os.MkdirTemp("/dev/shm", "skerry-explore-")
	if err != nil {
		base = t.TempDir()
	}
	defer os.RemoveAll(base)
	runs := 0
	var explore func(differs map[int]int, from, left int)
	explore = func(differs map[int]int, from, left int) {
		if t.Failed() {
			return
		}
		dir := filepath.Join(base, fmt.Sprint(runs))
		runs++
		choices, trace, wrong := run(t, dir, differs)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if wrong != "" {
			t.Errorf("run %v: %s\n%s", differs, wrong, strings.Join(trace, "\n"))
			return
		}
		if left == 0 {
			return
		}
		for step := from; step < len(choices); step++ {
			for choice := 1; choice < choices[step]; choice++ {
				differs[step] = choice
				explore(differs, step+1, left-1)
				delete(differs, step)
			}
		}
	}
	explore(map[int]int{}, 0, depth)
	t.Logf("%d runs that differ from the plain one in at most %d places", runs, depth)
	if runs < 50 {
		t.Error("hardly anything was explored")
	}
}
