package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Options say how to run the API server.
type Options struct {
	// Dir keeps everything; made when there is none.
	Dir string
	// Listener on which the API answers; the Server owns it.
	Listener net.Listener
	// Names and IPs by which others than this machine reach the API, for its certificate.
	Names []string
	IPs   []net.IP
	// Identity is how people are known beside certificates and service accounts.
	Identity Identity
	// Log takes what etcd says; its Info is Debug here. Kubernetes logs through klog, whose logger is one for
	// the process and set by main, once.
	Log *slog.Logger
	// Now is the clock of certificates; nil means time.Now.
	Now func() time.Time
}

// Server is a running API server.
type Server struct {
	config *rest.Config
	// ClientCA is the file of the authority that signs the certificates of people.
	ClientCA string

	ctx     context.Context // of what runs until Stop
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	etcd    *etcdServer
	mu      sync.Mutex
	err     error
	stopped chan struct{}
}

// adminGroup may do everything (Kubernetes' own built-in group).
const adminGroup = "system:masters"

// Start starts etcd and the API server and returns before the API is ready. ctx bounds the start alone.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the API server: %w", err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	certs := pki{dir: KeysDir(o.Dir), now: o.Now}
	cluster, err := certs.authority("ca")
	if err != nil {
		return nil, err
	}
	proxy, err := certs.authority("front-proxy-ca")
	if err != nil {
		return nil, err
	}
	etcd, err := startEtcd(ctx, o.Dir, certs, etcdQuotaBytes, o.Log)
	if err != nil {
		return nil, err
	}
	care, err := newUpkeep(ctx, o.Dir, o.Log)
	if err != nil {
		etcd.stop()
		return nil, err
	}
	// Before anybody uses it, so that nobody waits for it.
	care.once(ctx, maxTidyAtStart)
	s, err := startAPI(o, etcd, certs, authorities{cluster: cluster, proxy: proxy})
	if err != nil {
		care.close()
		etcd.stop()
		return nil, err
	}
	s.wg.Go(func() { care.run(s.ctx) })
	return s, nil
}

func startAPI(o Options, etcd *etcdServer, certs pki, auths authorities) (*Server, error) {
	opts, err := serverOptions(o, etcd, certs, auths, o.Listener)
	if err != nil {
		return nil, err
	}
	admin, err := certs.leaf("admin", auths.cluster, pkix.Name{CommonName: "skerry-admin", Organization: []string{adminGroup}}, x509.ExtKeyUsageClientAuth, nil, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	aggregator, err := newAggregator(ctx, opts)
	if err != nil {
		cancel()
		return nil, err
	}
	prepared, err := aggregator.PrepareRun()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("prepare the API server: %w", err)
	}
	s := &Server{ctx: ctx, cancel: cancel, etcd: etcd, stopped: make(chan struct{}), ClientCA: auths.cluster.certFile}
	_, port, err := net.SplitHostPort(o.Listener.Addr().String())
	if err != nil {
		cancel()
		return nil, fmt.Errorf("address of the API server: %w", err)
	}
	s.config = &rest.Config{
		Host: "https://127.0.0.1:" + port,
		TLSClientConfig: rest.TLSClientConfig{
			CAFile: auths.cluster.certFile, CertFile: admin.cert, KeyFile: admin.key,
		},
		UserAgent: "skerry-hub",
		// The hub limits itself by its queues; the API server by priority and fairness.
		QPS: -1,
	}
	loopback := rest.CopyConfig(aggregator.GenericAPIServer.LoopbackClientConfig)
	s.wg.Go(func() {
		defer close(s.stopped)
		if err := prepared.Run(ctx); err != nil {
			s.fail(fmt.Errorf("API server: %w", err))
		}
	})
	s.wg.Go(func() {
		if s.WaitReady(ctx) != nil {
			return
		}
		if err := runControllers(ctx, loopback); err != nil {
			s.fail(fmt.Errorf("controllers of the API: %w", err))
		}
	})
	return s, nil
}

func (s *Server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

// Config returns how to reach the API as its administrator. The caller owns it.
func (s *Server) Config() *rest.Config { return rest.CopyConfig(s.config) }

// readyPoll is how often readiness is asked while the server starts: its own clients learn of it no other
// way.
const readyPoll = 50 * time.Millisecond

// WaitReady returns when the API answers that it is ready; with an error when the server ends first.
func (s *Server) WaitReady(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return fmt.Errorf("client of the API server: %w", err)
	}
	err = wait.PollUntilContextCancel(ctx, readyPoll, true, func(ctx context.Context) (bool, error) {
		select {
		case <-s.stopped:
			return false, errors.Join(errors.New("the API server ended before it was ready"), s.Err())
		case err := <-s.etcd.etcd.Err():
			return false, fmt.Errorf("etcd ended: %w", err)
		default:
		}
		var status int
		res := client.Discovery().RESTClient().Get().AbsPath("/readyz").Timeout(2 * time.Second).Do(ctx)
		res.StatusCode(&status)
		return res.Error() == nil && status == 200, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the API: %w", err)
	}
	return nil
}

// CertificateEnds is when the first of the server's certificates ends. They are renewed at the first start
// after two thirds of their life.
func (s *Server) CertificateEnds() (time.Time, error) {
	pair, err := tls.LoadX509KeyPair(s.config.CertFile, s.config.KeyFile)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the administrator's certificate: %w", err)
	}
	return pair.Leaf.NotAfter, nil
}

// Stopped is closed when the API server ended, by Stop or by itself; Err then says why.
func (s *Server) Stopped() <-chan struct{} { return s.stopped }

// Err returns why the server or one of its controllers ended, nil while all is well.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Stop ends the API server in order, then etcd, and waits for both.
func (s *Server) Stop() {
	s.cancel()
	s.wg.Wait()
	s.etcd.stop()
}

// WriteKubeconfig writes a kubeconfig for the administrator of this API, complete in itself, mode 0600.
func (s *Server) WriteKubeconfig(path string) error {
	config := s.Config()
	if err := rest.LoadTLSFiles(config); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	const name = "skerry"
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name, Namespace: "default"}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return writeFile(path, data)
}
