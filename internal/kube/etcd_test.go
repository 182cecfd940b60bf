package kube

import (
	"context"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// TestEtcdThatIsNeverReady ends an etcd that waits for another member in vain. Its own Close would wait as well, for
// servers that begin when it is ready; a hub whose store cannot start must say so and not hang.
func TestEtcdThatIsNeverReady(t *testing.T) {
	listen, err := freeEndpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listen.Scheme = "http"
	core := newZapCore(slog.New(slog.DiscardHandler))
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "a", t.TempDir()
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = nil, []url.URL{{Scheme: "http", Host: "127.0.0.1:1"}}
	cfg.InitialCluster = "a=http://127.0.0.1:1,b=http://127.0.0.1:2"
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*listen}, []url.URL{*listen}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(core))
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&etcdServer{etcd: etcd, log: core}).abort()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		t.Fatal("it still runs a minute after it was ended")
	}
}
