package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site/outbox"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Gateway is the module through which apps answer; the other modules see it as Router.
type Gateway interface {
	Module
	Router
}

// Options are what an agent is made of.
type Options struct {
	// Site and Member are who this agent is.
	Site   fleet.SiteName
	Member fleet.MemberID
	// Dir is the agent's data directory.
	Dir string
	// Store is open; the caller closes it after Run returned.
	Store *store.Store
	// Bus reaches the hub, now or later.
	Bus wire.Bus
	// Fetcher gets content from the hub.
	Fetcher Fetcher
	// Gateway makes the site's gateway; Modules are the rest, in the order of their start.
	Gateway func(*Host) (Gateway, error)
	Modules []Maker
	// Version of this program, for reports.
	Version string
	Log     *slog.Logger
	Metrics *prometheus.Registry
	// Leaving says why the agent stops, when it does; it takes at most a second. Nil: somebody stopped it.
	Leaving func() fleet.Leaving
	// OutboxBudget is how many bytes events may take on the disk; zero means outbox.DefaultBudget.
	OutboxBudget int64
	// Forget is called after a deleted site was wiped: it drops the agent's identity.
	Forget func() error
}

// Maker makes a module. Name is that of its directory and its part of the store, and never changes.
type Maker struct {
	Name string
	New  func(*Host) (Module, error)
}

// ErrWiped means that the site was deleted at the hub and has removed everything it kept.
var ErrWiped = errors.New("this site was deleted at the hub")

// stopTimeout bounds the orderly stop of all modules.
const stopTimeout = 30 * time.Second

// Agent runs one member of a site. Make it with New, then Run it once.
type Agent struct {
	o       Options
	log     *slog.Logger
	bucket  *store.Bucket
	content *ContentDir
	outbox  *outbox.Outbox
	gateway Gateway
	modules []Module
	calls   *calls
	local   *http.ServeMux
	// listen opens the local socket below a data directory.
	listen func(dir string) (net.Listener, error)

	links   chan fleet.Link
	hints   chan struct{}
	changed chan struct{}
	// unsent, urgent and linked wake the sender of events: there are some, there are alarms, the link came up.
	unsent, urgent, linked chan struct{}
	// awaySince is when the link was lost. Of Run's follower alone.
	awaySince time.Time
	// damaged are the sections of the manifest whose stored body cannot be used. Of Run's follower alone.
	damaged []string

	mu       sync.Mutex
	link     fleet.Link
	manifest wire.Manifest
	facts    fleet.Facts
	problems map[string]string
	wiped    bool
	epoch    string
	sequence uint64
	reserved uint64
}

// New opens what the agent keeps and makes its modules. Nothing runs yet.
func New(o Options) (*Agent, error) {
	bucket, err := o.Store.Bucket("agent")
	if err != nil {
		return nil, err
	}
	a := &Agent{
		o: o, log: o.Log, bucket: bucket, local: http.NewServeMux(), listen: listenLocal, link: fleet.LinkUnknown,
		links: make(chan fleet.Link, 1), hints: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		unsent: make(chan struct{}, 1), urgent: make(chan struct{}, 1), linked: make(chan struct{}, 1),
		problems: map[string]string{},
	}
	a.calls = newCalls(o.Bus, o.Site, o.Member, o.Log.With("component", "calls"))
	if err := a.load(); err != nil {
		return nil, err
	}
	contentBucket, err := o.Store.Bucket("content")
	if err != nil {
		return nil, err
	}
	a.content, err = OpenContent(filepath.Join(o.Dir, "content"), contentBucket, o.Fetcher, o.Log.With("component", "content"))
	if err != nil {
		return nil, err
	}
	a.outbox, err = outbox.Open(filepath.Join(o.Dir, "outbox"), outbox.Options{Budget: o.OutboxBudget, Log: o.Log.With("component", "outbox")})
	if err != nil {
		return nil, err
	}
	if err := o.Metrics.Register(newOutboxMetrics(a.outbox)); err != nil {
		return nil, fmt.Errorf("register metrics of the outbox: %w", err)
	}
	return a, a.makeModules()
}

func (a *Agent) makeModules() error {
	host, err := a.host("gateway")
	if err != nil {
		return err
	}
	if a.gateway, err = a.o.Gateway(host); err != nil {
		return fmt.Errorf("make gateway: %w", err)
	}
	a.modules = []Module{a.gateway}
	for _, maker := range a.o.Modules {
		host, err := a.host(maker.Name)
		if err != nil {
			return err
		}
		m, err := maker.New(host)
		if err != nil {
			return fmt.Errorf("make module %s: %w", maker.Name, err)
		}
		a.modules = append(a.modules, m)
	}
	a.local.HandleFunc("GET /status", a.serveStatus)
	return nil
}

// host makes what a module is given.
func (a *Agent) host(name string) (*Host, error) {
	bucket, err := a.o.Store.Bucket("module/" + name)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(a.o.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of module %s: %w", name, err)
	}
	h := &Host{
		Name: a.o.Site, Dir: dir, Log: a.log.With("module", name), Metrics: a.o.Metrics, Bucket: bucket,
		Content: a.content, Changed: a.notifyChanged, Events: a.outbox, Local: a.local, Calls: a.calls,
	}
	if a.gateway != nil {
		h.Router = a.gateway
	}
	return h, nil
}

// SetLink tells the agent whether the bus reaches the hub. It never blocks; only the newest state counts.
func (a *Agent) SetLink(link fleet.Link) { replace(a.links, link) }

func replace[T any](c chan T, v T) {
	for {
		select {
		case c <- v:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}

func (a *Agent) notifyChanged() { replace(a.changed, struct{}{}) }

// Run brings back what ran before, then follows the hub until ctx ends, and stops everything in order. It
// returns ErrWiped when the hub deleted this site.
func (a *Agent) Run(ctx context.Context) error {
	local, err := a.listen(a.o.Dir)
	// Nobody can ask the agent then; its apps run all the same.
	a.setProblem(localPart, err)
	a.started()
	defer a.closeOutbox()
	started := 0
	defer func() { a.stop(ctx, a.modules[:started]) }()
	for _, m := range a.modules {
		if err := m.Start(ctx); err != nil {
			if local != nil {
				local.Close()
			}
			return fmt.Errorf("start module %s: %w", m.Name(), err)
		}
		started++
	}
	a.applyAll(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.keepLocal(ctx, local) })
	wg.Go(func() { a.report(ctx) })
	wg.Go(func() { a.stayAlive(ctx) })
	wg.Go(func() { a.calls.run(ctx) })
	wg.Go(func() { a.collect(ctx) })
	wg.Go(func() { a.keepEvents(ctx) })
	wg.Go(func() { a.sendEvents(ctx) })
	wg.Go(func() { a.sampleTraffic(ctx) })
	wg.Go(func() {
		if err := a.follow(ctx); err != nil {
			cancel(err)
		}
	})
	<-ctx.Done()
	if cause := context.Cause(ctx); errors.Is(cause, ErrWiped) {
		return ErrWiped
	}
	return nil
}

func (a *Agent) stop(ctx context.Context, modules []Module) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for i := len(modules) - 1; i >= 0; i-- {
		if err := modules[i].Stop(ctx); err != nil {
			a.log.Error("module did not stop in order", "module", modules[i].Name(), "error", err)
		}
	}
}

// collectEvery is how often content that no module needs is looked for, beside each change of what they
// need.
const collectEvery = 15 * time.Minute

func (a *Agent) collect(ctx context.Context) {
	for sleep(ctx, jitter(collectEvery)) {
		if err := a.content.Collect(); err != nil {
			a.log.Warn("content that nobody needs was not removed", "error", err)
		}
	}
}

// setProblem says or clears what is wrong with a part of the agent.
func (a *Agent) setProblem(part string, err error) {
	a.mu.Lock()
	old, had := a.problems[part]
	if err == nil {
		delete(a.problems, part)
	} else {
		a.problems[part] = err.Error()
	}
	changed := err == nil && had || err != nil && old != err.Error()
	a.mu.Unlock()
	if !changed {
		return
	}
	if err != nil {
		a.log.Error("problem", "part", part, "error", err)
	}
	a.noteProblem(part, err)
	a.notifyChanged()
}
