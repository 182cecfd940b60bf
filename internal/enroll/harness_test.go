package enroll_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/enroll/enrollhub"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/natsserver"
	"github.com/skerry-dev/skerry/internal/wire"
)

// patience is how long an event may take before a test fails.
const patience = 20 * time.Second

// clock is a hub's.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

// testHub is a hub's port with enrolment and a real bus.
type testHub struct {
	*enrollhub.Desk
	clock     *clock
	authority *enrollhub.Authority
	gateways  *enrollhub.GatewayAuthority
	records   *records
	bus       *natsserver.Server
	addr      string
	log       *logBuffer
}

// logBuffer keeps what was logged, to look for what must not be.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// pathWhoAmI answers with the member whose certificate made the request.
const pathWhoAmI = "/whoami"

func startHub(t testing.TB) *testHub { return startHubAt(t, 0) }

// startHubAt starts a hub whose clock is off from this machine's.
func startHubAt(t testing.TB, off time.Duration) *testHub {
	t.Helper()
	h := &testHub{clock: &clock{off: off}, records: newRecords("shop-1", "shop-2", "shop-3", "shop-4", "shop-5"), log: &logBuffer{}}
	var err error
	h.authority, err = enrollhub.OpenAuthority(t.TempDir(), h.clock.now)
	must(t, err)
	h.gateways, err = enrollhub.OpenGatewayAuthority(t.TempDir(), h.clock.now)
	must(t, err)
	h.bus, err = natsserver.Start(natsserver.Options{Dir: t.TempDir(), Log: h.log.logger()})
	must(t, err)
	t.Cleanup(h.bus.Stop)
	h.Desk, err = enrollhub.NewDesk(enrollhub.Options{
		Issuer: h.bus, Authority: h.authority, Gateways: h.gateways, Members: h.records, Tokens: h.records, Log: h.log.logger(), Now: h.clock.now,
	})
	must(t, err)
	mux := http.NewServeMux()
	h.Register(mux)
	mux.Handle(wire.PathBus, h.bus.WebSocketHandler())
	mux.HandleFunc(pathWhoAmI, func(w http.ResponseWriter, r *http.Request) {
		site, member, err := h.Member(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "%s/%s", site, member)
	})
	h.addr = serve(t, h.authority.NewServing("127.0.0.1").TLSConfig(), mux)
	return h
}

// serve returns the address of a server that ends with the test.
func serve(t testing.TB, config *tls.Config, handler http.Handler) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	must(t, err)
	server := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

func (h *testHub) url() string { return "https://" + h.addr }

func (h *testHub) token(t testing.TB, site fleet.SiteName) enroll.Token {
	t.Helper()
	token, err := h.NewToken(t.Context(), site, "", []string{h.url()}, time.Hour)
	must(t, err)
	return token
}

func siteOptions(t testing.TB) enrollsite.Options {
	return enrollsite.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Version: "test"}
}

func (h *testHub) join(t testing.TB, site fleet.SiteName) *enrollsite.Identity {
	t.Helper()
	id, err := enrollsite.Join(t.Context(), siteOptions(t), h.token(t, site))
	must(t, err)
	return id
}

// whoAmI asks the hub with the member's certificate.
func whoAmI(t testing.TB, id *enrollsite.Identity) (status int, body string) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: id.TLSConfig()}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(id.HubURLs()[0] + pathWhoAmI)
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(b)
}

func wantKnown(t testing.TB, id *enrollsite.Identity) {
	t.Helper()
	want := string(id.Site()) + "/" + string(id.Member())
	if status, body := whoAmI(t, id); status != http.StatusOK || body != want {
		t.Errorf("the hub sees %d %s, want %s", status, body, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// records keeps members and tokens in memory, with the same optimistic concurrency as the Kubernetes API.
type records struct {
	mu      sync.Mutex
	sites   map[fleet.SiteName][]enrollhub.Member
	tokens  map[string]enrollhub.TokenRecord
	bound   map[fleet.SiteName]string
	version int
}

var (
	_ enrollhub.Members = (*records)(nil)
	_ enrollhub.Tokens  = (*records)(nil)
)

func newRecords(sites ...fleet.SiteName) *records {
	r := &records{sites: map[fleet.SiteName][]enrollhub.Member{}, tokens: map[string]enrollhub.TokenRecord{}, bound: map[fleet.SiteName]string{}}
	for _, s := range sites {
		r.sites[s] = nil
	}
	return r
}

func (r *records) Member(_ context.Context, site fleet.SiteName, id fleet.MemberID) (enrollhub.Member, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.sites[site] {
		if m.ID == id {
			return m, nil
		}
	}
	return enrollhub.Member{}, enrollhub.ErrUnknown
}

func (r *records) Admit(_ context.Context, m enrollhub.Member) ([]enrollhub.Member, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	members, ok := r.sites[m.Site]
	if !ok {
		return nil, enrollhub.ErrUnknown
	}
	if want := r.bound[m.Site]; want != "" && want != m.Fingerprint {
		return nil, enrollhub.ErrHardware
	}
	var replaced []enrollhub.Member
	for i := range members {
		switch {
		case members[i].ID == m.ID:
			return nil, nil
		case !members[i].Revoked:
			members[i].Revoked = true
			replaced = append(replaced, members[i])
		}
	}
	r.sites[m.Site] = append(members, m)
	return replaced, nil
}

func (r *records) Seat(_ context.Context, site fleet.SiteName) (enrollhub.Seat, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.sites[site]; !ok {
		return enrollhub.Seat{}, enrollhub.ErrUnknown
	}
	return enrollhub.Seat{Fingerprint: r.bound[site]}, nil
}

func (r *records) Token(_ context.Context, id string) (enrollhub.TokenRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.tokens[id]
	if !ok {
		return t, enrollhub.ErrUnknown
	}
	t.UsedBy = slices.Clone(t.UsedBy)
	return t, nil
}

func (r *records) Create(_ context.Context, t enrollhub.TokenRecord) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version++
	t.Version = strconv.Itoa(r.version)
	r.tokens[t.ID] = t
	return nil
}

func (r *records) Use(_ context.Context, t enrollhub.TokenRecord) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tokens[t.ID].Version != t.Version {
		return enrollhub.ErrChanged
	}
	r.version++
	t.Version = strconv.Itoa(r.version)
	r.tokens[t.ID] = t
	return nil
}

func (r *records) Sweep(_ context.Context, before time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, t := range r.tokens {
		if t.Expires.Before(before) {
			delete(r.tokens, id)
		}
	}
	return nil
}

// revoke does what a person does to a Site, and what the hub then does.
func (h *testHub) revoke(t testing.TB, id *enrollsite.Identity) {
	t.Helper()
	h.records.mu.Lock()
	var gone enrollhub.Member
	for i, m := range h.records.sites[id.Site()] {
		if m.ID == id.Member() {
			h.records.sites[id.Site()][i].Revoked = true
			gone = m
		}
	}
	h.records.mu.Unlock()
	must(t, h.Revoke(gone))
}
