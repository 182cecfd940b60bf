// Package agent puts a site's agent together: identity, bus, store, gateway, and the list of features that
// a box has. Both programs use it; only they import it.
package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/process"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/app/tasksite"
	"github.com/skerry-dev/skerry/internal/app/wasm"
	"github.com/skerry-dev/skerry/internal/delivery"
	"github.com/skerry-dev/skerry/internal/delivery/deliverysite"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	httpgateway "github.com/skerry-dev/skerry/internal/gateway/http"
	"github.com/skerry-dev/skerry/internal/natsbus"
	"github.com/skerry-dev/skerry/internal/secret"
	"github.com/skerry-dev/skerry/internal/secret/secretsite"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/site/sitetime"
	"github.com/skerry-dev/skerry/internal/sitecli"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/telemetry"
	"github.com/skerry-dev/skerry/internal/upkeep"
	"github.com/skerry-dev/skerry/internal/upkeep/supervise"
	"github.com/skerry-dev/skerry/internal/upkeep/upkeepsite"
	"github.com/skerry-dev/skerry/internal/wire"
)

// parts are what features are made of, beside the identity.
type parts struct {
	// processes and schedules are parts of the store: what runs, and what wasm schedules ran when.
	processes     *store.Bucket
	schedules     *store.Bucket
	clock         *sitetime.Clock
	fetcher       *deliverysite.Fetcher
	neighbourAddr string
	upgrade       upkeepsite.Options
}

// features are the site's halves, in the order of their start: secrets are there before the apps that come
// back with them. A new capability is one line here.
func features(identity *enrollsite.Identity, p parts) []site.Maker {
	var secrets *secretsite.Module
	var apps *appsite.Module
	return []site.Maker{
		{Name: enroll.SectionName, New: func(h *site.Host) (site.Module, error) { return enrollsite.NewModule(h, identity), nil }},
		{Name: upkeep.SectionName, New: func(h *site.Host) (site.Module, error) { return upkeepsite.New(h, p.upgrade), nil }},
		{Name: delivery.SectionName, New: func(h *site.Host) (site.Module, error) {
			return deliverysite.New(h, deliverysite.Options{Key: identity.Key(), Listen: p.neighbourAddr, Fetcher: p.fetcher}), nil
		}},
		{Name: secret.SectionName, New: func(h *site.Host) (site.Module, error) {
			secrets = secretsite.New(h, identity.Member(), identity.SealKey())
			return secrets, nil
		}},
		{Name: app.SectionName, New: func(h *site.Host) (site.Module, error) {
			programs, err := process.New(process.Options{Log: h.Log.With("runtime", app.RuntimeProcess), StateDir: h.Dir, Bucket: p.processes})
			if err != nil {
				return nil, err
			}
			modules, err := wasm.New(wasm.Options{
				Log: h.Log.With("runtime", app.RuntimeWasm), Metrics: h.Metrics, CacheDir: filepath.Join(h.Dir, "compiled"),
				Clock: p.clock.Now, Schedules: p.schedules,
			})
			if err != nil {
				return nil, err
			}
			apps = appsite.NewWith(h, appsite.Options{Secrets: secrets}, programs, modules)
			return apps, nil
		}},
		{Name: task.SectionName, New: func(h *site.Host) (site.Module, error) {
			return tasksite.New(h, apps, tasksite.Options{Clock: p.clock.Now}), nil
		}},
	}
}

// openParts opens what features keep beside what each is given.
func openParts(db *store.Store, identity *enrollsite.Identity, log *slog.Logger) (p parts, err error) {
	if p.processes, err = db.Bucket("runtime/" + app.RuntimeProcess); err != nil {
		return p, err
	}
	if p.schedules, err = db.Bucket("schedules/" + app.RuntimeWasm); err != nil {
		return p, err
	}
	anchor, err := db.Bucket("time")
	if err != nil {
		return p, err
	}
	p.clock, err = sitetime.Open(anchor, identity.HubTime, sitetime.Linux{}, log)
	return p, err
}

// Run runs an agent until ctx ends. It joins first when the machine never did.
func Run(ctx context.Context, version string, logTo io.Writer, o sitecli.RunOptions) error {
	log, err := newLog(logTo, o)
	if err != nil {
		return err
	}
	if err := dirs.Make(o.DataDir); err != nil {
		return err
	}
	// The store's lock comes first: it makes sure that no other agent has this directory.
	db, losses, err := store.OpenMended(filepath.Join(o.DataDir, "store.db"))
	if err != nil {
		return err
	}
	if losses.SetAside != "" || len(losses.Records) > 0 {
		log.Error("this site's store was damaged: what is lost is fetched from the hub again; look at the disk", "records", losses.Records, "damaged file", losses.SetAside)
	}
	defer db.Close()
	serving, names, err := servingNames(o, log)
	if err != nil {
		return err
	}
	identity, err := identify(ctx, log, o, enrollsite.Options{
		Dir: o.DataDir, Hardware: hardware(log), Version: version, Log: log.With("component", "identity"),
		Serving: serving, ServingNames: names,
	})
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil // asked to stop while it waited for approval
	}
	if err != nil {
		return err
	}
	var servingTLS *tls.Config // nil: the gateway has files, or needs none
	if serving {
		servingTLS = identity.ServingTLS()
	}
	return run(ctx, version, log, o, db, identity, servingTLS)
}

// Join makes this machine a member of its site, unless it is one already, and starts nothing.
func Join(ctx context.Context, version string, logTo io.Writer, o sitecli.RunOptions) error {
	log, err := newLog(logTo, o)
	if err != nil {
		return err
	}
	if err := dirs.Make(o.DataDir); err != nil {
		return err
	}
	db, _, err := store.OpenMended(filepath.Join(o.DataDir, "store.db"))
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("the agent of %s runs: stop it first: %w", o.DataDir, err)
	}
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = identify(ctx, log, o, enrollsite.Options{
		Dir: o.DataDir, Hardware: hardware(log), Version: version, Log: log.With("component", "identity"),
	})
	return err
}

// hardware describes this machine and tells it from others.
func hardware(log *slog.Logger) fleet.Hardware {
	hw := site.ReadHardware()
	fingerprint, _, err := site.Fingerprint(os.DirFS("/"))
	if err != nil {
		log.Warn("this machine joins without a fingerprint: no site that is bound to one takes it", "error", err)
	}
	hw.Fingerprint = fingerprint
	return hw
}

func newLog(w io.Writer, o sitecli.RunOptions) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", o.LogLevel)
	}
	return telemetry.NewLogger(w, o.LogFormat, level)
}

// identify reads who this member is, or joins with the token. A token beside an identity that the hub still
// takes is not used: a machine that is started twice by the same command joins once.
func identify(ctx context.Context, log *slog.Logger, o sitecli.RunOptions, options enrollsite.Options) (*enrollsite.Identity, error) {
	options.ExtraCA = []byte(o.CA)
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read --ca-file: %w", err)
		}
		options.ExtraCA = append(append(options.ExtraCA, '\n'), pem...)
	}
	var err error
	if options.Proxy, err = proxy(o); err != nil {
		return nil, err
	}
	identity, err := enrollsite.Open(options)
	if err == nil && (o.Join == "" || !refused(ctx, identity)) {
		return identity, nil
	}
	if err != nil && errors.Is(err, enrollsite.ErrNotJoined) && o.Claim != "" {
		return claim(ctx, log, o, options)
	}
	if err != nil && (!errors.Is(err, enrollsite.ErrNotJoined) || o.Join == "") {
		return nil, err
	}
	token, err := enroll.ParseToken(o.Join)
	if err != nil {
		return nil, err
	}
	identity, err = enrollsite.Join(ctx, options, token)
	if err != nil {
		return nil, err
	}
	log.Info("joined", "site", identity.Site(), "member", identity.Member())
	joined(log, o)
	return identity, nil
}

func joined(log *slog.Logger, o sitecli.RunOptions) {
	if o.Joined != nil {
		o.Joined(log)
	}
}

// Joined reports whether a data directory is that of a machine that has joined.
func Joined(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, enrollsite.IdentityFile))
	return err == nil
}

// proxy returns which proxy leads to the hub; nil when the environment decides.
func proxy(o sitecli.RunOptions) (func(*url.URL) (*url.URL, error), error) {
	if o.Proxy == "" {
		return nil, nil
	}
	u, err := url.Parse(o.Proxy)
	if err != nil {
		return nil, errors.New("--proxy: it is no URL") // which may hold a password
	}
	return func(*url.URL) (*url.URL, error) { return u, nil }, nil
}

// claim waits until a person says which site this machine is.
func claim(ctx context.Context, log *slog.Logger, o sitecli.RunOptions, options enrollsite.Options) (*enrollsite.Identity, error) {
	code, err := enroll.ParseClaimCode(o.Claim)
	if err != nil {
		return nil, err
	}
	identity, err := enrollsite.Claim(ctx, options, code)
	if err != nil {
		return nil, err
	}
	log.Info("joined", "site", identity.Site(), "member", identity.Member(), "by", code)
	joined(log, o)
	return identity, nil
}

// refusedTimeout bounds the question whether the hub still wants an identity, when a token is at hand too.
const refusedTimeout = 10 * time.Second

// refused reports whether the hub has done with a member for good: it was revoked or replaced, and a new
// token is how the machine comes back. A hub that does not answer refuses nothing.
func refused(ctx context.Context, identity *enrollsite.Identity) bool {
	ctx, cancel := context.WithTimeout(ctx, refusedTimeout)
	defer cancel()
	var refusal *enrollsite.RefusedError
	return errors.As(identity.Renew(ctx), &refusal) && (refusal.Reason == wire.RefusedRevoked || refusal.Reason == wire.RefusedUnknown)
}

func run(ctx context.Context, version string, log *slog.Logger, o sitecli.RunOptions, db *store.Store, identity *enrollsite.Identity, servingTLS *tls.Config) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	metrics := telemetry.NewRegistry()
	links := &linkRelay{}
	viaProxy, err := proxy(o)
	if err != nil {
		return err
	}
	bus, err := natsbus.Connect(ctx, natsbus.Options{
		URLs: identity.BusURLs(), Newest: identity.BusURLs, TLS: identity.TLSConfig(), Credentials: identity.Credentials, Sign: identity.Sign,
		InboxPrefix: wire.InboxPrefix(identity.Site(), identity.Member()), Name: string(identity.Site()), Proxy: viaProxy,
		Log: log.With("component", "bus"),
		OnLink: func(connected bool, err error) {
			if errors.Is(err, wire.ErrForbidden) {
				identity.RenewSoon()
			}
			links.set(connected)
		},
	})
	if err != nil {
		return err
	}
	defer bus.Close()
	parts, err := openParts(db, identity, log)
	if err != nil {
		return err
	}
	fetcher := deliverysite.NewFetcher(site.NewHTTPFetcher(hubClient(identity.TLSConfig(), identity.Leaf, viaProxy), identity.HubURLs), func() time.Time {
		now, known := parts.clock.Now()
		if !known {
			return time.Time{}
		}
		return now
	})
	var restarts atomic.Bool // another agent follows this one at once
	parts.fetcher, parts.neighbourAddr = fetcher, o.NeighbourAddr
	parts.upgrade = upkeepsite.Options{
		DataDir: o.DataDir, Version: version, Supervised: os.Getenv(supervise.Env) != "",
		Switch: func() { restarts.Store(true); cancel(nil) },
	}
	agent, err := site.New(site.Options{
		Site: identity.Site(), Member: identity.Member(), Dir: o.DataDir, Store: db, Bus: bus,
		Fetcher: fetcher,
		Gateway: func(h *site.Host) (site.Gateway, error) { return gateway(h, o, servingTLS) },
		Modules: features(identity, parts),
		Version: version, Log: log, Metrics: metrics, Forget: identity.Forget,
		Leaving: func() fleet.Leaving {
			if restarts.Load() {
				return fleet.LeavingRestart
			}
			return leaving()
		},
	})
	if err != nil {
		return err
	}
	links.to(agent)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		identity.Run(ctx, func(refused *enrollsite.RefusedError) {
			log.Error("the hub refuses this member: its apps go on, but it hears of nothing new", "reason", refused.Reason, "error", refused)
		})
	})
	if err := serveAdmin(ctx, &wg, o, metrics, log); err != nil {
		return err
	}
	return agent.Run(ctx)
}

func gateway(h *site.Host, o sitecli.RunOptions, servingTLS *tls.Config) (site.Gateway, error) {
	return httpgateway.New(httpgateway.Options{
		Log: h.Log, Metrics: h.Metrics, Address: o.GatewayAddr, NextPort: !o.GatewayExact,
		TLS: servingTLS, CertFile: o.TLSCert, KeyFile: o.TLSKey,
	})
}

func serveAdmin(ctx context.Context, wg *sync.WaitGroup, o sitecli.RunOptions, metrics *prometheus.Registry, log *slog.Logger) error {
	if o.AdminAddr == "" {
		return nil
	}
	l, err := telemetry.Listen(ctx, o.AdminAddr)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.DataDir, "admin.addr"), []byte(l.Addr().String()), 0o600); err != nil {
		log.Error("nobody can look up the administration address", "address", l.Addr().String(), "error", err) // the disk may be full
	}
	wg.Go(func() {
		if err := telemetry.Serve(ctx, l, telemetry.Handler(map[string]prometheus.Gatherer{"/metrics": metrics}, nil)); err != nil {
			log.Error("administration port failed", "error", err)
		}
	})
	return nil
}

// linkRelay passes the state of the link on to the agent, which is made after the bus.
type linkRelay struct {
	mu    sync.Mutex
	agent *site.Agent
	link  fleet.Link
}

func (r *linkRelay) set(connected bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.link = fleet.LinkAway
	if connected {
		r.link = fleet.LinkConnected
	}
	if r.agent != nil {
		r.agent.SetLink(r.link)
	}
}

func (r *linkRelay) to(agent *site.Agent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agent = agent
	if r.link != "" {
		agent.SetLink(r.link)
	}
}
