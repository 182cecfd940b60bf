package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/wire"
)

// kind says how a site is made.
type kind string

// The kinds of sites.
const (
	// light sites have their stores in one shared file and connect to NATS' own port.
	light kind = "light"
	// full sites have a store of their own on the disk, which is synced, as every real site's is.
	full kind = "full"
	// webSocket sites are light ones that connect through the hub's one port.
	webSocket kind = "webSocket"
)

// member is one site of a client process.
type member struct {
	name  string
	kind  kind
	token string
	from  net.IP
	c     *client
	times *times
}

// joinTries bounds how often a hub that is busy is asked again.
const joinTries = 60

// run joins and runs the agent until ctx ends.
func (m *member) run(ctx context.Context) error {
	dir, log := filepath.Join(m.c.config.Dir, m.name), m.c.log.With("site", m.name)
	identity, err := m.join(ctx, dir, log)
	if err != nil {
		return err
	}
	db, err := m.openStore()
	if err != nil {
		return err
	}
	defer db.Close()
	links := make(chan fleet.Link, 1)
	bus, err := m.connect(ctx, identity, log, links)
	if err != nil {
		return err
	}
	defer bus.Close()
	seen := &watched{Bus: bus, times: m.times, site: identity.Site(), log: log}
	agent, err := site.New(site.Options{
		Site: identity.Site(), Member: identity.Member(), Dir: dir, Store: db, Bus: seen, Fetcher: noContent{},
		Gateway: func(*site.Host) (site.Gateway, error) { return noGateway{}, nil },
		Modules: []site.Maker{
			{Name: enroll.SectionName, New: func(h *site.Host) (site.Module, error) { return enrollsite.NewModule(h, identity), nil }},
			{Name: "apps", New: func(h *site.Host) (site.Module, error) {
				seen.apps = &apps{host: h}
				return seen.apps, nil
			}},
		},
		Version: version, Log: log, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		identity.Run(ctx, func(r *enrollsite.RefusedError) { m.times.fail(r) })
	}()
	relayed := make(chan struct{})
	go func() {
		defer close(relayed)
		for {
			select {
			case <-ctx.Done():
				return
			case link := <-links:
				agent.SetLink(link)
			}
		}
	}()
	err = agent.Run(ctx)
	<-ended
	<-relayed
	return err
}

// version is what light sites call themselves.
const version = "scale"

// direct goes through no proxy, whatever the environment says.
func direct(*url.URL) (*url.URL, error) { return nil, nil }

func (m *member) join(ctx context.Context, dir string, log *slog.Logger) (*enrollsite.Identity, error) {
	token, err := enroll.ParseToken(m.token)
	if err != nil {
		return nil, err
	}
	o := enrollsite.Options{
		Dir: dir, Hardware: site.ReadHardware(), Version: version, Proxy: direct, Dial: m.dialer().DialContext, Log: log,
	}
	for try := 1; ; try++ {
		if err := m.c.joins.Wait(ctx); err != nil {
			return nil, err
		}
		m.times.change(func(s *siteTimes) {
			if s.Begun.IsZero() {
				s.Begun = time.Now()
			}
		})
		identity, err := enrollsite.Join(ctx, o, token)
		var refused *enrollsite.RefusedError
		switch {
		case err == nil:
			m.times.change(func(s *siteTimes) { s.Joined = time.Now() })
			return identity, nil
		case ctx.Err() != nil, errors.As(err, &refused) && refused.Final(), try == joinTries:
			return nil, err
		}
		m.c.refusals.Add(1)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second + rand.N(time.Second)):
		}
	}
}

func (m *member) dialer() *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: m.from}}
}

func (m *member) openStore() (*store.Store, error) {
	if m.kind == full {
		return store.Open(filepath.Join(m.c.config.DiskDir, m.name, "store.db"))
	}
	return m.c.shared.Store(m.name), nil
}

func (m *member) connect(ctx context.Context, identity *enrollsite.Identity, log *slog.Logger, links chan fleet.Link) (*natsbus.Client, error) {
	urls := identity.BusURLs()
	if m.kind == webSocket {
		urls = nil
		for _, raw := range identity.HubURLs() {
			u, err := url.Parse(raw)
			if err != nil {
				return nil, fmt.Errorf("address of the hub: %w", err)
			}
			u.Scheme = "wss"
			urls = append(urls, u.JoinPath(wire.PathBus).String())
		}
	}
	return natsbus.Connect(ctx, natsbus.Options{
		URLs: urls, TLS: identity.TLSConfig(), Credentials: identity.Credentials, Sign: identity.Sign,
		InboxPrefix: wire.InboxPrefix(identity.Site(), identity.Member()), Name: string(identity.Site()), Proxy: direct,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := m.dialer().DialContext(ctx, network, address)
			if tcp, ok := conn.(*net.TCPConn); ok {
				m.times.opened(tcp)
			}
			return conn, err
		},
		Log: log,
		OnLink: func(connected bool, err error) {
			if errors.Is(err, wire.ErrForbidden) {
				identity.RenewSoon()
			}
			m.times.link(connected)
			link := fleet.LinkAway
			if connected {
				link = fleet.LinkConnected
			}
			newest(links, link)
		},
	})
}

// newest puts v into c, in place of what nobody took yet. One goroutine at a time may do so.
func newest(c chan fleet.Link, v fleet.Link) {
	select {
	case <-c:
	default:
	}
	c <- v
}
