package httpgateway

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

var (
	hello = fleet.AppKey{Namespace: "default", Name: "hello"}
	other = fleet.AppKey{Namespace: "default", Name: "other"}
)

// start runs a gateway for the test.
func start(t *testing.T, opts Options) *Gateway {
	t.Helper()
	g, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return g
}

// backend is an app.
func backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

func ready(path, target string) site.Route {
	return site.Route{Path: path, State: site.RouteReady, Target: target, Release: "hello-1"}
}

type reply struct {
	status int
	body   string
	header http.Header
}

// ask sends one request; edit may change it.
func ask(t *testing.T, g *Gateway, method, path string, body io.Reader, edit func(*http.Request)) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.URL()+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, string(data), res.Header}
}

func get(t *testing.T, g *Gateway, path string) reply {
	t.Helper()
	return ask(t, g, http.MethodGet, path, nil, nil)
}

func TestRouting(t *testing.T) {
	g := start(t, Options{})
	app := func(name string) fleet.AppKey { return fleet.AppKey{Namespace: "default", Name: name} }
	for name, route := range map[string]site.Route{
		"root":   {Path: "/"},
		"a":      {Path: "/a"},
		"ab":     {Path: "/a/b/"},
		"shop":   {Host: "Shop.example", Path: "/"},
		"twin-1": {Path: "/twin"},
		"twin-2": {Path: "/twin"},
	} {
		route.State, route.Target = site.RouteReady, backend(t, says(name))
		g.Set(app(name), route)
	}
	for name, row := range map[string]struct{ reason, host, path, want string }{
		"root":       {"everything else", "", "/x", "root"},
		"exact":      {"the prefix itself", "", "/a", "a"},
		"below":      {"a whole segment below", "", "/a/x?q=1", "a"},
		"no segment": {"/ab is not below /a", "", "/ab", "root"},
		"longest":    {"the longest match wins, a closing slash counts for nothing", "", "/a/b", "ab"},
		"host":       {"a host wins over a longer path, whatever its case", "shop.EXAMPLE:8080", "/a/b", "shop"},
		"other host": {"a host that nobody asked for", "bar.example", "/a", "a"},
		"tie":        {"the lower key wins", "", "/twin", "twin-1"},
		"encoded":    {"the decoded path is matched", "", "/%61/b", "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ask(t, g, http.MethodGet, row.path, nil, func(r *http.Request) {
				if row.host != "" {
					r.Host = row.host
				}
			})
			if got.body != row.want {
				t.Errorf("%s: %q answered, want %q", row.reason, got.body, row.want)
			}
		})
	}
	g.Remove(app("twin-1"))
	if got := get(t, g, "/twin"); got.body != "twin-2" {
		t.Errorf("after the first left, %q answers", got.body)
	}
}

func TestPathAndQueryArriveUnchanged(t *testing.T) {
	g := start(t, Options{})
	g.Set(hello, ready("/hello", backend(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })))
	for _, uri := range []string{"/hello/a%2Fb/../c", "/hello?a=1;b=2&c", "/hello/%E2%82%AC"} {
		if got := get(t, g, uri); got.body != uri {
			t.Errorf("app saw %q, caller asked for %q", got.body, uri)
		}
	}
}

func TestAnswersOfTheGateway(t *testing.T) {
	g := start(t, Options{MaxBodyBytes: 10, ResponseHeaderTimeout: 50 * time.Millisecond})
	gone := httptest.NewServer(nil)
	gone.Close()
	slow := backend(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	key := func(name string) fleet.AppKey { return fleet.AppKey{Namespace: "default", Name: name} }
	g.Set(key("starting"), site.Route{Path: "/starting", State: site.RouteStarting, Release: "r-7"})
	g.Set(key("down"), site.Route{Path: "/down", State: site.RouteDown})
	g.Set(key("gone"), ready("/gone", gone.URL))
	g.Set(key("slow"), ready("/slow", slow))
	g.Set(key("bad"), ready("/bad", "ftp://nowhere"))
	g.Set(key("echo"), ready("/echo", backend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })))
	for name, row := range map[string]struct {
		reason, path string
		body         io.Reader
		status       int
		says, retry  string
	}{
		"unknown":        {"no app is there", "/x", nil, 404, "No app of this site answers at /x.", ""},
		"starting":       {"not ready for the first time", "/starting", nil, 503, "App default/starting is starting (release r-7).", "1"},
		"down":           {"it cannot run", "/down", nil, 503, "App default/down cannot run at this site now.", "1"},
		"bad target":     {"a target that nobody can reach is taken as down", "/bad", nil, 503, "cannot run", "1"},
		"refused":        {"nobody listens", "/gone", nil, 502, "App default/gone does not answer at this site (release hello-1).", ""},
		"silent":         {"it accepts and says nothing", "/slow", nil, 504, "did not answer in time", ""},
		"large, told":    {"the length says so", "/echo", strings.NewReader("eleven chars"), 413, "larger than the 10 bytes", ""},
		"large, untold":  {"the length is found out", "/echo", io.MultiReader(strings.NewReader("eleven chars")), 413, "larger than the 10 bytes", ""},
		"body that fits": {"ten bytes are allowed", "/echo", strings.NewReader("ten chars!"), 200, "ten chars!", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ask(t, g, http.MethodPost, row.path, row.body, nil)
			if got.status != row.status || !strings.Contains(got.body, row.says) {
				t.Errorf("%s: got %d %s", row.reason, got.status, got.body)
			}
			if retry := got.header.Get("Retry-After"); retry != row.retry {
				t.Errorf("Retry-After is %q, want %q", retry, row.retry)
			}
			if row.status != 200 && (!strings.Contains(got.body, got.header.Get(headerRequestID)) || got.header.Get("Content-Type") != "application/json") {
				t.Errorf("the answer names no request or is no JSON: %q %s", got.header, got.body)
			}
		})
	}
	asBrowser := func(r *http.Request) { r.Header.Set("Accept", "text/html,*/*") }
	html := ask(t, g, http.MethodGet, "/<script>", nil, asBrowser)
	if html.status != 404 || !strings.Contains(html.body, "<h1>Not Found</h1>") || strings.Contains(html.body, "<script>") {
		t.Errorf("a browser got %d %s", html.status, html.body)
	}
}

func TestForwardedHeadersCannotBeSpoofed(t *testing.T) {
	g := start(t, Options{})
	seen := make(chan *http.Request, 1)
	g.Set(hello, ready("/", backend(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set(headerRequestID, "of the app")
	})))
	got := ask(t, g, http.MethodGet, "/", nil, func(r *http.Request) {
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Real-Ip", "Forwarded", "Proxy"} {
			r.Header.Set(name, "evil")
		}
		r.Header["X_Forwarded_For"] = []string{"evil"}
		r.Header.Set("Connection", "close, X-Hop")
		r.Header.Set("X-Hop", "evil")
		r.Header.Set("X-Kept", "kept")
		r.Host = "shop.example"
	})
	r := <-seen
	for name, values := range r.Header {
		if strings.Contains(strings.Join(values, " "), "evil") {
			t.Errorf("header %s of the caller reached the app", name)
		}
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "http", "X-Kept": "kept",
	} {
		if r.Header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, r.Header.Get(name), want)
		}
	}
	if r.Host != "shop.example" {
		t.Errorf("the app saw host %q", r.Host)
	}
	id := r.Header.Get(headerRequestID)
	if ids := got.header.Values(headerRequestID); len(id) != 32 || len(ids) != 1 || ids[0] != id {
		t.Errorf("app saw request id %q, caller got %q", id, ids)
	}
}

func TestRequestIDOfTheCaller(t *testing.T) {
	for name, row := range map[string]struct {
		reason, id string
		kept       bool
	}{
		"sane":    {"a trace goes on", "0af7651916cd43dd-8448/eb=", true},
		"long":    {"it would fill logs", strings.Repeat("a", maxRequestID+1), false},
		"strange": {"it would break a log line", "a b\"c", false},
		"empty":   {"there is none", "", false},
	} {
		r := &http.Request{Header: http.Header{headerRequestID: {row.id}}}
		if got := requestID(r); got == "" || (got == row.id) != row.kept {
			t.Errorf("%s: %s: got %q", name, row.reason, got)
		}
	}
}

func TestUnixTarget(t *testing.T) {
	socket := t.TempDir() + "/app.sock"
	s := httptest.NewUnstartedServer(says("by socket"))
	l, err := listenUnix(socket)
	if err != nil {
		t.Fatal(err)
	}
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	g := start(t, Options{})
	g.Set(hello, ready("/", "unix://"+(&url.URL{Path: socket}).EscapedPath()))
	if got := get(t, g, "/"); got.body != "by socket" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}
