// Package outbound sends HTTP requests for modules, to where their allow-list lets them and nowhere else.
//
// A name is resolved once, here, and each address that it leads to is judged before it is called, so that no
// name server can lead a module into the site's own network. Redirects are not followed: the module sees
// them, and what it sends next is judged as anything else.
//
// Only package wasm imports it. A Client is safe for concurrent use; errors wrap ErrRefused where the list
// forbids, and ErrRequest where the request itself is at fault.
package outbound

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
)

// Errors of this package.
var (
	ErrRefused = errors.New("the allow-list of the bundle (wasm.outbound) does not hold it")
	ErrRequest = errors.New("this is no HTTP request")
)

// Bounds of connections.
const (
	dialTimeout    = 5 * time.Second
	idleTimeout    = 30 * time.Second
	maxIdle        = 16
	maxHeaderBytes = 64 << 10
)

// Resolver finds the addresses of a name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Client sends requests within one allow-list.
type Client struct {
	list      []app.Outbound
	resolver  Resolver
	transport *http.Transport
}

// New returns a client for an allow-list as app.WasmConfig.Outbound has it.
func New(entries []string) (*Client, error) { return NewWith(entries, net.DefaultResolver) }

// NewWith returns a client that resolves names by r.
func NewWith(entries []string, r Resolver) (*Client, error) {
	c := &Client{resolver: r}
	for _, entry := range entries {
		o, err := app.ParseOutbound(entry)
		if err != nil {
			return nil, err
		}
		c.list = append(c.list, o)
	}
	c.transport = &http.Transport{
		Proxy: nil, DialContext: c.dial, DisableCompression: true, MaxIdleConnsPerHost: 2, MaxIdleConns: maxIdle,
		IdleConnTimeout: idleTimeout, TLSHandshakeTimeout: dialTimeout, MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2: true,
	}
	return c, nil
}

// Close closes connections that are not in use.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// hopByHop are headers that concern one connection alone, which is not the module's.
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// Do sends a request, written as HTTP/1.1 with the whole URL in its first line, and returns the answer,
// written as HTTP/1.1 with the connection's own headers left out. The caller closes it.
func (c *Client) Do(ctx context.Context, raw []byte) (io.ReadCloser, error) {
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrRequest)
	}
	u := req.URL
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Opaque != "" {
		return nil, fmt.Errorf("%q: want the whole URL, http:// or https://, without a user: %w", u.Redacted(), ErrRequest)
	}
	host, port, err := hostPort(u)
	if err != nil {
		return nil, err
	}
	if err := c.allowed(host, port); err != nil {
		return nil, err
	}
	u.Host = authority(u, host) // what was judged is what is called
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, fmt.Errorf("body: %w: %w", err, ErrRequest)
	}
	out, err := http.NewRequestWithContext(ctx, req.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrRequest)
	}
	if out.Header = req.Header; out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "Skerry")
	}
	for _, name := range hopByHop {
		out.Header.Del(name)
	}
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	res, err := c.transport.RoundTrip(out)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", out.Method, u.Redacted(), err)
	}
	return answer(res), nil
}

// answer writes the header of a response, of which the body ends with the stream.
func answer(res *http.Response) io.ReadCloser {
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %03d %s\r\n", res.StatusCode, http.StatusText(res.StatusCode))
	for _, name := range hopByHop {
		res.Header.Del(name)
	}
	// A length is said only when the stream has just that many bytes.
	res.Header.Del("Content-Length")
	if res.ContentLength >= 0 {
		res.Header.Set("Content-Length", strconv.FormatInt(res.ContentLength, 10))
	} else {
		res.Header.Set("Connection", "close")
	}
	_ = res.Header.Write(&head) // a buffer takes everything
	head.WriteString("\r\n")
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&head, res.Body), res.Body}
}

// authority writes the host and, when it was given, the port.
func authority(u *url.URL, host string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if u.Port() != "" {
		host += ":" + u.Port()
	}
	return host
}

// allowed judges the URL as it is written.
func (c *Client) allowed(host string, port uint16) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		if c.holds(addr.Unmap().WithZone(""), port) {
			return nil
		}
		return fmt.Errorf("%s: %w", netip.AddrPortFrom(addr, port), ErrRefused)
	}
	for _, o := range c.list {
		if (o.Port == 0 || o.Port == port) && !o.Net.IsValid() && o.MatchesName(host) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", net.JoinHostPort(host, strconv.Itoa(int(port))), ErrRefused)
}

func hostPort(u *url.URL) (string, uint16, error) {
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	text := u.Port()
	if text == "" {
		text = "80"
		if u.Scheme == "https" {
			text = "443"
		}
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || host == "" {
		return "", 0, fmt.Errorf("%q: the host or the port is none: %w", u.Host, ErrRequest)
	}
	return host, uint16(port), nil
}

// holds reports whether an address or a network of the list holds addr.
func (c *Client) holds(addr netip.Addr, port uint16) bool {
	for _, o := range c.list {
		if o.Net.IsValid() && (o.Port == 0 || o.Port == port) && o.Net.Contains(addr) {
			return true
		}
	}
	return false
}

// dial resolves the name and calls the first address that may be called and answers.
func (c *Client) dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	if addr, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{addr}
	} else if addrs, err = c.resolver.LookupNetIP(ctx, "ip", host); err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	var errs []error
	for _, addr := range addrs {
		addr = addr.Unmap().WithZone("")
		if !Public(addr) && !c.holds(addr, uint16(port)) {
			errs = append(errs, fmt.Errorf("%s leads to %s, which is not public: %w", host, addr, ErrRefused))
			continue
		}
		conn, err := dialer.DialContext(ctx, network, netip.AddrPortFrom(addr, uint16(port)).String())
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s has no address", host))
	}
	return nil, errors.Join(errs...)
}

// special are networks that netip's own predicates leave out and that are not for everybody, by IANA's
// registries of special-purpose addresses (RFC 6890).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	// These hold IPv4 addresses, to which a gateway may lead: NAT64, Teredo, 6to4.
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2001::/32"),
	netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("fec0::/10"),
}

// Public reports whether an address is one that anybody may call.
func Public(addr netip.Addr) bool {
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}
