package httpgateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// ErrInsecure is wrapped by the error about an address that must not be served without TLS.
var ErrInsecure = errors.New("plain HTTP is served on loopback only")

// portsTried bounds the search for another port.
const portsTried = 100

// serverTLS is the TLS configuration to serve with, nil for plain HTTP.
func (o Options) serverTLS() (*tls.Config, error) {
	switch {
	case o.TLS != nil:
		config := o.TLS.Clone()
		config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
		return config, nil
	case o.CertFile == "" && o.KeyFile == "":
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %q with key %q: %w", o.CertFile, o.KeyFile, err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// listen opens the listener, on a later port if it may.
func listen(ctx context.Context, address string, secure, nextPort bool) (net.Listener, error) {
	addr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	if !secure && !addr.IP.IsLoopback() {
		return nil, fmt.Errorf("address %q: give a certificate and key, or listen on 127.0.0.1: %w", address, ErrInsecure)
	}
	tries := 1
	if nextPort && addr.Port != 0 {
		tries = portsTried
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	for n := range tries {
		port := addr.Port + n
		if port > 65535 {
			break
		}
		var l net.Listener
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("listen on %q: %w", address, err)
}

// listenURL is how people on this machine or beside it write the listener's address.
func listenURL(addr net.Addr, secure bool) string {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return scheme + "://" + addr.String()
	}
	host := tcp.IP.String()
	if tcp.IP.IsUnspecified() {
		host = "localhost"
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}
