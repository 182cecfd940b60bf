package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

func read(text string, limits Limits) *Input {
	return Read([]string{Stdin}, strings.NewReader(text), limits)
}

// told writes what was read for a comparison: objects with line and path, then findings.
func told(in *Input) []string {
	var out []string
	for _, o := range in.Objects {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%d %s %s %s", o.Root.Line, o.APIVersion, o, o.Root.Path)))
	}
	for _, f := range in.Findings {
		out = append(out, fmt.Sprintf("%d %s: %s", f.Line, f.Rule, f.Reason))
	}
	return out
}

func TestObjectsAndTheirPlaces(t *testing.T) {
	tests := []struct {
		text   string
		want   []string
		reason string
	}{
		{"# c\n\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\n# nothing\n---\r\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n",
			[]string{"3 v1 Pod a", "10 v1 Pod b"}, "documents, empty ones among them"},
		{"--- # first\napiVersion: v1\nkind: Pod\n...\n", []string{"2 v1 Pod"}, "markers with a comment, and an end"},
		{"\xef\xbb\xbfapiVersion: v1\nkind: Pod\n", []string{"1 v1 Pod"}, "a byte order mark"},
		{"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n- apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: apps/v1\n    kind: Deployment\n",
			[]string{"4 v1 Pod items[0]", "9 apps/v1 Deployment items[1].items[0]"}, "lists in lists"},
		{"apiVersion: apps/v1\nkind: DeploymentList\nitems:\n- metadata: {name: a}\n", []string{"4 apps/v1 Deployment a items[0]"}, "items of a typed list take its kind"},
		{"- apiVersion: v1\n  kind: Pod\n- 5\n", []string{"1 v1 Pod [0]"}, "a bare list"},
		{`{"apiVersion": "v1", "kind": "Pod"}` + "\n" + `{"apiVersion": "v1",` + "\n" + `"kind": "Service"}`, []string{"1 v1 Pod", "2 v1 Service"}, "JSON documents"},
		{"{apiVersion: v1, kind: Pod}\n", []string{"1 v1 Pod"}, "a map in flow style is no JSON"},
		{"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata:\n  a.yaml: |\n\n    # x\n    apiVersion: v1\n    kind: Pod\n    ---\n    apiVersion: v1\n    kind: Service\n  b: \"apiVersion: v1\\nkind: Secret\\n\"\n  c: 'apiVersion: ['\n",
			[]string{"1 v1 ConfigMap m", `8 v1 Pod in ConfigMap m data["a.yaml"]`, `11 v1 Service in ConfigMap m data["a.yaml"]`, "13 v1 Secret in ConfigMap m data.b"},
			"what ConfigMaps hold: exact lines in a block, the value's own otherwise"},
		{"apiVersion: v1\nkind: ConfigMap\ndata:\n  o: |\n    apiVersion: v1\n    kind: ConfigMap\n    data:\n      i: |\n        apiVersion: v1\n        kind: Pod\n",
			[]string{"1 v1 ConfigMap", "5 v1 ConfigMap in ConfigMap data.o", "9 v1 Pod in ConfigMap in ConfigMap data.o data.i"}, "a ConfigMap in a ConfigMap"},
		{"apiVersion: v1\nkind: Pod\nmetadata: &m {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata: *m\n",
			[]string{"1 v1 Pod a", "4 input-unusable: unknown anchor 'm' referenced"}, "an anchor ends with its document, and a broken document takes no other away"},
		{"name: x\n---\njust text\n---\nkind: Cluster\n", []string{"0 input-unusable: it holds no Kubernetes object"}, "other documents are passed over, but not all of them"},
		{"apiVersion: v1\nmetadata: {name: a}\n---\nkind: Pod\nmetadata: {name: a}\n",
			[]string{"1 input-unusable: it has an apiVersion and no kind", "4 input-unusable: it has a kind and no apiVersion"}, "half a name"},
		{"a: b: c\n", []string{"1 input-unusable: mapping values are not allowed in this context"}, "no YAML"},
		{"a: 1\n---\napiVersion: v1\nkind: Pod\n  x: [\n", []string{"5 input-unusable: mapping values are not allowed in this context"}, "the line counts from the file's beginning"},
		{"{{ if .Values.x }}\napiVersion: v1\n{{ end }}\n", []string{"1 input-unusable: a field's name is no text"}, "a template"},
		{"a: &a [*a]\n", []string{"1 input-unusable: the anchor \"a\" holds itself"}, "a cycle"},
		{"<<: 5\n", []string{"1 input-unusable: a merge key needs a map, or a list of maps"}, "a wrong merge"},
		{"? [a]\n: 1\n", []string{"1 input-unusable: a field's name is no text"}, "a name that is a list"},
		{"a: 1\n...\nb: 2\n", []string{"1 input-unusable: a line with three dots ends the document and another follows: begin it with three dashes"}, "what would be lost is said"},
		{"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n", []string{"1 kustomize.config.k8s.io/v1beta1 Kustomization",
			"1 input-skipped: kustomizations are not built yet; the files beside it are checked as they stand"}, "what is not done is said"},
		{"", []string{"0 input-unusable: it holds no Kubernetes object"}, "nothing at all"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, told(read(tt.text, DefaultLimits()))); diff != "" {
			t.Errorf("%s:\n%s\n(-want +got) %s", tt.reason, tt.text, diff)
		}
	}
}

func TestScalars(t *testing.T) {
	in := "a: yes\nb: 'yes'\nc: 0x1F\nd: 0755\ne: 1_000\nf: 1.50\ng: ~\nh: .inf\ni: 2020-01-01\nj: !!str 5\nk: |\n  text\nl: OFF\nm: 1e3\non: 1\n5: 1\nbase: &b {u: 1, v: 2}\np:\n  <<: *b\n  v: 3\nq:\n  <<: [{w: 1}, *b, {u: 9}]\n"
	v, err := readYAML([]byte(in), DefaultLimits(), func(n int) int { return n })
	if err != nil {
		t.Fatal(err)
	}
	got, err := check.AppendJSON(nil, v)
	want := `{"a":true,"b":"yes","c":31,"d":493,"e":1000,"f":1.5,"g":null,"h":".inf","i":"2020-01-01","j":"5","k":"text\n","l":false,"m":1000,"true":1,"5":1,"base":{"u":1,"v":2},"p":{"v":3,"u":1},"q":{"w":1,"u":1,"v":2}}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestLimits(t *testing.T) {
	small := Limits{FileBytes: 4000, TotalBytes: 5000, Files: 2, DocumentBytes: 3000, Objects: 3, Depth: 10, Values: 50}
	const pod = "apiVersion: v1\nkind: Pod\n---\n"
	bomb := "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\n"
	tests := []struct{ text, want, reason string }{
		{strings.Repeat("#", 4001), "larger than the 4000 bytes", "a file"},
		{strings.Repeat("#", 3001), "document is larger than 3000 bytes", "a document"},
		{strings.Repeat(pod, 4), "more than 3 objects", "objects"},
		{strings.Repeat("[", 90), "did not find expected node content", "flow style that does not close"},
		{strings.Repeat("[", 200), "nested too deeply", "flow style that the parser never sees"},
		{"apiVersion: v1\na: " + strings.Repeat("[", 11) + strings.Repeat("]", 11), "nested too deeply", "flow style"},
		{strings.Repeat("- ", 11) + "x", "nested too deeply", "lists in lists"},
		{"a: &a [[[[[[x]]]]]]\nb: [[[[[*a]]]]]\n", "nested too deeply", "depth by an alias"},
		{bomb, "more than 50 values", "aliases that multiply"},
		{"[" + strings.Repeat("a,", 60) + "]", "more than 50 values", "many values"},
		{"[" + strings.Repeat(",", 250) + "]", "more than 50 values", "many values that the parser never sees"},
		{`{"a": ` + strings.Repeat("[", 11) + strings.Repeat("]", 11) + "}", "nested too deeply", "JSON in depth"},
		{`{"a": [` + strings.Repeat("1,", 60) + "1]}", "more than 50 values", "JSON in breadth"},
	}
	for _, tt := range tests {
		in := read(tt.text, small)
		if !in.Unusable() || !strings.Contains(strings.Join(told(in), "\n"), tt.want) {
			t.Errorf("%s: %.60q was read: %v, want %q", tt.reason, tt.text, told(in), tt.want)
		}
	}
	if in := read(strings.Repeat(pod, 3), small); in.Unusable() || len(in.Objects) != 3 {
		t.Errorf("three objects are not more than three: %v", told(in))
	}
}

// write makes files below a folder of the test and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFolders(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\n"
	dir := write(t, map[string]string{
		"a.yaml": pod, "b/c.YML": pod, "b/d.json": `{"apiVersion":"v1","kind":"Pod"}`, "b/e.txt": pod,
		".git/x.yaml": pod, "values.yaml": "a: [", "package.json": "{,}", "broken.yaml": "apiVersion: [", "broken.json": `{"apiVersion": `,
		"chart/Chart.yaml": "apiVersion: v2\nname: x\n", "chart/templates/x.yaml": "{{",
	})
	if err := errors.Join(os.Symlink(filepath.Join(dir, "b"), filepath.Join(dir, "linked")), os.Symlink(filepath.Join(dir, "gone"), filepath.Join(dir, "gone.yaml")),
		os.Symlink(filepath.Join(dir, "b"), filepath.Join(dir, "l.yaml"))); err != nil {
		t.Fatal(err)
	}
	in := Read([]string{dir, filepath.Join(dir, "a.yaml")}, nil, DefaultLimits())
	var got []string
	for _, o := range in.Objects {
		got = append(got, strings.TrimPrefix(o.File, dir+"/"))
	}
	if diff := cmp.Diff([]string{"a.yaml", "b/c.YML", "b/d.json"}, got); diff != "" {
		t.Errorf("files read once each (-want +got): %s", diff)
	}
	got = nil
	for _, f := range in.Findings {
		got = append(got, strings.TrimPrefix(f.File, dir+"/")+" "+f.Rule)
	}
	want := []string{"broken.json input-unusable", "broken.yaml input-unusable", "chart input-skipped", "gone.yaml input-unusable", "l.yaml input-skipped"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got): %s", diff)
	}
}

func TestPathsThatCannotBeUsed(t *testing.T) {
	dir := write(t, map[string]string{"values.yaml": "a: 1\n", "empty/x.txt": "", "broken.yaml": "a: [\n"})
	for _, tt := range []struct{ path, want string }{
		{"none", "no such file or directory"},
		{"values.yaml", "it holds no Kubernetes object"},
		{"empty", "it holds no Kubernetes object"},
		{"broken.yaml", "did not find expected node content"},
	} {
		in := Read([]string{filepath.Join(dir, tt.path)}, nil, DefaultLimits())
		if len(in.Findings) != 1 || !in.Unusable() || in.Findings[0].File != filepath.Join(dir, tt.path) || !strings.Contains(in.Findings[0].Reason, tt.want) {
			t.Errorf("%s: %v, want %q", tt.path, in.Findings, tt.want)
		}
	}
	good := filepath.Join(write(t, map[string]string{"a.yaml": "apiVersion: v1\nkind: Pod\n"}), "a.yaml")
	if in := Read([]string{good, good, filepath.Join(dir, "empty")}, nil, DefaultLimits()); len(in.Objects) != 1 || len(in.Findings) != 1 {
		t.Errorf("a file twice and an empty folder: %v", told(in))
	}
	limits := DefaultLimits()
	limits.Files = 1
	dir = write(t, map[string]string{"a.yaml": "apiVersion: v1\nkind: Pod\n", "b.yaml": "apiVersion: v1\nkind: Pod\n"})
	if in := Read([]string{dir}, nil, limits); !in.Unusable() || len(in.Objects) != 1 {
		t.Errorf("a second file was read: %v", told(in))
	}
}
