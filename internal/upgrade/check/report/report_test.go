package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// sample has a finding of each severity, one of no place, and text that every form must escape.
func sample() Report {
	return Report{
		Version: "1.2.3", Kubernetes: "1.36", PodSecurity: "baseline", Files: 1, Objects: 2,
		Rules: []check.Rule{{ID: "api-removed", Title: "The API is gone", Severity: check.Failure, Why: "It is refused."}, {ID: "note", Title: "A note", Why: "So."}},
		Findings: []check.Finding{
			{Rule: "kubernetes-partial", Severity: check.Warning, Reason: "little is known"},
			{Rule: "api-removed", Severity: check.Failure, File: "a b/x,y:z.yaml", Line: 7, Object: "Pod a|b", Field: "apiVersion", Reason: "100% <gone>\n::error::x", Fix: "use `v1`"},
			{Rule: "note", Severity: check.Info, File: "-", Object: "Pod \x1b[31mred", Reason: "why & how"},
		},
		Fails: func(f check.Finding) bool { return f.Severity == check.Failure },
	}
}

func written(t *testing.T, format string, r Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, format, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const summaryOfSample = "2 objects in 1 file checked for Kubernetes 1.36, Pod Security level baseline: 1 error, 1 warning, 1 info"

func TestFormsForPeople(t *testing.T) {
	tests := []struct{ format, want string }{
		{"table", "warning  kubernetes-partial\n    little is known\n" +
			"a b/x,y:z.yaml:7  error  api-removed  Pod a|b  apiVersion\n    100% <gone>\uFFFD::error::x\n    fix: use `v1`\n" +
			"-  info  note  Pod \uFFFD[31mred\n    why & how\n" + summaryOfSample + "\n"},
		{"github", "::warning title=kubernetes-partial::little is known\n" +
			"::error title=api-removed,file=a b/x%2Cy%3Az.yaml,line=7::Pod a|b: 100%25 <gone>\uFFFD::error::x; fix: use `v1`\n" +
			"::notice title=note::Pod \uFFFD[31mred: why & how\n" + summaryOfSample + "\n"},
		{"markdown", "### skerry check\n\n" + summaryOfSample + ".\n\n| severity | place | object | rule | what | fix |\n| --- | --- | --- | --- | --- | --- |\n" +
			"| warning |  |  | `kubernetes-partial` | little is known |  |\n" +
			"| error | a b/x,y:z.yaml:7 | Pod a\\|b | `api-removed` | 100% &lt;gone&gt;\uFFFD::error::x | use \\`v1\\` |\n" +
			"| info | - | Pod \uFFFD\\[31mred | `note` | why &amp; how |  |\n"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, written(t, tt.format, sample())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.format, diff)
		}
	}
}

func TestNothingFound(t *testing.T) {
	r := Report{Kubernetes: "1.38", Partial: true, PodSecurity: "restricted", Files: 2, Objects: 1, Fails: func(check.Finding) bool { return true }}
	const want = "1 object in 2 files checked for Kubernetes 1.38, of which only announced removals are known, Pod Security level restricted: nothing was found"
	for _, format := range []string{"table", "github", "markdown", "junit"} {
		if got := written(t, format, r); !strings.Contains(got, want) {
			t.Errorf("%s of nothing is\n%s", format, got)
		}
	}
	for _, format := range []string{"json", "sarif"} {
		if got := written(t, format, r); strings.Contains(got, "null") {
			t.Errorf("%s of nothing has null in place of an empty list:\n%s", format, got)
		}
	}
}

func TestJSON(t *testing.T) {
	var got struct {
		Kubernetes, PodSecurity string
		Partial                 bool
		Files, Objects          int
		Counts                  map[string]int
		Findings                []map[string]any
	}
	if err := json.Unmarshal([]byte(written(t, "json", sample())), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"rule": "api-removed", "severity": "error", "file": "a b/x,y:z.yaml", "line": 7.0, "object": "Pod a|b", "field": "apiVersion",
		"reason": "100% <gone>\n::error::x", "fix": "use `v1`"}
	if diff := cmp.Diff(want, got.Findings[1]); diff != "" || len(got.Findings) != 3 {
		t.Errorf("the finding (-want +got): %s", diff)
	}
	if diff := cmp.Diff(map[string]int{"error": 1, "warning": 1, "info": 1}, got.Counts); diff != "" || got.Kubernetes != "1.36" || got.PodSecurity != "baseline" || got.Files != 1 || got.Objects != 2 {
		t.Errorf("the report is %+v", got)
	}
}

func TestSARIF(t *testing.T) {
	var got sarifLog
	decoder := json.NewDecoder(strings.NewReader(written(t, "sarif", sample())))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Fatal(err)
	}
	run := got.Runs[0]
	if got.Version != "2.1.0" || run.Tool.Driver.Version != "1.2.3" || len(run.Tool.Driver.Rules) != 2 || run.Tool.Driver.Rules[1].Default.Level != "note" {
		t.Errorf("the log is %+v", got)
	}
	if len(run.Results) != 3 || len(run.Results[0].Locations) != 0 || run.Results[2].Level != "note" {
		t.Fatalf("the results are %+v", run.Results)
	}
	r := run.Results[1]
	at := r.Locations[0]
	if r.RuleID != "api-removed" || r.Level != "error" || at.Physical.Artifact.URI != "a%20b/x,y:z.yaml" || at.Physical.Region.StartLine != 7 || at.Logical[0].FullyQualifiedName != "Pod a|b apiVersion" {
		t.Errorf("the result is %+v at %+v", r, at)
	}
	for file, want := range map[string]string{"./a/../b.yaml": "b.yaml", "/tmp/x y": "file:///tmp/x%20y", "a:b": "./a:b"} {
		if got := uri(file); got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		}
	}
}

func TestJUnit(t *testing.T) {
	var got junitSuites
	if err := xml.Unmarshal([]byte(written(t, "junit", sample())), &got); err != nil {
		t.Fatal(err)
	}
	s := got.Suite
	if s.Tests != 4 || len(s.Cases) != 4 || s.Failures != 1 {
		t.Fatalf("the suite is %+v", s)
	}
	if c := s.Cases[1]; c.Failure == nil || c.Failure.Type != "error" || c.File != "a b/x,y:z.yaml" || c.Line != 7 || c.Class != "api-removed" {
		t.Errorf("the case that fails is %+v", c)
	}
	if c := s.Cases[0]; c.Failure != nil || c.Output != "warning: little is known" {
		t.Errorf("the case that passes is %+v", c)
	}
}

// broken is a writer that does not write.
type broken struct{}

var errBroken = errors.New("broken pipe")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestFormats(t *testing.T) {
	for _, format := range Formats() {
		if err := Write(broken{}, format, sample()); !errors.Is(err, errBroken) {
			t.Errorf("%s: an error of the writer became %v", format, err)
		}
	}
	if err := Write(io.Discard, "html", sample()); !errors.Is(err, ErrFormat) {
		t.Errorf("html: %v, want ErrFormat", err)
	}
}
