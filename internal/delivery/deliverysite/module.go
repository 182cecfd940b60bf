// Package deliverysite is the site half of delivery: downloads within their bandwidth and hours, content from
// neighbours on the same network, and an ear for whether those neighbours are there.
//
// Neighbours speak TLS to each other and prove the Ed25519 keys that the hub knows their members by; nobody else is
// answered, no authority and no clock has a say. Who asks for content must know its digest, which the hub tells only
// to sites that run it; what comes is verified by its digest like everything else. Only cmd imports it.
//
// It never fails loudly after Start: a neighbour that does not answer is not heard, and content comes from the hub.
package deliverysite

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/delivery"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// How neighbours are listened for: so often, each with so long to answer, and how many silences in a row mean that
// one is not heard.
const (
	helloEvery   = 10 * time.Second
	helloTimeout = 3 * time.Second
	misses       = 3
)

// Options of a Module.
type Options struct {
	// Key is this member's own, by which its neighbours know it.
	Key ed25519.PrivateKey
	// Listen is the address at which it answers neighbours; empty: it answers none and asks none.
	Listen string
	// Fetcher is given the rules.
	Fetcher *Fetcher
}

// Module is the site half of delivery. See site.Module.
type Module struct {
	host *site.Host
	o    Options

	cancel context.CancelFunc
	wg     sync.WaitGroup
	listen net.Listener
	client *http.Client

	mu         sync.Mutex
	rules      delivery.Section
	heard      map[fleet.SiteName]bool
	missed     map[fleet.SiteName]int
	tried      map[fleet.Digest]tries
	rulesMoved chan struct{}
}

// New returns the module.
func New(h *site.Host, o Options) *Module {
	return &Module{host: h, o: o, heard: map[fleet.SiteName]bool{}, missed: map[fleet.SiteName]int{}, tried: map[fleet.Digest]tries{}, rulesMoved: make(chan struct{}, 1)}
}

// Name implements site.Module.
func (m *Module) Name() string { return delivery.SectionName }

// Start implements site.Module.
func (m *Module) Start(ctx context.Context) error {
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.o.Fetcher.mu.Lock()
	m.o.Fetcher.onWait = m.host.Changed
	m.o.Fetcher.mu.Unlock()
	if m.o.Listen == "" {
		return nil
	}
	certificate, err := selfSigned(m.o.Key)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", m.o.Listen)
	if err != nil {
		return fmt.Errorf("listen for neighbours (--neighbour-addr): %w", err)
	}
	m.listen = l
	m.client = m.newClient(certificate)
	m.wg.Go(func() { m.serve(ctx, l, certificate) })
	m.wg.Go(func() { m.hear(ctx) })
	m.o.Fetcher.mu.Lock()
	m.o.Fetcher.neighbour = m.fetch
	m.o.Fetcher.mu.Unlock()
	return nil
}

// Apply implements site.Module.
func (m *Module) Apply(_ context.Context, body []byte, _ fleet.Facts) error {
	rules, err := delivery.DecodeSection(body)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.rules = rules
	known := map[fleet.SiteName]bool{}
	for _, n := range rules.Neighbours {
		known[n.Site] = true
	}
	maps.DeleteFunc(m.heard, func(s fleet.SiteName, _ bool) bool { return !known[s] })
	maps.DeleteFunc(m.missed, func(s fleet.SiteName, _ int) bool { return !known[s] })
	m.mu.Unlock()
	m.o.Fetcher.follow(rules)
	select {
	case m.rulesMoved <- struct{}{}:
	default:
	}
	m.host.Changed()
	return nil
}

// Report implements site.Module.
func (m *Module) Report() any {
	r := delivery.Report{}
	if m.listen != nil {
		r.Addresses = addresses(m.listen.Addr())
	}
	if rules, waiting := m.o.Fetcher.isWaiting(); waiting {
		r.Waiting = "downloads wait for their hours, " + rules.Describe()
	}
	if len(r.Addresses) == 0 && r.Waiting == "" {
		return nil
	}
	return r
}

// Hears implements site.Hearer.
func (m *Module) Hears() map[fleet.SiteName]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.heard)
}

// Stop implements site.Module.
func (m *Module) Stop(context.Context) error {
	m.cancel()
	m.wg.Wait()
	return nil
}

// hear listens for neighbours until ctx ends.
func (m *Module) hear(ctx context.Context) {
	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	for {
		var wg sync.WaitGroup
		for _, n := range m.neighbours() {
			if len(n.Addresses) > 0 {
				wg.Go(func() { m.note(n.Site, m.hello(ctx, n) == nil) })
			}
		}
		wg.Wait()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-m.rulesMoved:
		}
	}
}

// note keeps whether a neighbour answered. One is heard at its first answer, and not heard any more after some
// silences in a row: a packet may be lost.
func (m *Module) note(name fleet.SiteName, answered bool) {
	m.mu.Lock()
	if answered {
		m.missed[name] = 0
	} else {
		m.missed[name]++
	}
	was, known := m.heard[name]
	changed := answered && (!known || !was) || !answered && m.missed[name] >= misses && (!known || was)
	if changed {
		m.heard[name] = answered
	}
	m.mu.Unlock()
	if changed {
		m.host.Changed()
	}
}

func (m *Module) neighbours() []delivery.Neighbour {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rules.Neighbours
}

// addresses are where a listener is reached: itself, or when it listens on all, every address of this machine but
// those that no other machine reaches.
func addresses(a net.Addr) []string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return []string{a.String()}
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []string
	for _, one := range all {
		n, ok := one.(*net.IPNet)
		if ok && n.IP.IsGlobalUnicast() && len(out) < delivery.MaxAddresses {
			out = append(out, net.JoinHostPort(n.IP.String(), port))
		}
	}
	return out
}
