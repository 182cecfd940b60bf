package manifest

import (
	"bytes"
	"encoding/json"
	"regexp"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// FuzzRead holds the reader to end, within its limits, with objects that have a place, or with a finding.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"apiVersion: v1\nkind: Pod\n---\n{\"apiVersion\": \"v1\"}\n",
		"apiVersion: v1\nkind: ConfigMap\ndata:\n  a: |\n    apiVersion: v1\n    kind: List\n    items: [{}]\n",
		"a: &a [*a]\n", "<<: [*x]\n", "? a\n: - b\n", "%YAML 1.1\n---\n!!binary x", "a: !!int 99999999999999999999\nb: 0b11\n", "{\"a\":", "\xff\xfe", "- - - -\n", "&a a: *a\n",
		"kind: XList\napiVersion: v1\nitems:\n- metadata: {}\n", "a: >+\n\n\n  b\n c\n", "\"\\u00zz\"", "'", "a: [\n]]\n", "...\n...\n--- |\n ---\n",
	} {
		f.Add([]byte(seed))
	}
	limits := Limits{FileBytes: 1 << 16, TotalBytes: 1 << 16, Files: 1, DocumentBytes: 1 << 14, Objects: 50, Depth: 20, Values: 2000}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := Read([]string{Stdin}, bytes.NewReader(data), limits)
		if len(in.Objects) == 0 && len(in.Findings) == 0 {
			t.Error("nothing was read, and nothing was said")
		}
		last := bytes.Count(data, []byte("\n")) + 1
		for _, o := range in.Objects {
			if o.APIVersion == "" || o.Kind == "" || o.Root.Line < 1 || o.Root.Line > last {
				t.Errorf("%s at line %d of %d", o, o.Root.Line, last)
			}
			checkLines(t, o.Root.Value, last, 0)
			if out, err := check.AppendJSON(nil, o.Root.Value); err != nil || !json.Valid(out) {
				t.Errorf("%s: %v: %s", o, err, out)
			}
		}
		for _, f := range in.Findings {
			if f.Reason == "" || f.Line < 0 || f.Line > last+1 {
				t.Errorf("finding %+v of %d lines", f, last)
			}
		}
	})
}

func checkLines(t *testing.T, v *check.Value, last, depth int) {
	if v.Line < 1 || v.Line > last || depth > 1000 {
		t.Fatalf("a value at line %d of %d, depth %d", v.Line, last, depth)
	}
	for _, f := range v.Fields {
		checkLines(t, f.Value, last, depth+1)
	}
	for _, i := range v.Items {
		checkLines(t, i, last, depth+1)
	}
}

// FuzzReadsAsKubectl compares what a document means with what kubectl's own reader makes of it.
func FuzzReadsAsKubectl(f *testing.F) {
	for _, seed := range []string{
		"a: yes\nb: [no, ~, 0x10, 010, 1.5, 1e3]\n", "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n", "a: |\n  x\nb: >-\n  y\n  z\n", "a: 'it''s'\nb: \"\\n\"\n",
		"metadata:\n  name: web\nspec:\n- x: {}\n- []\n",
	} {
		f.Add(seed)
	}
	limits := DefaultLimits()
	f.Fuzz(func(t *testing.T, text string) {
		if unlike.MatchString(text) {
			t.Skip()
		}
		theirs, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Skip() // doubled fields and the like, which the API server's own strictness is about
		}
		v, err := readYAML([]byte(text), limits, func(n int) int { return n })
		if err != nil || v == nil {
			t.Skip() // stricter than kubectl
		}
		ours, err := check.AppendJSON(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if err := json.Unmarshal(theirs, &a); err != nil {
			t.Skip()
		}
		if err := json.Unmarshal(ours, &b); err != nil {
			t.Fatal(err)
		}
		if x, y := canonical(t, a), canonical(t, b); x != y {
			t.Errorf("%q\nkubectl %s\nours    %s", text, x, y)
		}
	})
}

// unlike finds what the two parsers are known to see differently, none of which manifests hold: tags, digits grouped
// by _, numbers of base 60, times, tabs, signs before words, and anything but printable ASCII.
var unlike = regexp.MustCompile(`[^\n -~]|[!%+_]|:[^ \n]|[0-9]-[0-9]`)

func canonical(t *testing.T, v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
