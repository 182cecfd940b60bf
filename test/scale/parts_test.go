package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCountWrites(t *testing.T) {
	text := `# HELP apiserver_request_total Counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="skerry.dev",resource="sites",scope="resource",subresource="status",verb="PATCH",version="v1alpha1"} 7
apiserver_request_total{code="201",component="apiserver",dry_run="",group="skerry.dev",resource="sites",scope="resource",subresource="status",verb="PATCH",version="v1alpha1"} 1
apiserver_request_total{code="409",group="",resource="sites",subresource="status",verb="PATCH"} 2
apiserver_request_total{code="200",group="coordination.k8s.io",resource="leases",subresource="",verb="PUT"} 100
apiserver_request_total{code="201",group="authorization.k8s.io",resource="subjectaccessreviews",subresource="",verb="POST"} 50
apiserver_request_total{code="200",group="",resource="sites",subresource="",verb="WATCH"} 9
other_total{resource="sites",verb="PUT"} 3
apiserver_request_total{code="200",resource="broken
`
	got := countWrites(parseMetrics(text))
	if diff := cmp.Diff(writes{"PATCH sites/status": 8, "PATCH (409) sites/status": 2}, got); diff != "" {
		t.Errorf("only what changes objects counts, leases apart (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(writes{"PATCH sites/status": 5}, got.since(writes{"PATCH sites/status": 3, "PATCH (409) sites/status": 2})); diff != "" {
		t.Errorf("since (-want +got):\n%s", diff)
	}
	if got.String() != "8 PATCH sites/status, 2 PATCH (409) sites/status" {
		t.Errorf("said as %q", got)
	}
}

func TestParseMetrics(t *testing.T) {
	for text, want := range map[string][]sample{
		"go_goroutines 12\n":      {{name: "go_goroutines", labels: map[string]string{}, value: 12}},
		`x{a="1,b=}",c="\""} 3 9`: {{name: "x", labels: map[string]string{"a": "1,b=}", "c": `\"`}, value: 3}},
		"# TYPE x counter\n\n":    nil,
		"x{":                      nil,
		"x NaNo":                  nil,
		"x":                       nil,
	} {
		if diff := cmp.Diff(want, parseMetrics(text), cmp.AllowUnexported(sample{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

// TestSynced holds what counts as in sync: manifest and report, both on the link that is there.
func TestSynced(t *testing.T) {
	tm := &times{}
	synced := func() bool {
		var s siteTimes
		tm.change(func(now *siteTimes) { s = *now })
		return !s.Synced.IsZero()
	}
	tm.pulled()
	tm.reported("1")
	if synced() {
		t.Error("in sync without a link")
	}
	tm.link(true)
	if tm.pulled(); synced() {
		t.Error("in sync before a report")
	}
	if tm.reported("1"); !synced() {
		t.Error("not in sync after manifest and report")
	}
	if tm.link(false); synced() {
		t.Error("in sync although the link is lost")
	}
	tm.link(true)
	if tm.reported("2"); synced() {
		t.Error("in sync by the manifest of the link before")
	}
	first := tm.s.Reported
	if tm.reported("2"); tm.s.Round != "2" || !tm.s.Reported.Equal(first) {
		t.Error("a report that repeats the round moves its time")
	}
}

func TestCounts(t *testing.T) {
	begun := time.Now()
	c := &client{}
	for _, s := range []siteTimes{
		{Joined: begun, Linked: begun.Add(time.Second), Synced: begun.Add(time.Second), Round: "2", Alive: 3},
		{Joined: begun, Linked: begun.Add(-time.Second), Synced: begun, Round: "1", Alive: 2},
		{},
	} {
		c.members = append(c.members, &member{times: &times{s: s}})
	}
	c.members[2].times.fail(errors.New("refused"))
	got := c.count(request{Round: "2", After: begun}).plus(counts{Sites: 1, Alive: 5})
	want := counts{Sites: 4, Joined: 2, Linked: 2, OnRound: 1, Synced: 1, Alive: 0, Failed: 1, Why: "refused"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := (counts{}).plus(counts{Sites: 1, Alive: 5}); got.Alive != 5 {
		t.Errorf("a process without sites makes the least signs of life %d, want 5", got.Alive)
	}
}

func TestFigures(t *testing.T) {
	for q, want := range map[float64]float64{0: 1, 0.5: 2, 0.99: 4, 1: 4} {
		if got := quantile([]float64{4, 2, 1, 3}, q); got != want {
			t.Errorf("quantile %g is %g, want %g", q, got, want)
		}
	}
	if base, slope, ok := fit([]float64{1, 2, 3}, []float64{5, 7, 9}); !ok || base != 3 || slope != 2 {
		t.Errorf("fit gives %g + %g x", base, slope)
	}
	if _, _, ok := fit([]float64{1}, []float64{5}); ok {
		t.Error("a line through one point")
	}
	for sites, want := range map[int][]int{15000: {1000, 5000, 10000, 15000}, 50: {50}, 1000: {1000}, 2000: {1000, 1333, 2000}} {
		if diff := cmp.Diff(want, stepsTo(sites)); diff != "" {
			t.Errorf("steps to %d (-want +got):\n%s", sites, diff)
		}
	}
}

// TestPageOfPart writes the page of a run that failed in the middle: what was measured is there, and so is why it
// ended; the plot is well-formed.
func TestPageOfPart(t *testing.T) {
	r := &result{Failed: "at 5000 sites: no\nmore", Steps: []*step{
		{Sites: 1000, Growth: &growth{Writes: writes{"POST sites": 1000}}, Idle: &idleness{Resident: 500}, Release: &spread{Max: 3, Kinds: map[kind][2]float64{light: {1, 2}}}, Restart: &spread{Max: 9}},
		{Sites: 5000, Growth: &growth{}, Idle: &idleness{Resident: 900}},
		{Sites: 5100, WebSocket: 100},
	}}
	text := page(r)
	for _, want := range []string{"did not reach its end**: at 5000 sites: no more", "| 500 MiB | 900 MiB |", "1000 POST sites", "for 100000 sites", "5000 + 100 by WebSocket"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "%!") {
		t.Errorf("the page has a broken verb:\n%s", text)
	}
	svg := plot(r)
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	if strings.Contains(svg, "NaN") || strings.Count(svg, "<circle") != 12 {
		t.Errorf("want a point for each of the 12 figures that are there:\n%s", svg)
	}
}
