package natsserver

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Defaults and fixed bounds of a server.
const (
	defaultMaxConnections = 20_000
	defaultMaxStore       = 8 << 30
	// maxMemory bounds what JetStream keeps in memory: the positions of the hub's few watches.
	maxMemory = 64 << 20
	// authTimeout is long: after a power cut all sites come back at once, to a machine that is busy.
	authTimeout = 30 * time.Second
	// pingEvery and maxPingsOut find a peer that is gone without a word: after three times this long.
	pingEvery   = 40 * time.Second
	maxPingsOut = 2
	// writeTimeout is after how long a connection that takes nothing is closed.
	writeTimeout = 10 * time.Second
	// ownConnections are those of this process beside MaxConnections.
	ownConnections = 64
	startTimeout   = 30 * time.Second
	// maxTTL bounds every credential, and so how long a revocation must be kept.
	maxTTL = 7 * 24 * time.Hour
)

// Options of a Server.
type Options struct {
	// Dir holds keys, revocations and streams. It is made, mode 0700, when it is not there.
	Dir string
	// Log is where NATS' own log goes, nearly all of it at debug.
	Log *slog.Logger
	// MaxConnections bounds the connections from outside; zero means 20,000.
	MaxConnections int
	// MaxStore bounds JetStream's files, in bytes; zero means 8 GiB.
	MaxStore int64
	// Listen is the address of a listener that speaks TLS from the first byte, for hubs with so many
	// sites that WebSockets cost too much; empty means none. TLS is needed with it.
	Listen string
	TLS    *tls.Config
	// Now is the hub's clock; nil means time.Now.
	Now func() time.Time
}

// Server is a running NATS server. It is safe for concurrent use.
type Server struct {
	issuer  *Issuer
	keys    keys
	nats    *server.Server
	revoked *revocations
	now     func() time.Time
	log     *slog.Logger
	gate    *Gate
	address net.Addr // of the TLS listener

	accountMu sync.Mutex // serializes applyAccount
	resolver  *server.MemAccResolver
	store     int64
}

// Start starts a server and returns when it answers.
func Start(o Options) (*Server, error) {
	s := &Server{now: o.Now, log: o.Log, resolver: &server.MemAccResolver{}, store: o.MaxStore}
	if s.now == nil {
		s.now = time.Now
	}
	if s.store == 0 {
		s.store = defaultMaxStore
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = defaultMaxConnections
	}
	if o.Listen != "" && o.TLS == nil {
		return nil, fmt.Errorf("bus: a listener on %s needs a TLS configuration", o.Listen)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the bus: %w", err)
	}
	if err := s.load(o.Dir); err != nil {
		return nil, err
	}
	if err := s.startNATS(o); err != nil {
		return nil, err
	}
	s.gate = NewGate(s.InProcessConn, o.MaxConnections, o.Log)
	if o.Listen != "" {
		l, err := net.Listen("tcp", o.Listen)
		if err != nil {
			s.Stop()
			return nil, fmt.Errorf("listen for the bus: %w", err)
		}
		s.address = l.Addr()
		s.gate.serveTLS(l, o.TLS)
	}
	return s, nil
}

func (s *Server) load(dir string) (err error) {
	if s.keys, err = loadKeys(dir); err != nil {
		return err
	}
	if s.revoked, err = loadRevocations(dir, maxTTL, s.now()); err != nil {
		return err
	}
	account, err := s.keys.account.PublicKey()
	if err != nil {
		return fmt.Errorf("key of the bus account: %w", err)
	}
	// Everybody comes through this process, so a stolen credential is of no use anywhere else.
	types := jwt.StringList{jwt.ConnectionTypeInProcess}
	s.issuer = &Issuer{account: account, signing: s.keys.signing, maxTTL: maxTTL, types: types}
	return nil
}

func (s *Server) startNATS(o Options) error {
	system, err := s.keys.system.PublicKey()
	if err != nil {
		return fmt.Errorf("key of the bus's system account: %w", err)
	}
	operator, err := s.operatorClaims(system)
	if err != nil {
		return err
	}
	if err := s.storeSystemAccount(system); err != nil {
		return err
	}
	account, err := s.accountClaims()
	if err != nil {
		return err
	}
	if err := s.storeAccount(account); err != nil {
		return err
	}
	options := &server.Options{
		ServerName:             "skerry-hub",
		DontListen:             true,
		NoSigs:                 true,
		MaxConn:                o.MaxConnections + ownConnections,
		MaxPayload:             wire.MaxMessage + maxHeaders,
		AuthTimeout:            authTimeout.Seconds(),
		PingInterval:           pingEvery,
		MaxPingsOut:            maxPingsOut,
		WriteDeadline:          writeTimeout,
		JetStream:              true,
		StoreDir:               filepath.Join(o.Dir, "streams"),
		SyncAlways:             true, // an acknowledged message survives a power cut
		JetStreamMaxMemory:     maxMemory,
		JetStreamMaxStore:      s.store,
		DisableJetStreamBanner: true,
		TrustedOperators:       []*jwt.OperatorClaims{operator},
		SystemAccount:          system,
		AccountResolver:        s.resolver,
	}
	s.nats, err = server.NewServer(options)
	if err != nil {
		return fmt.Errorf("set up NATS: %w", err)
	}
	log := &logger{to: o.Log}
	s.nats.SetLoggerV2(log, o.Log.Enabled(context.Background(), levelDetail), false, false)
	s.nats.Start()
	if !s.nats.ReadyForConnections(startTimeout) || !s.nats.JetStreamEnabled() {
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
		why := "its log says more"
		if last := log.fatal.Load(); last != nil {
			why = *last
		}
		return fmt.Errorf("start NATS in %s: not ready: %s", o.Dir, why)
	}
	return nil
}

// Stop closes all connections, writes what JetStream holds, and returns when every goroutine has ended.
func (s *Server) Stop() {
	if s.gate != nil {
		s.gate.Stop()
	}
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// InProcessConn returns a new connection to the server that speaks NATS' protocol without TLS.
func (s *Server) InProcessConn() (net.Conn, error) {
	conn, err := s.nats.InProcessConn()
	if err != nil {
		return nil, fmt.Errorf("connect to the bus in-process: %w", err)
	}
	return conn, nil
}

// TLSAddr is the address of the TLS listener, nil when there is none.
func (s *Server) TLSAddr() net.Addr { return s.address }

// Connections returns how many connections from outside there are now, and how many may be.
func (s *Server) Connections() (now, limit int) { return s.gate.Connections() }

// OnTransport is Gate.OnTransport for what this server issued.
func (s *Server) OnTransport(fn TransportFunc) error { return s.gate.OnTransport(s.issuer, fn) }

// WebSocketHandler is Gate.WebSocketHandler.
func (s *Server) WebSocketHandler() http.Handler { return s.gate.WebSocketHandler() }

// CanRevoke reports that Revoke takes effect at once.
func (s *Server) CanRevoke() bool { return true }

// IssueMember is Issuer.IssueMember; it refuses a revoked key with an error that wraps ErrRevoked.
func (s *Server) IssueMember(site fleet.SiteName, member fleet.MemberID, key ed25519.PublicKey, ttl time.Duration, now time.Time) (credential string, notBefore, expires time.Time, err error) {
	if user, err := userKey(key); err == nil && s.revoked.has(user) {
		return "", time.Time{}, time.Time{}, fmt.Errorf("bus credential of site %q, member %q: %w", site, member, ErrRevoked)
	}
	return s.issuer.IssueMember(site, member, key, ttl, now)
}

// IssueHub is Issuer.IssueHub.
func (s *Server) IssueHub() (credential string, sign func(nonce []byte) ([]byte, error), err error) {
	return s.issuer.IssueHub()
}
