package deliverysite

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/skerry-dev/skerry/internal/delivery"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// What neighbours ask each other.
const (
	pathHello = "/neighbour/v1/hello"
	pathBlobs = "/neighbour/v1/blobs/"
)

// Bounds of what neighbours may take.
const (
	// maxServed is how many blobs are on their way to neighbours at once, and serveTimeout how long one may take.
	maxServed    = 4
	serveTimeout = time.Hour
	// dialTimeout bounds the connection to a neighbour: content must not wait long for one that is not there.
	dialTimeout = 2 * time.Second
	// answerTimeout bounds its first word.
	answerTimeout = 5 * time.Second
)

// errStranger means that the other side is no neighbour that the hub named.
var errStranger = errors.New("not a neighbour's key")

// selfSigned is a certificate that proves a key and says nothing else. Its times mean nothing: nobody looks.
func selfSigned(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "skerry-neighbour"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate for neighbours: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// provenBy returns the key that the other side proved in the handshake.
func provenBy(state tls.ConnectionState) (ed25519.PublicKey, error) {
	if len(state.PeerCertificates) != 1 {
		return nil, errStranger
	}
	key, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, errStranger
	}
	return key, nil
}

func has(n delivery.Neighbour, key ed25519.PublicKey) bool {
	for _, k := range n.Keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}

// newClient returns a client whose connections are to one neighbour each: its request's context says which.
func (m *Module) newClient(own tls.Certificate) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			// A neighbour is on the same network: no proxy leads to it.
			DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				n, ok := ctx.Value(neighbourKey{}).(delivery.Neighbour)
				if !ok {
					return nil, errStranger
				}
				dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: &tls.Config{
					Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13,
					// The key is what is verified, not a chain or a name.
					InsecureSkipVerify: true,
					VerifyConnection: func(state tls.ConnectionState) error {
						key, err := provenBy(state)
						if err == nil && !has(n, key) {
							err = errStranger
						}
						return err
					},
				}}
				return dialer.DialContext(ctx, network, address)
			},
			DisableKeepAlives: true, ResponseHeaderTimeout: answerTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type neighbourKey struct{}

// ask tries the addresses of a neighbour in turn.
func (m *Module) ask(ctx context.Context, n delivery.Neighbour, path string, offset int64) (*http.Response, error) {
	ctx = context.WithValue(ctx, neighbourKey{}, n)
	err := error(errStranger)
	for _, address := range n.Addresses {
		var req *http.Request
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
		if err != nil {
			return nil, err
		}
		if offset > 0 {
			req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
		}
		var res *http.Response
		if res, err = m.client.Do(req); err == nil {
			return res, nil
		}
	}
	return nil, err
}

func (m *Module) hello(ctx context.Context, n delivery.Neighbour) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	res, err := m.ask(ctx, n, pathHello, 0)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("neighbour %s answers %s", n.Site, res.Status)
	}
	return nil
}

// How often neighbours are asked for one blob, all together, and for how long that is remembered: what one of them
// sends may be wrong, which shows only at its end, and the hub must have its turn.
const (
	maxTries    = 3
	triesHold   = time.Hour
	triesMemory = 256
)

type tries struct {
	count int
	since time.Time
}

// mayTry counts a try to get a blob from a neighbour; false when there were enough.
func (m *Module) mayTry(digest fleet.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tried[digest]
	if t.since.IsZero() || time.Since(t.since) > triesHold {
		t = tries{since: time.Now()}
	}
	t.count++
	if len(m.tried) >= triesMemory {
		clear(m.tried)
	}
	m.tried[digest] = t
	return t.count <= maxTries
}

// errNobody means that no neighbour has a blob.
var errNobody = errors.New("no neighbour has it")

// fetch returns a blob from offset on from the first neighbour that is heard and has it.
func (m *Module) fetch(ctx context.Context, ref site.ContentRef, offset int64) (io.ReadCloser, error) {
	heard := m.Hears()
	for _, n := range m.neighbours() {
		if !heard[n.Site] || !m.mayTry(ref.Digest) {
			continue
		}
		body, err := m.fetchFrom(ctx, n, ref, offset)
		if err == nil {
			m.host.Log.Info("fetching content from a neighbour", "digest", ref.Digest, "neighbour", n.Site, "from", offset)
			return body, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, errNobody
}

// fetchFrom asks one neighbour. A body that says nothing for long is ended, as one from the hub is.
func (m *Module) fetchFrom(ctx context.Context, n delivery.Neighbour, ref site.ContentRef, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	res, err := m.ask(ctx, n, pathBlobs+string(ref.Digest), offset)
	if err != nil {
		cancel()
		return nil, err
	}
	want := http.StatusOK
	if offset > 0 {
		want = http.StatusPartialContent
	}
	if res.StatusCode != want || res.ContentLength != ref.Size-offset {
		cancel()
		return nil, errors.Join(fmt.Errorf("neighbour %s answers %s with %d bytes", n.Site, res.Status, res.ContentLength), res.Body.Close())
	}
	return &watched{ReadCloser: res.Body, cancel: cancel, timer: time.AfterFunc(stallTimeout, cancel)}, nil
}

// stallTimeout ends a body of which nothing arrives for so long.
const stallTimeout = 15 * time.Second

type watched struct {
	io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.timer.Reset(stallTimeout)
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.cancel()
	return err
}

// serve answers neighbours until ctx ends.
func (m *Module) serve(ctx context.Context, l net.Listener, own tls.Certificate) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathHello, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	slots := make(chan struct{}, maxServed)
	mux.HandleFunc("GET "+pathBlobs+"{digest}", func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			m.serveBlob(w, r)
		default:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: answerTimeout, WriteTimeout: serveTimeout, MaxHeaderBytes: 8 << 10,
		ErrorLog:    slog.NewLogLogger(m.host.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
			VerifyConnection: func(state tls.ConnectionState) error {
				key, err := provenBy(state)
				if err != nil {
					return err
				}
				for _, n := range m.neighbours() {
					if has(n, key) {
						return nil
					}
				}
				return errStranger
			},
		},
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ServeTLS(l, "", ""); err != nil && !errors.Is(err, http.ErrServerClosed) {
		m.host.Log.Error("neighbours are not answered any more", "error", err)
	}
}

// serveBlob answers with content that this site has, from where it is asked.
func (m *Module) serveBlob(w http.ResponseWriter, r *http.Request) {
	digest := fleet.Digest(r.PathValue("digest"))
	if digest.Validate() != nil {
		http.Error(w, "no digest", http.StatusBadRequest)
		return
	}
	path, err := m.host.Content.Path(digest)
	if err != nil {
		http.Error(w, "not here", http.StatusNotFound)
		return
	}
	file, err := os.Open(path)
	if err != nil {
		http.Error(w, "not here", http.StatusNotFound)
		return
	}
	defer file.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, file)
}
