package cgi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestEnviron(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "http://shop.test:8443/a/%2e?q=1", nil)
	r.RemoteAddr = "[2001:db8::1]:4711"
	r.Header = http.Header{
		"X-A": {"1", "2"}, "Cookie": {"a=1", "b=2"}, "X_a": {"evil"}, "Proxy": {"http://evil"}, "X-Zero": {"a\x00b"}, "Content-Type": {"a/b"},
		"Content-Length": {"99"}, "X-Forwarded-Proto": {"https"}, "Bad Name": {"x"},
	}
	got := map[string]string{}
	for _, kv := range Environ(r, 5) {
		name, value, _ := strings.Cut(kv, "=")
		if _, twice := got[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		got[name] = value
	}
	for name, want := range map[string]string{
		"HTTP_X_A": "1, 2", "HTTP_COOKIE": "a=1; b=2", "CONTENT_LENGTH": "5", "CONTENT_TYPE": "a/b", "HTTPS": "on", "SERVER_NAME": "shop.test",
		"SERVER_PORT": "8443", "REMOTE_ADDR": "2001:db8::1", "REMOTE_PORT": "4711", "QUERY_STRING": "q=1", "PATH_INFO": "/a/.", "SCRIPT_NAME": "",
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	for _, name := range []string{"HTTP_PROXY", "HTTP_X_ZERO", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_BAD NAME"} {
		if v, ok := got[name]; ok {
			t.Errorf("%s is set to %q", name, v)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nbody"))
	f.Add([]byte("Location: /a\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		end, next := HeaderEnd(data)
		if end < 0 {
			return
		}
		if next <= end || next > len(data) || strings.Contains(string(data[:end]), "\n\n") {
			t.Fatalf("header ends at %d, body begins at %d", end, next)
		}
		status, fields, err := ParseHeader(data[:end])
		if err != nil {
			return
		}
		if status < 200 || status > 599 || fields["Connection"] != nil || fields["Transfer-Encoding"] != nil || len(fields["Content-Length"]) > 1 {
			t.Errorf("status %d, fields %v", status, fields)
		}
		for name, values := range fields {
			if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
				t.Errorf("field %q: %q splits the answer", name, values)
			}
		}
	})
}
