package outbound_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/skerry-dev/skerry/internal/app/wasm/outbound"
)

// names resolves from a table, and counts.
type names struct {
	table map[string][]string
	asked atomic.Int64
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.asked.Add(1)
	var out []netip.Addr
	for _, a := range n.table[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, errors.New("no such host")
	}
	return out, nil
}

func TestWhereRequestsMayGo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.Host) }))
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	for _, tt := range []struct {
		reason string
		list   string
		url    string
		want   error // nil: it is answered
	}{
		{"an address in the list", "127.0.0.1:{port}", "http://127.0.0.1:{port}/", nil},
		{"a network in the list", "127.0.0.0/8:*", "http://127.0.0.1:{port}/", nil},
		{"an address that is written otherwise", "127.0.0.1:{port}", "http://[::ffff:127.0.0.1]:{port}/", nil},
		{"a name and the address behind it", "till.test:{port} 127.0.0.1:{port}", "http://till.test:{port}/", nil},
		{"capitals and a dot at the end", "till.test:{port} 127.0.0.1:{port}", "http://TILL.test.:{port}/", nil},
		{"nothing is in the list", "", "http://127.0.0.1:{port}/", outbound.ErrRefused},
		{"another port", "127.0.0.1:1", "http://127.0.0.1:{port}/", outbound.ErrRefused},
		{"every name is no address", "*:*", "http://127.0.0.1:{port}/", outbound.ErrRefused},
		{"a name that leads to loopback", "till.test:{port}", "http://till.test:{port}/", outbound.ErrRefused},
		{"a name that leads there by IPv6", "six.test:{port}", "http://six.test:{port}/", outbound.ErrRefused},
		{"a name that leads there within IPv6", "mapped.test:{port}", "http://mapped.test:{port}/", outbound.ErrRefused},
		{"a name that leads to a cloud's metadata", "meta.test:{port}", "http://meta.test:{port}/", outbound.ErrRefused},
		{"a name that leads into the shop's network", "*.test:*", "http://lan.test:{port}/", outbound.ErrRefused},
		{"an address in the list is not its name", "127.0.0.1:{port}", "http://till.test:{port}/", outbound.ErrRefused},
		{"a name below is not the name", "*.till.test:{port} 127.0.0.1:{port}", "http://till.test:{port}/", outbound.ErrRefused},
		{"another scheme", "*:* 127.0.0.1:*", "file:///etc/passwd", outbound.ErrRequest},
		{"no host", "*:* 127.0.0.1:*", "/path", outbound.ErrRequest},
		{"a user in the URL", "127.0.0.1:{port}", "http://a:b@127.0.0.1:{port}/", outbound.ErrRequest},
		{"a port that is none", "127.0.0.1:*", "http://127.0.0.1:99999/", outbound.ErrRequest},
		{"decimal is no address", "*:* 127.0.0.1:*", "http://2130706433:{port}/", errAny},
	} {
		put := strings.NewReplacer("{port}", port)
		r := &names{table: map[string][]string{
			"till.test": {"127.0.0.1"}, "six.test": {"::1"}, "mapped.test": {"::ffff:127.0.0.1"}, "meta.test": {"169.254.169.254"}, "lan.test": {"192.168.1.1"},
		}}
		c, err := outbound.NewWith(strings.Fields(put.Replace(tt.list)), r)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.Do(t.Context(), []byte("GET "+put.Replace(tt.url)+" HTTP/1.1\r\nHost: other.test\r\n\r\n"))
		switch {
		case tt.want == nil && err != nil:
			t.Errorf("%s: %v", tt.reason, err)
		case tt.want == nil:
			data, _ := io.ReadAll(reply)
			reply.Close()
			if !strings.HasPrefix(string(data), "HTTP/1.1 200 OK\r\n") || strings.Contains(string(data), "other.test") {
				t.Errorf("%s: answer %q", tt.reason, data)
			}
		case err == nil:
			reply.Close()
			t.Errorf("%s: it was answered", tt.reason)
		case tt.want != errAny && !errors.Is(err, tt.want):
			t.Errorf("%s: error %v, want %v", tt.reason, err, tt.want)
		}
		if n := r.asked.Load(); n > 1 {
			t.Errorf("%s: the name was resolved %d times: what was judged must be what is called", tt.reason, n)
		}
		c.Close()
	}
}

var errAny = errors.New("any")

func TestPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "2606:4700::1111": true,
		"127.0.0.1": false, "10.0.0.1": false, "172.16.0.1": false, "192.168.0.1": false, "169.254.169.254": false, "0.0.0.0": false,
		"100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "198.18.0.1": false, "240.0.0.1": false,
		"::": false, "::1": false, "fe80::1": false, "fd00::1": false, "ff02::1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false,
		"::7f00:1": false, "2001:db8::1": false,
	} {
		if got := outbound.Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is public: %v, want %v", addr, got, want)
		}
	}
}

func TestRequestsAndAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Header.Get("Connection"), r.Header.Get("X-A"), " ", string(body)))
		if r.URL.Path == "/stream" {
			w.(http.Flusher).Flush()
		}
		fmt.Fprint(w, "body")
	}))
	defer server.Close()
	c, err := outbound.New([]string{strings.TrimPrefix(server.URL, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for raw, want := range map[string]string{
		"POST " + server.URL + "/a%2fb?q=1 HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc": "X-Seen: POST /a%2fb?q=1 1 abc\r\n",
		"GET " + server.URL + "/stream HTTP/1.1\r\nHost: x\r\n\r\n":                                                              "Connection: close\r\n",
	} {
		reply, err := c.Do(t.Context(), []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(reply)
		if err := errors.Join(err, reply.Close()); err != nil || !strings.Contains(string(data), want) || !strings.HasSuffix(string(data), "\r\n\r\nbody") {
			t.Errorf("answer %q, %v; want %q", data, err, want)
		}
	}
	for _, raw := range []string{"", "nonsense", "GET / HTTP/1.1\r\n\r\n", "GET " + server.URL + " HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"} {
		if _, err := c.Do(t.Context(), []byte(raw)); !errors.Is(err, outbound.ErrRequest) {
			t.Errorf("%q: error %v, want ErrRequest", raw, err)
		}
	}
}

func FuzzDo(f *testing.F) {
	f.Add([]byte("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"))
	f.Add([]byte("POST http://[::1%25eth0]:80/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	c, err := outbound.NewWith([]string{"*:*"}, &names{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if reply, err := c.Do(t.Context(), raw); err == nil {
			reply.Close()
			t.Errorf("%q was answered by nobody", raw)
		}
	})
}
