package wasm

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/bundle"
)

func TestGoSDK(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		case "/big":
			w.Header().Set("Content-Type", "text/plain")
			for range 64 {
				fmt.Fprint(w, strings.Repeat("x", 64<<10))
			}
		default:
			w.Header().Set("Content-Type", "text/price")
			fmt.Fprintf(w, "%s of %s for %s", r.URL.RequestURI(), r.Host, r.UserAgent())
		}
	}))
	defer upstream.Close()
	k := newKitchen(t, nil)
	d := k.serve("shop", sdkGuest(t, "shop"), func(s *appsite.Spec, c *app.WasmConfig) {
		s.Env["SKERRY_SITE"] = "shop-1"
		c.Outbound = []string{strings.TrimPrefix(upstream.URL, "http://")}
		c.KeyValue = &app.WasmKeyValue{Keys: 4, Bytes: 1000}
		c.Limits = app.WasmLimits{OutboundBytes: 1 << 20, TimeoutSeconds: 60}
	})
	for n := range 3 {
		if code, body := d.get("/visits"); code != 200 || body != fmt.Sprintf("visit %d at shop-1\n", n+1) {
			t.Fatalf("got %d %q", code, body)
		}
	}
	put := func(name, value string) int {
		res, _ := d.do(d.request(http.MethodPut, "/items/"+name, strings.NewReader(value)))
		return res.StatusCode
	}
	for _, tt := range []struct {
		reason, name, value string
		status              int
	}{
		{"a value", "a", "apple", 204}, {"another", "b", "pear", 204}, {"an empty one", "empty", "", 204},
		{"one key too many", "c", "plum", 507}, {"one that is there may change", "a", "quince", 204},
		{"more bytes than there may be", "b", strings.Repeat("x", 1000), 507},
	} {
		if got := put(tt.name, tt.value); got != tt.status {
			t.Errorf("%s: got %d, want %d", tt.reason, got, tt.status)
		}
	}
	for path, want := range map[string]string{
		"/items/a": "quince", "/items/empty": "", "/items": "item/a\nitem/b\nitem/empty\n", "/items?prefix=b": "item/b\n",
	} {
		if code, body := d.get(path); code != 200 || body != want {
			t.Errorf("%s: got %d %q, want %q", path, code, body, want)
		}
	}
	if code, body := d.get("/items/none"); code != 404 {
		t.Errorf("a key that is not there: %d %q", code, body)
	}
	ask := func(u string) (int, string) { return d.get("/ask?url=" + url.QueryEscape(u)) }
	host := strings.TrimPrefix(upstream.URL, "http://")
	if code, body := ask(upstream.URL + "/p?q=1"); code != 200 || body != "/p?q=1 of "+host+" for Go-http-client/1.1" {
		t.Errorf("outbound: %d %q", code, body)
	}
	if code, body := ask("http://127.0.0.1:1/"); code != 403 || !strings.Contains(body, "wasm.outbound") {
		t.Errorf("a server that is not allowed: %d %q", code, body)
	}
	if code, body := ask(upstream.URL + "/away"); code != 403 {
		t.Errorf("a redirect to one that is not allowed: %d %q", code, body)
	}
	if status, n := d.cutOrShort("/ask?url=" + url.QueryEscape(upstream.URL+"/big")); status != 200 || n > 1<<20 {
		t.Errorf("more than may come in: %d and %d bytes", status, n)
	}
	if n := k.count("skerry_wasm_outbound_total", map[string]string{"result": "refused"}); n != 2 {
		t.Errorf("%v refusals were counted, want two", n)
	}

	// Another release of the app finds what the first one stored.
	next := d.spec
	next.ID, next.Release = next.ID+"b", "shop-2"
	e := k.start(next)
	k.route(e)
	if _, body := e.get("/visits"); body != "visit 4 at shop-1\n" {
		t.Errorf("the next release counts %q", body)
	}
}

func TestStorageAndOutboundMustBeDeclared(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("shop", sdkGuest(t, "shop"), nil)
	if code, body := d.get("/items/a"); code != 403 || !strings.Contains(body, "wasm.keyValue") {
		t.Errorf("storage: %d %q", code, body)
	}
	if code, body := d.get("/ask?url=http://example.com/"); code != 403 || !strings.Contains(body, "wasm.outbound") {
		t.Errorf("outbound: %d %q", code, body)
	}
}

func TestCHeader(t *testing.T) {
	k := newKitchen(t, nil)
	d := k.serve("visits", cGuest(t, "../../../sdk/c/examples/visits.c"), func(s *appsite.Spec, c *app.WasmConfig) {
		s.Env["SKERRY_SITE"] = "shop-1"
		c.KeyValue = &app.WasmKeyValue{}
	})
	for n := range 3 {
		if code, body := d.get("/c"); code != 200 || body != fmt.Sprintf("visit %d of /c at shop-1\n", n+1) {
			t.Errorf("got %d %q", code, body)
		}
	}
}

// The app that `skerry app init --runtime wasm` lays out serves as it is.
func TestScaffoldServes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "prices")
	if _, err := bundle.Scaffold(dir, "prices", app.RuntimeWasm); err != nil {
		t.Fatal(err)
	}
	out := build(t, "scaffold", "go", "build", "-C", dir, "-o", "{out}", ".")
	k := newKitchen(t, nil)
	d := k.serve("prices", out, func(s *appsite.Spec, _ *app.WasmConfig) { s.Env["SKERRY_SITE"] = "shop-1" })
	if code, body := d.get("/prices"); code != 200 || !strings.HasPrefix(body, "Hello from shop-1") {
		t.Errorf("got %d %q", code, body)
	}
	if code, body := d.get("/prices/x.json"); code != 200 || body != `{"release":"","site":"shop-1"}`+"\n" {
		t.Errorf("got %d %q", code, body)
	}
}
