package apitest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	appbundle "github.com/skerry-dev/skerry/internal/app/bundle"
)

// root is the top of the repository.
const root = "../.."

// example is one block of a document.
type example struct {
	// at names the document and the first line of the block.
	at, text string
}

// blocks returns the fenced blocks of yaml of a document.
func blocks(t *testing.T, file string) []example {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	var out []example
	var text *strings.Builder
	begun, n := 0, 0
	for line := range strings.Lines(string(data)) {
		n++
		switch fence := strings.TrimSpace(line); {
		case text == nil && (fence == "```yaml" || fence == "```yml"):
			text, begun = &strings.Builder{}, n+1
		case text != nil && fence == "```":
			out = append(out, example{fmt.Sprintf("%s:%d", file, begun), text.String()})
			text = nil
		case text != nil:
			text.WriteString(line)
		}
	}
	if text != nil {
		t.Fatalf("%s:%d: the block does not end", file, begun)
	}
	return out
}

// documents are those whose examples people copy.
func documents(t *testing.T) []string {
	t.Helper()
	specs, err := filepath.Glob(filepath.Join(root, "docs", "spec", "*.md"))
	if err != nil || len(specs) == 0 {
		t.Fatalf("find docs/spec: %d documents, error %v", len(specs), err)
	}
	docs := []string{"README.md"}
	for _, spec := range specs {
		docs = append(docs, "docs/spec/"+filepath.Base(spec))
	}
	return docs
}

// TestExamplesOfObjects holds every object that a document shows to the schemas and rules that the API
// server enforces, unknown fields included, and every kind to have one.
func TestExamplesOfObjects(t *testing.T) {
	kinds := loadKinds(t)
	shown := map[string]int{}
	for _, doc := range documents(t) {
		for _, e := range blocks(t, doc) {
			for _, obj := range objects(t, e) {
				if obj["apiVersion"] != apiVersion {
					continue
				}
				name, _ := obj["kind"].(string)
				k, ok := kinds[name]
				if !ok {
					t.Errorf("%s: there is no kind %q", e.at, name)
					continue
				}
				shown[name]++
				for _, fault := range k.check(t, obj) {
					t.Errorf("%s: %s: %s", e.at, name, fault)
				}
			}
		}
	}
	for name := range kinds {
		if shown[name] == 0 {
			t.Errorf("no document shows an object of kind %s", name)
		}
	}
}

// objects are the documents of one block. A block that is no object, such as a bundle.yaml, is passed on
// like any other: the caller looks at its apiVersion.
func objects(t *testing.T, e example) []map[string]any {
	t.Helper()
	var out []map[string]any
	for _, part := range strings.Split("\n"+e.text, "\n---") {
		raw, err := yaml.YAMLToJSONStrict([]byte(part))
		if err != nil {
			t.Fatalf("%s: %v", e.at, err)
		}
		var obj map[string]any
		if err := yaml.Unmarshal(raw, &obj); err != nil {
			t.Fatalf("%s: %v", e.at, err)
		}
		if len(obj) > 0 {
			out = append(out, obj)
		}
	}
	return out
}

// TestExamplesOfBundles holds the bundle.yaml files of docs/spec/bundle.md to what `skerry push` takes.
func TestExamplesOfBundles(t *testing.T) {
	found := 0
	for _, e := range blocks(t, "docs/spec/bundle.md") {
		if strings.Contains(e.text, "apiVersion:") {
			continue
		}
		found++
		if _, err := appbundle.ParseSource([]byte(e.text)); err != nil {
			t.Errorf("%s: %v", e.at, err)
		}
	}
	if found == 0 {
		t.Error("docs/spec/bundle.md shows no bundle.yaml")
	}
}

// TestWrongObjectsAreRefused makes sure that the check above can fail, in each of its steps.
func TestWrongObjectsAreRefused(t *testing.T) {
	kinds := loadKinds(t)
	const head = "apiVersion: skerry.dev/v1alpha1\nkind: "
	for _, c := range []struct{ reason, object, want string }{
		{"a field that is misspelt", "App\nmetadata: {name: a}\nspec: {source: {bundle: 'a:1'}, placement: {sites: {}}, rout: {path: /}}", "spec.rout: there is no such field"},
		{"a field that is missing", "App\nmetadata: {name: a}\nspec: {source: {bundle: 'a:1'}}", "spec.placement"},
		{"a value of another type", "App\nmetadata: {name: a}\nspec: {source: {bundle: 'a:1'}, placement: {sites: {}}, env: {A: 1}}", "spec.env.A"},
		{"a value that a pattern refuses", "App\nmetadata: {name: a}\nspec: {source: {bundle: a}, placement: {sites: {}}}", "spec.source.bundle"},
		{"a value that a rule refuses", "App\nmetadata: {name: a}\nspec: {source: {bundle: 'a:1'}, placement: {sites: {}}, update: {maxUnavailable: 0}}", "must be a number from 1"},
		{"a name that a rule of the whole object refuses", "Site\nmetadata: {name: Shop}", "the name of a site"},
		{"a value that is none of those allowed", "SiteGrant\nmetadata: {name: g}\nspec: {namespaces: [a], sites: {}, runtimes: [docker]}", "spec.runtimes"},
		{"a label that YAML reads as a number", "Site\nmetadata: {name: s, labels: {lane: 4}}", "metadata.labels"},
		{"a digest that is cut short", "Release\nmetadata: {name: a-1}\nspec: {app: a, runtime: process, bundle: {repository: d/a, digest: 'sha256:0', size: 1}}", "spec.bundle.digest"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			obj := objects(t, example{c.reason, head + c.object})[0]
			said := strings.Join(kinds[obj["kind"].(string)].check(t, obj), "; ")
			if !strings.Contains(said, c.want) {
				t.Errorf("want it refused with %q, got %q", c.want, said)
			}
		})
	}
}
