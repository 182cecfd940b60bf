package check

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func text(s string, line int) *Value { return &Value{Kind: String, Text: s, Line: line} }

// sample is {metadata: {name: web, labels: {app.example.com/name: x}}, items: [a, 1, null, true]}.
func sample() Ref {
	labels := &Value{Kind: Map, Line: 3, Fields: []Field{{"app.example.com/name", 4, text("x", 4)}}}
	meta := &Value{Kind: Map, Line: 2, Fields: []Field{{"name", 2, text("old", 2)}, {"labels", 3, labels}, {"name", 5, text("web", 5)}}}
	items := &Value{Kind: List, Line: 7, Items: []*Value{text("a", 7), {Kind: Number, Text: "1", Line: 8}, {Kind: Null, Line: 9}, {Kind: Bool, Text: "true", Line: 10}}}
	return Ref{Line: 1, Value: &Value{Kind: Map, Line: 1, Fields: []Field{{"metadata", 1, meta}, {"items", 6, items}}}}
}

func TestRefs(t *testing.T) {
	tests := []struct {
		at     Ref
		path   string
		line   int
		text   string
		exists bool
		reason string
	}{
		{sample().Get("metadata", "name"), "metadata.name", 5, "web", true, "of fields with one name the last counts, as in JSON"},
		{sample().Get("metadata", "labels", "app.example.com/name"), `metadata.labels["app.example.com/name"]`, 4, "x", true, "names with dots stand in brackets"},
		{sample().Get("metadata", "spec", "x"), "metadata.spec.x", 1, "", false, "what is not there is placed at what is around it"},
		{sample().Get("items").Items()[2], "items[2]", 9, "", false, "null is as good as nothing"},
		{sample().Get("items").Items()[1], "items[1]", 8, "", true, "a number is no text"},
		{sample().Get("items", "x"), "items.x", 6, "", false, "a list has no fields"},
		{Ref{}.Get("x"), "x", 0, "", false, "nothing has nothing"},
	}
	for _, tt := range tests {
		if tt.at.Path != tt.path || tt.at.Line != tt.line || tt.at.Text() != tt.text || tt.at.Exists() != tt.exists {
			t.Errorf("got %q line %d %q %v, want %q line %d: %s", tt.at.Path, tt.at.Line, tt.at.Text(), tt.at.Exists(), tt.path, tt.line, tt.reason)
		}
	}
	items := sample().Get("items")
	if got := items.Texts(); !cmp.Equal(got, []string{"a"}) {
		t.Errorf("texts of a mixed list are %v", got)
	}
	if !items.Items()[3].True() || items.Items()[0].True() || items.True() {
		t.Error("only the Bool true is true")
	}
	if len(items.Fields()) != 0 || len(sample().Items()) != 0 || len(sample().Fields()) != 2 {
		t.Error("a list has no fields, and a map no items")
	}
}

func TestAppendJSON(t *testing.T) {
	got, err := AppendJSON(nil, sample().Value)
	want := `{"metadata":{"name":"old","labels":{"app.example.com/name":"x"},"name":"web"},"items":["a",1,null,true]}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	if got, err := AppendJSON(nil, nil); err != nil || string(got) != "null" {
		t.Errorf("nil is %s, %v", got, err)
	}
	deep := text("x", 1)
	for range 2 * maxJSONDepth {
		deep = &Value{Kind: List, Items: []*Value{deep}}
	}
	if _, err := AppendJSON(nil, deep); !errors.Is(err, ErrDeep) {
		t.Errorf("a deep value was answered with %v", err)
	}
}

func TestObject(t *testing.T) {
	o := &Object{File: "a.yaml", APIVersion: "apps/v1", Kind: "Deployment", Root: sample(), Within: "ConfigMap x data.y"}
	if o.Group() != "apps" || o.Version() != "v1" || o.String() != "Deployment web in ConfigMap x data.y" {
		t.Errorf("%s of %s, %s", o, o.Group(), o.Version())
	}
	core := &Object{APIVersion: "v1", Kind: "Pod", Root: Ref{Value: &Value{Kind: Map, Fields: []Field{{"metadata", 1, &Value{Kind: Map, Fields: []Field{
		{"generateName", 1, text("job-", 1)}, {"namespace", 1, text("shop", 1)}}}}}}}}
	if core.Group() != "" || core.Version() != "v1" || core.String() != "Pod shop/job-*" {
		t.Errorf("%s of %q, %s", core, core.Group(), core.Version())
	}
	f := o.Finding("rule", Failure, o.Root.Get("metadata", "name"), "because", "mend it")
	want := Finding{"rule", Failure, "a.yaml", 5, o.String(), "metadata.name", "because", "mend it"}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Error(diff)
	}
}

func TestSeverities(t *testing.T) {
	for _, s := range []Severity{Info, Warning, Failure} {
		got, err := ParseSeverity(s.String())
		if err != nil || got != s {
			t.Errorf("%s is read as %s, %v", s, got, err)
		}
	}
	if _, err := ParseSeverity("fatal"); err == nil || !strings.Contains(err.Error(), "error, warning or info") {
		t.Errorf("a severity that there is not: %v", err)
	}
}

func TestOrderOfFindings(t *testing.T) {
	want := []Finding{
		{Rule: "z", Severity: Failure},
		{Rule: "b", File: "a.yaml", Line: 3, Severity: Failure},
		{Rule: "a", File: "a.yaml", Line: 3, Severity: Warning},
		{Rule: "b", File: "a.yaml", Line: 3, Severity: Warning},
		{Rule: "a", File: "a.yaml", Line: 20, Severity: Failure},
		{Rule: "a", File: "b.yaml", Line: 1, Severity: Info},
	}
	got := []Finding{want[5], want[3], want[4], want[0], want[2], want[1]}
	Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := Count(got); n[Failure] != 3 || n[Warning] != 2 || n[Info] != 1 {
		t.Errorf("counted %v", n)
	}
}
