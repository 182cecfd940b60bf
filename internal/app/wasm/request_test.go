package wasm

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
)

func TestRequest(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("hello", goGuest(t, "kitchen"), func(s *appsite.Spec, c *app.WasmConfig) {
		s.Env["GREETING"] = "a b"
		s.Env["SKERRY_SITE"] = "shop-1"
	})
	if code, body := d.get("/hello"); code != 200 || body != "hello\n" {
		t.Errorf("got %d %q", code, body)
	}
	if code, body := d.get("/nothing"); code != 404 || body != "no such dish\n" {
		t.Errorf("a status of the module's own: got %d %q", code, body)
	}
	for range 5 {
		if _, body := d.get("/state"); body != "1\n" {
			t.Errorf("a request saw another's memory: %q", body)
		}
	}
	req := d.request("POST", "/env/%41?x=1&y=%20", strings.NewReader("four"))
	req.Header.Set("X-Shop", "north")
	req.Header["Content-Type"] = []string{"text/plain"}
	req.Header.Set("Proxy", "http://evil.test")
	req.Header["X_Shop"] = []string{"south"}
	req.Header.Set("User-Agent", "test")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("X-Request-Id", "id-1")
	_, body := d.do(req)
	got := strings.Split(strings.TrimSpace(body), "\n")
	got = slices.DeleteFunc(got, func(kv string) bool {
		return strings.HasPrefix(kv, "REMOTE_PORT=") || strings.HasPrefix(kv, "PWD=")
	})
	want := []string{
		"CONTENT_LENGTH=4", "CONTENT_TYPE=text/plain", "GATEWAY_INTERFACE=CGI/1.1", "GREETING=a b",
		"HTTP_ACCEPT_ENCODING=identity", "HTTP_HOST=hello.test", "HTTP_USER_AGENT=test", "HTTP_X_FORWARDED_FOR=127.0.0.1",
		"HTTP_X_FORWARDED_HOST=hello.test", "HTTP_X_FORWARDED_PROTO=http", "HTTP_X_REQUEST_ID=id-1", "HTTP_X_SHOP=north",
		"PATH_INFO=/env/A", "QUERY_STRING=x=1&y=%20", "REMOTE_ADDR=127.0.0.1", "REMOTE_HOST=127.0.0.1", "REQUEST_METHOD=POST",
		"REQUEST_URI=/env/%41?x=1&y=%20", "SCRIPT_NAME=", "SERVER_NAME=hello.test", "SERVER_PORT=80", "SERVER_PROTOCOL=HTTP/1.1",
		"SERVER_SOFTWARE=Skerry", "SKERRY_APP=hello", "SKERRY_NAMESPACE=default", "SKERRY_SITE=shop-1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if n := k.count("skerry_wasm_failures_total", nil); n != 0 {
		t.Errorf("%v failures were counted", n)
	}
}
