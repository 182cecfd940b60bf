package natsserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"
)

// dialTimeout bounds connecting to an external server.
const dialTimeout = 10 * time.Second

// Upstream returns a dial function for NewGate that connects to an external NATS at rawURL, "nats://host:port"
// or "tls://host:port". Members of an external NATS must come through a Gate: see guard. So its port must be
// open to the hub alone.
func Upstream(rawURL string, config *tls.Config) (dial func() (net.Conn, error), err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("URL of the external bus: %w", err)
	}
	if u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" {
		return nil, fmt.Errorf("URL of the external bus %q: want nats://host or tls://host", u.Redacted())
	}
	port := u.Port()
	if port == "" {
		port = "4222"
	}
	secured := config.Clone() // nil stays nil
	if secured == nil {
		secured = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if secured.ServerName == "" {
		secured.ServerName = u.Hostname()
	}
	address, wantTLS := net.JoinHostPort(u.Hostname(), port), u.Scheme == "tls"
	return func() (net.Conn, error) {
		conn, err := dialUpstream(address, wantTLS, secured)
		if err != nil {
			return nil, fmt.Errorf("connect to the external bus at %s: %w", address, err)
		}
		return conn, nil
	}, nil
}

// dialUpstream does what NATS' clients do: the server speaks first, in the clear, and says whether TLS
// follows. The member's client must not begin TLS a second time, so it is shown a line without that.
func dialUpstream(address string, wantTLS bool, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	first, err := readInfo(conn)
	if err == nil {
		conn, first, err = secureUpstream(ctx, conn, first, wantTLS, config)
	}
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &prefixConn{Conn: conn, rest: bytes.NewReader(first)}, nil
}

const maxInfo = 32 << 10

// readInfo reads the server's first line, byte by byte so that nothing after it is taken.
func readInfo(conn net.Conn) ([]byte, error) {
	r := bufio.NewReaderSize(io.LimitReader(oneByte{conn}, maxInfo), 16)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("read its first line: %w", err)
	}
	if !bytes.HasPrefix(line, []byte("INFO ")) {
		return nil, errors.New("it does not speak NATS' protocol")
	}
	return line, nil
}

// oneByte reads no more than is asked for.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

func secureUpstream(ctx context.Context, conn net.Conn, first []byte, wantTLS bool, config *tls.Config) (net.Conn, []byte, error) {
	info := map[string]json.RawMessage{}
	if err := json.Unmarshal(first[len("INFO "):], &info); err != nil {
		return conn, nil, fmt.Errorf("its first line: %w", err)
	}
	required := string(info["tls_required"]) == "true"
	if !required && !wantTLS {
		return conn, first, nil
	}
	if !required && string(info["tls_available"]) != "true" {
		return conn, nil, errors.New("it does not offer TLS, which its URL asks for")
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return conn, nil, fmt.Errorf("TLS: %w", err)
	}
	delete(info, "tls_required")
	delete(info, "tls_available")
	line, err := json.Marshal(info)
	if err != nil {
		return secured, nil, err
	}
	return secured, append(append([]byte("INFO "), line...), "\r\n"...), nil
}

// prefixConn yields what was read before, then the connection.
type prefixConn struct {
	net.Conn
	rest *bytes.Reader
}

func (c *prefixConn) Read(p []byte) (int, error) {
	if c.rest.Len() > 0 {
		return c.rest.Read(p)
	}
	return c.Conn.Read(p)
}
