package natsbus

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// errLater is how the first attempt ends, which nats.go would make before Connect returns.
var errLater = errors.New("connecting")

// dialer opens the network connections of one Client.
type dialer struct {
	ctx   context.Context // ends with the Client
	tls   *tls.Config
	proxy func(*url.URL) (*url.URL, error)
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	// newest returns URLs to try when the one that is asked for does not answer; nil: none.
	newest func() []string
	// own says that TLS is done here, so that its errors arrive whole.
	own bool
	// begun is false until the first attempt, linked until the first success.
	begun, linked atomic.Bool
}

// delay is the time before an attempt; the very first comes at once.
func (d *dialer) delay(attempt int) time.Duration {
	if attempt <= 1 && !d.linked.Load() {
		return time.Millisecond
	}
	return backOff(attempt)
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if d.begun.CompareAndSwap(false, true) {
		return nil, errLater
	}
	conn, err := d.open(network, address)
	if err == nil || d.newest == nil {
		return conn, err
	}
	for _, raw := range d.newest() {
		u, bad := url.Parse(raw)
		if bad != nil || u.Host == address || u.Port() == "" {
			continue
		}
		if conn, other := d.open(network, u.Host); other == nil {
			return conn, nil
		}
	}
	return nil, err
}

// open opens one connection, with TLS where that is done here.
func (d *dialer) open(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, connectTimeout)
	defer cancel()
	conn, err := d.dialThroughProxy(ctx, network, address)
	if err != nil || !d.own {
		return conn, err
	}
	config := d.tls.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	return secured, nil
}

func (d *dialer) dialThroughProxy(ctx context.Context, network, address string) (net.Conn, error) {
	proxy, err := d.proxy(&url.URL{Scheme: "https", Host: address})
	if err != nil {
		return nil, fmt.Errorf("proxy for %s: %w", address, err)
	}
	if proxy == nil {
		return d.dial(ctx, network, address)
	}
	port := map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
	if port == "" {
		return nil, fmt.Errorf("proxy for %s: scheme %q is not supported: use http or https", address, proxy.Scheme)
	}
	at := proxy.Host
	if proxy.Port() == "" {
		at = net.JoinHostPort(proxy.Hostname(), port)
	}
	conn, err := d.dial(ctx, network, at)
	if err != nil {
		return nil, fmt.Errorf("connect to proxy %s: %w", at, err)
	}
	if proxy.Scheme == "https" {
		// The proxy has a name of the outside world, not one of the hub's.
		conn = tls.Client(conn, &tls.Config{ServerName: proxy.Hostname()})
	}
	if err := tunnel(ctx, conn, proxy.User, address); err != nil {
		conn.Close()
		return nil, fmt.Errorf("tunnel through proxy %s to %s: %w", at, address, err)
	}
	return conn, nil
}

// tunnel asks a proxy for a tunnel (RFC 9110, section 9.3.6).
func tunnel(ctx context.Context, conn net.Conn, user *url.Userinfo, address string) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request := &http.Request{
		Method: http.MethodConnect, Host: address,
		URL:    &url.URL{Opaque: address},
		Header: http.Header{},
	}
	if user != nil {
		password, _ := user.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		request.Header.Set("Proxy-Authorization", "Basic "+basic)
	}
	if err := request.Write(conn); err != nil {
		return err
	}
	// Nothing comes after the answer before we speak, so no byte of the tunnel is lost in the buffer.
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 4<<10), request)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the proxy answered %s", answer.Status)
	}
	return nil
}
