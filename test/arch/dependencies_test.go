package arch

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dependencyRow finds the modules that the first column of a table names.
var dependencyRow = regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|")

// TestDependencies holds docs/dependencies.md to name just the direct dependencies and the tools, so that a
// new one comes with its reason.
func TestDependencies(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root(t), "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, m := range dependencyRow.FindAllStringSubmatch(string(data), -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			said = append(said, strings.Trim(name, "`"))
		}
	}
	want := slices.Concat(moduleFile(t, ".").direct(), moduleFile(t, "tools").tools())
	slices.Sort(want)
	slices.Sort(said)
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("docs/dependencies.md does not name just what go.mod and tools/go.mod ask for (-want +said):\n%s", diff)
	}
}

// modFile is what is read of a go.mod.
type modFile struct {
	Require []struct {
		Path     string
		Indirect bool
	}
	Tool []struct{ Path string }
}

func moduleFile(t *testing.T, dir string) modFile {
	t.Helper()
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = filepath.Join(root(t), dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod edit in %s: %v", dir, err)
	}
	var m modFile
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatalf("go mod edit in %s: %v", dir, err)
	}
	return m
}

func (m modFile) direct() []string {
	var out []string
	for _, r := range m.Require {
		if !r.Indirect {
			out = append(out, r.Path)
		}
	}
	return out
}

func (m modFile) tools() []string {
	var out []string
	for _, tool := range m.Tool {
		out = append(out, tool.Path)
	}
	return out
}
