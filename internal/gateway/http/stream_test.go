package httpgateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/gateway"
	"github.com/skerry-dev/skerry/internal/site"
)

func TestStreamIsFlushedAtOnce(t *testing.T) {
	g := start(t, Options{})
	next := make(chan struct{})
	g.Set(hello, ready("/", backend(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "one")
		w.(http.Flusher).Flush()
		<-next
		fmt.Fprintln(w, "two")
	})))
	res, err := http.Get(g.URL() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for _, want := range []string{"one\n", "two\n"} {
		got, err := lines.ReadString('\n')
		if err != nil || got != want {
			t.Fatalf("got %q, %v; want %q before the app goes on", got, err, want)
		}
		if want == "one\n" {
			close(next)
		}
	}
}

func TestWebSocketPassesAndIsDrained(t *testing.T) {
	g := start(t, Options{})
	target := backend(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, append([]byte("echo "), data...)) != nil {
				return
			}
		}
	})
	g.Set(hello, ready("/ws", target))
	c, _, err := websocket.Dial(t.Context(), g.URL()+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for n := range 3 {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
		_, data, err := c.Read(t.Context())
		if want := fmt.Sprint("echo ", n); err != nil || string(data) != want {
			t.Fatalf("got %q, %v; want %q", data, err, want)
		}
	}
	g.Remove(hello)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Drain(short, target); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an open WebSocket counts as in flight, got %v", err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	if err := g.Drain(t.Context(), target); err != nil {
		t.Errorf("drain after close: %v", err)
	}
}

func TestStopEndsUpgradedConnections(t *testing.T) {
	g, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.Set(hello, ready("/", backend(t, func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			c.Read(r.Context())
		}
	})))
	c, _, err := websocket.Dial(t.Context(), g.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := g.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the connection outlived the gateway")
	}
	if g.URL() != "" {
		t.Errorf("a stopped gateway is at %s", g.URL())
	}
}

func TestSwitchOverLosesNoRequest(t *testing.T) {
	g := start(t, Options{})
	var failed, served atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	instance := func(n int) (string, func()) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Duration(n%3) * time.Millisecond) // some requests are in flight at each switch
			fmt.Fprint(w, n)
		}))
		return s.URL, s.Close
	}
	old, closeOld := instance(0)
	g.Set(hello, ready("/", old))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	for worker := range 8 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				method, body := http.MethodGet, io.Reader(nil)
				if worker%2 == 0 {
					method, body = http.MethodPost, strings.NewReader("body")
				}
				req, _ := http.NewRequest(method, g.URL()+"/", body)
				res, err := client.Do(req)
				if err != nil || res.StatusCode != 200 {
					failed.Add(1)
				}
				if err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				served.Add(1)
			}
		})
	}
	for n := 1; n <= 30; n++ {
		next, closeNext := instance(n)
		before := served.Load()
		g.Set(hello, ready("/", next))
		if err := g.Drain(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		closeOld()
		for served.Load() < before+20 {
			time.Sleep(time.Millisecond)
		}
		old, closeOld = next, closeNext
	}
	close(stop)
	load.Wait()
	closeOld()
	if failed.Load() != 0 {
		t.Errorf("%d of %d requests failed during 30 switch-overs", failed.Load(), served.Load())
	}
}

func TestRefusedConnectionIsRetriedAtTheNewTarget(t *testing.T) {
	g := start(t, Options{})
	gone := httptest.NewServer(says(""))
	gone.Close()
	next := backend(t, says("next"))
	for method, want := range map[string]int{http.MethodGet: 200, http.MethodPost: 502} {
		g.Set(hello, ready("/", gone.URL))
		e, release := g.table.acquire("", "/")
		p := &passage{id: "x", entry: e, release: release}
		g.Set(hello, ready("/", next)) // between the choice of the target and the connection
		rec := &recorder{ResponseWriter: httptest.NewRecorder(), begun: time.Now()}
		req, _ := http.NewRequest(method, "http://site/", nil)
		g.proxy.ServeHTTP(rec, req.WithContext(context.WithValue(t.Context(), passageKey{}, p)))
		p.release()
		if status, _ := rec.result(); status != want {
			t.Errorf("%s: got %d, want %d: only what may be repeated is", method, status, want)
		}
	}
	for _, target := range []string{gone.URL, next} {
		if err := g.Drain(t.Context(), target); err != nil {
			t.Errorf("%s is still counted: %v", target, err)
		}
	}
}

func TestHeldRequests(t *testing.T) {
	t.Run("go on when the app is back", func(t *testing.T) {
		g := start(t, Options{})
		g.Set(hello, site.Route{Path: "/", State: site.RouteHeld})
		got := make(chan reply)
		go func() { got <- get(t, g, "/") }()
		awaitHeld(g, 1)
		g.Set(hello, site.Route{Path: "/", State: site.RouteHeld, Release: "again"})
		g.Set(hello, ready("/", backend(t, says("back"))))
		if r := <-got; r.body != "back" {
			t.Errorf("got %d %s", r.status, r.body)
		}
	})
	t.Run("wait no longer than the bound", func(t *testing.T) {
		g := start(t, Options{Hold: 20 * time.Millisecond})
		g.Set(hello, site.Route{Path: "/", State: site.RouteHeld})
		if r := get(t, g, "/"); r.status != 503 || !strings.Contains(r.body, "is starting") {
			t.Errorf("got %d %s", r.status, r.body)
		}
	})
	t.Run("are bounded in number", func(t *testing.T) {
		g := start(t, Options{MaxHeld: 1})
		g.Set(hello, site.Route{Path: "/", State: site.RouteHeld})
		got := make(chan reply)
		go func() { got <- get(t, g, "/") }()
		awaitHeld(g, 1)
		if r := get(t, g, "/"); r.status != 503 {
			t.Errorf("one too many got %d", r.status)
		}
		g.Remove(hello)
		if r := <-got; r.status != 404 {
			t.Errorf("after the app left, the held request got %d", r.status)
		}
	})
}

func awaitHeld(g *Gateway, n int64) {
	for g.held.Load() < n {
		time.Sleep(time.Millisecond)
	}
}

func TestTooManyInFlight(t *testing.T) {
	g := start(t, Options{MaxInFlight: 1})
	entered, leave := make(chan struct{}), make(chan struct{})
	g.Set(hello, ready("/", backend(t, func(http.ResponseWriter, *http.Request) { close(entered); <-leave })))
	got := make(chan reply)
	go func() { got <- get(t, g, "/") }()
	<-entered
	if r := get(t, g, "/"); r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("got %d", r.status)
	}
	close(leave)
	if r := <-got; r.status != 200 {
		t.Errorf("the first got %d", r.status)
	}
}

func TestCounts(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := start(t, Options{Metrics: reg})
	g.Set(hello, ready("/hello", backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hello/bad" {
			w.WriteHeader(500)
		}
	})))
	g.Set(other, site.Route{Path: "/other", State: site.RouteDown})
	for _, path := range []string{"/hello", "/hello", "/hello/bad", "/other", "/none"} {
		get(t, g, path)
	}
	counts := g.Counts()
	sums := map[string][3]uint64{}
	for app, c := range counts {
		var inBuckets uint64
		for _, n := range c.Buckets {
			inBuckets += n
		}
		if len(c.Buckets) != len(fleet.LatencyBounds())+1 {
			t.Errorf("%d buckets", len(c.Buckets))
		}
		sums[app.Name] = [3]uint64{c.Requests, c.Errors, inBuckets}
	}
	if diff := cmp.Diff(map[string][3]uint64{"hello": {3, 1, 3}, "other": {1, 1, 1}}, sums); diff != "" {
		t.Errorf("requests, errors, in buckets (-want +got):\n%s", diff)
	}
	want := gateway.Report{URL: g.URL(), Requests: 4, Errors: 2, Unknown: 1}
	if diff := cmp.Diff(any(want), g.Report()); diff != "" {
		t.Error(diff)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
		if f.GetName() == "skerry_gateway_latency_seconds" && f.Metric[0].GetHistogram().GetSchema() == 0 && len(f.Metric[0].GetHistogram().GetPositiveSpan()) == 0 {
			t.Error("the latency histogram is not a native one")
		}
	}
	for _, name := range []string{"skerry_gateway_requests_total", "skerry_gateway_latency_seconds", "skerry_gateway_unknown_requests_total"} {
		if !names[name] {
			t.Errorf("metric %s is missing", name)
		}
	}
}

func TestLatencyBuckets(t *testing.T) {
	c, err := newCounts(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{500 * time.Microsecond, 501 * time.Microsecond, time.Hour} {
		c.add(hello, 200, d)
	}
	b := c.all()[hello].Buckets
	if b[0] != 1 || b[1] != 1 || b[len(b)-1] != 1 {
		t.Errorf("buckets %v: a bound belongs to its own bucket, what is beyond all to the last", b)
	}
}

func TestApplyTakesNoSection(t *testing.T) {
	g, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Apply(t.Context(), nil, fleet.Facts{}); err != nil {
		t.Error(err)
	}
	if err := g.Apply(t.Context(), []byte("{}"), fleet.Facts{}); err == nil {
		t.Error("a section that nobody understands was taken")
	}
}
