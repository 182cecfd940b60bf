package monitoring

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/testenv"
	"github.com/skerry-dev/skerry/test/fleettest"
)

const shipped = "../../deploy/monitoring/"

var programs fleettest.Binaries

func TestMain(m *testing.M) { fleettest.Main(m, &programs) }

// rule is one alert of the rules that we ship.
type rule struct {
	Alert       string
	Expr        string
	Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	data, err := os.ReadFile(shipped + "alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	var out []rule
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	if len(out) < 10 {
		t.Fatalf("%d rules were read", len(out))
	}
	return out
}

// TestRunbooks holds every alert to a page that says what to do, and every page to an alert.
func TestRunbooks(t *testing.T) {
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules(t) {
		page := "../../docs/runbooks/" + strings.ToLower(r.Alert) + ".md"
		if !strings.HasSuffix(r.Annotations["runbook_url"], strings.TrimPrefix(page, "../..")) {
			t.Errorf("%s names runbook %q", r.Alert, r.Annotations["runbook_url"])
		}
		text, err := os.ReadFile(page)
		if err != nil || !strings.Contains(string(text), "## What to do") || !strings.Contains(string(text), "`"+r.Expr+"`") {
			t.Errorf("%s: its page lacks what to do, or fires on something else: %v", r.Alert, err)
		}
		pages = slices.DeleteFunc(pages, func(p string) bool { return p == page })
	}
	if len(pages) > 0 {
		t.Errorf("pages without an alert: %v", pages)
	}
}

// TestAlerts lets promtool play fleets in trouble, and a healthy one.
func TestAlerts(t *testing.T) {
	testenv.Require(t, testenv.Tool("promtool"))
	dir := t.TempDir()
	for from, to := range map[string]string{shipped + "alerts.yaml": "alerts.yaml", "testdata/alerts.test.yaml": "alerts.test.yaml"} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("promtool", "test", "rules", filepath.Join(dir, "alerts.test.yaml")).CombinedOutput()
	if err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// panels are the queries of the dashboard, by title.
func panels(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(shipped + "dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			out[p.Title] = append(out[p.Title], target.Expr)
		}
	}
	if len(out) < 10 {
		t.Fatalf("%d panels were read", len(out))
	}
	return out
}

// metricName finds what must exist; functions and labels have other beginnings.
var metricName = regexp.MustCompile(`\b(?:skerry|apiserver|etcd|process|go|controller_runtime)_[a-z_]+\b`)

// TestMetricsExist runs a fleet and a Prometheus that scrapes it, and asks for everything that rules and
// panels name.
func TestMetricsExist(t *testing.T) {
	fleettest.Require(t)
	testenv.Require(t, testenv.Tool("prometheus"))
	f := fleettest.StartUp(t, programs, fleettest.NewDir(t))
	s, err := f.SiteStatus("shop-1")
	if err != nil {
		t.Fatal(err)
	}
	if code, _, err := fleettest.Get(s.Gateway + "/"); err != nil || code != http.StatusOK { // counted
		t.Fatalf("the example answers %d, %v", code, err)
	}
	p := startPrometheus(t, address(t, f.Dir), address(t, f.SiteDir("shop-1")))
	fleettest.Eventually(t, time.Minute, "three targets are up", func() string {
		var found []sample
		if err := p.query("up == 1", &found); err != nil || len(found) != 3 {
			return fmt.Sprint(found, err)
		}
		return ""
	})
	var names []string
	if err := p.get("/api/v1/label/__name__/values", nil, &names); err != nil {
		t.Fatal(err)
	}
	check := func(what, expr string) {
		for _, name := range metricName.FindAllString(expr, -1) {
			if !slices.Contains(names, name) && !slices.Contains(names, name+"_bucket") {
				t.Errorf("%s asks for %s, which nobody tells: %s", what, name, expr)
			}
		}
		for _, m := range matcher.FindAllStringSubmatch(expr, -1) {
			p.checkMatcher(t, what, m[1], m[2], m[3])
		}
		var ignored []sample
		if err := p.query(expr, &ignored); err != nil {
			t.Errorf("%s: Prometheus does not take %s: %v", what, expr, err)
		}
	}
	for _, r := range rules(t) {
		check("alert "+r.Alert, r.Expr)
	}
	for title, exprs := range panels(t) {
		for _, expr := range exprs {
			check("panel "+title, expr)
		}
	}
	var firing []sample
	if err := p.query(`ALERTS{alertstate="firing"}`, &firing); err != nil || len(firing) > 0 {
		t.Errorf("a fleet that just started fires %v %v", firing, err)
	}
}

// matcher finds a metric of ours with its one label and the value that it must have.
var matcher = regexp.MustCompile(`\b(skerry_[a-z_]+)\{([a-z_]+)="([^"]*)"\}`)

// checkMatcher fails for a value that a label never has as it is written: such a rule never fires. A value that
// nobody has had yet is fine, but not beside one that differs in case alone; and the label must be there.
func (p prometheus) checkMatcher(t *testing.T, what, metric, label, value string) {
	t.Helper()
	var values []string
	if err := p.get("/api/v1/label/"+label+"/values", url.Values{"match[]": {metric}}, &values); err != nil {
		t.Fatal(err)
	}
	if len(values) == 0 {
		t.Errorf("%s: %s has no label %s", what, metric, label)
	}
	for _, v := range values {
		if v != value && strings.EqualFold(v, value) {
			t.Errorf("%s asks for %s{%s=%q}, which is written %q", what, metric, label, value, v)
		}
	}
}

// address reads where a process serves its metrics.
func address(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "admin.addr"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// prometheus is a running one.
type prometheus struct{ url string }

// sample is one of a query's results.
type sample struct{ Metric map[string]string }

func startPrometheus(t *testing.T, hub, site string) prometheus {
	t.Helper()
	dir := t.TempDir()
	alerts, err := filepath.Abs(shipped + "alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: skerry-hub, static_configs: [{targets: [%q]}]}
  - {job_name: skerry-hub-kubernetes, metrics_path: /metrics/kubernetes, static_configs: [{targets: [%q]}]}
  - {job_name: skerry-site, static_configs: [{targets: [%q]}]}
`, alerts, hub, hub, site)
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := l.Addr().String()
	l.Close()
	fleettest.Run(t, "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen, "--log.level=warn")
	return prometheus{url: "http://" + listen}
}

func (p prometheus) query(expr string, into *[]sample) error {
	var data struct{ Result []sample }
	err := p.get("/api/v1/query", url.Values{"query": {expr}}, &data)
	*into = data.Result
	return err
}

func (p prometheus) get(path string, query url.Values, into any) error {
	res, err := http.Get(p.url + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", res.Status, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", res.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}
