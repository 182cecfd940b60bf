package kube

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// etcdQuotaBytes is where etcd stops taking writes; see upkeep for what happens then. Skerry keeps little here
// (see the design); a store of this size means that something else writes.
const etcdQuotaBytes = 4 << 30

// slowRequest is how long etcd may take over a request before it says so.
const slowRequest = time.Second

// The one member. Its name and its peer address are part of the stored membership, so they are the same at
// every start; nothing listens at the address, since a single member has no peers.
const (
	etcdName  = "skerry"
	etcdToken = "etcd-cluster"
	etcdDir   = "etcd"
)

func etcdPeer() *url.URL { return &url.URL{Scheme: "http", Host: "127.0.0.1:2380"} }

// etcdServer is an embedded etcd of one member.
type etcdServer struct {
	etcd *embed.Etcd
	// endpoint and the files of a client that may use it.
	endpoint string
	ca       string
	client   pair
	log      *zapCore
}

// startEtcd starts etcd on a loopback port of its own choice. Other programs of this machine reach the
// port, so it asks for a client certificate of an authority that signs nothing else.
func startEtcd(ctx context.Context, dir string, certs pki, quota int64, log *slog.Logger) (*etcdServer, error) {
	ca, err := certs.authority("etcd-ca")
	if err != nil {
		return nil, err
	}
	server, err := certs.leaf("etcd", ca, pkix.Name{CommonName: "etcd"}, x509.ExtKeyUsageServerAuth, nil, []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	client, err := certs.leaf("etcd-client", ca, pkix.Name{CommonName: "apiserver"}, x509.ExtKeyUsageClientAuth, nil, nil)
	if err != nil {
		return nil, err
	}
	endpoint, err := freeEndpoint(ctx)
	if err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name = etcdName
	cfg.Dir = filepath.Join(dir, etcdDir)
	cfg.ListenPeerUrls = nil
	cfg.AdvertisePeerUrls = []url.URL{*etcdPeer()}
	cfg.InitialCluster = etcdName + "=" + etcdPeer().String()
	cfg.InitialClusterToken = etcdToken
	cfg.ListenClientUrls = []url.URL{*endpoint}
	cfg.AdvertiseClientUrls = []url.URL{*endpoint}
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: server.cert, KeyFile: server.key, TrustedCAFile: ca.certFile, ClientCertAuth: true, SkipClientSANVerify: true}
	cfg.QuotaBackendBytes = quota
	cfg.EnableGRPCGateway = false
	cfg.WarningUnaryRequestDuration = slowRequest
	core := newZapCore(log)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(core))
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	}
	s := &etcdServer{etcd: etcd, endpoint: endpoint.String(), ca: ca.certFile, client: client, log: core}
	select {
	case <-etcd.Server.ReadyNotify():
		if err := writeFile(filepath.Join(dir, endpointFile), []byte(s.endpoint)); err != nil {
			s.stop()
			return nil, err
		}
		return s, nil
	case err := <-etcd.Err():
		s.abort()
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	case <-ctx.Done():
		s.abort()
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, ctx.Err())
	}
}

// abort ends an etcd that never was ready: its Close would wait for servers that begin when it is.
func (s *etcdServer) abort() {
	s.etcd.Server.HardStop()
	s.stop()
}

// stop ends etcd after what is under way and releases its files.
func (s *etcdServer) stop() {
	s.log.mute()
	s.etcd.Close()
	<-s.etcd.Server.StopNotify()
}

// freeEndpoint finds a loopback port that is free now. Another program may take it before etcd does; the
// start then fails and says so.
func freeEndpoint(ctx context.Context) (*url.URL, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a free port for etcd: %w", err)
	}
	defer l.Close()
	return &url.URL{Scheme: "https", Host: l.Addr().String()}, nil
}
