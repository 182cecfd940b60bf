package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/kube"
	"github.com/skerry-dev/skerry/internal/telemetry"
)

// apiParts are the Kubernetes API that a hub uses, embedded or not.
type apiParts struct {
	config  *rest.Config
	ready   func(context.Context) error
	check   telemetry.Check
	metrics prometheus.Gatherer
	stopped <-chan struct{}
	err     func() error
	close   func()
}

// reaches is the address at which the API server reaches the hub's port: an embedded one on this machine, an
// existing one as everybody else does. Empty when it cannot, since loopback means another machine there.
func (a *apiParts) reaches(publicURL string, port net.Addr) string {
	server, err := url.Parse(a.config.Host)
	if err != nil {
		return ""
	}
	listens, ok := port.(*net.TCPAddr)
	near := net.ParseIP(server.Hostname()).IsLoopback() // and so for every embedded one
	switch {
	case !near && publicURL != "":
		return publicURL
	case !ok || !near && listens.IP.IsLoopback():
		return ""
	case listens.IP.IsUnspecified():
		return "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(listens.Port))
	}
	return "https://" + listens.String()
}

func openAPI(ctx context.Context, o hubOptions, ports *dirs.Ports, metrics prometheus.Registerer) (*apiParts, error) {
	if o.inCluster {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("--in-cluster: this is no pod with a service account: %w", err)
		}
		return existingAPI(config)
	}
	if o.kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("read --kubeconfig: %w", err)
		}
		return existingAPI(config)
	}
	l, err := ports.Listen("kubernetes", o.kubeAddr, o.kubeExact)
	if err != nil {
		return nil, err
	}
	options := kube.Options{Dir: filepath.Join(o.dataDir, dirs.Kubernetes), Listener: l, Identity: o.identity, Log: o.log}
	for _, name := range o.names {
		if ip := net.ParseIP(name); ip != nil {
			options.IPs = append(options.IPs, ip)
		} else {
			options.Names = append(options.Names, name)
		}
	}
	server, err := kube.Start(ctx, options)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ends, err := server.CertificateEnds()
	if err == nil {
		err = metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "skerry_certificate_expires_timestamp_seconds", Help: "When a certificate ends, in seconds since 1970.",
			ConstLabels: prometheus.Labels{"certificate": "kubernetes-api"},
		}, func() float64 { return float64(ends.Unix()) }))
	}
	if err != nil {
		server.Stop()
		return nil, err
	}
	ready := func(ctx context.Context) error {
		if err := server.WaitReady(ctx); err != nil {
			return err
		}
		return server.WriteKubeconfig(filepath.Join(o.dataDir, "kubeconfig"))
	}
	return &apiParts{config: server.Config(), ready: ready, check: server.WaitReady, metrics: telemetry.Join(kube.Metrics()...), stopped: server.Stopped(), err: server.Err, close: server.Stop}, nil
}

// existingAPI uses a cluster that is there: it starts nothing and stops nothing.
func existingAPI(config *rest.Config) (*apiParts, error) {
	config.QPS = -1
	check := func(ctx context.Context) error {
		client, err := rest.HTTPClientFor(config)
		if err != nil {
			return fmt.Errorf("client of the Kubernetes API: %w", err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("the Kubernetes API at %s does not answer: %w", config.Host, err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("the Kubernetes API at %s is not ready: %s", config.Host, res.Status)
		}
		return nil
	}
	return &apiParts{config: config, ready: check, check: check, metrics: prometheus.Gatherers{}, stopped: make(chan struct{}), err: func() error { return nil }, close: func() {}}, nil
}
