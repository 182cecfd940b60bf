package arch

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the checked-in import lists anew")

// root returns the top of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestImportLists compares what each binary links with the checked-in list, so that a change shows what it
// drags in.
func TestImportLists(t *testing.T) {
	for _, name := range []string{"skerry", "skerry-site"} {
		cmd := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, "./cmd/"+name)
		cmd.Dir = root(t)
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		got := strings.Fields(string(out))
		slices.Sort(got)
		file := filepath.Join(root(t), "cmd", name, "imports.txt")
		if *update {
			if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Fields(string(want)), got); diff != "" {
			t.Errorf("cmd/%s links other packages than cmd/%s/imports.txt says (-want +got); if this is meant, run `make generate`:\n%s", name, name, diff)
		}
	}
}

// TestPackageComments holds every package to say what it is for.
func TestPackageComments(t *testing.T) {
	for _, dir := range packageDirs(t) {
		fset := token.NewFileSet()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var said string
		code := false
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
				continue
			}
			code = true
			f, err := parser.ParseFile(fset, filepath.Join(dir, e.Name()), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				said = f.Doc.Text()
			}
		}
		if code && len(said) < 40 {
			t.Errorf("%s: no package comment that says what it is for", dir)
		}
	}
}

func packageDirs(t *testing.T) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(root(t), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") && path != root(t) {
			return filepath.SkipDir
		}
		if d.IsDir() {
			if files, _ := filepath.Glob(filepath.Join(path, "*.go")); len(files) > 0 {
				dirs = append(dirs, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// The bounds of a source file, in lines, and of a package, in files.
const (
	maxLines = 800
	maxFiles = 15
)

// TestSizes keeps files and packages small enough to be read.
func TestSizes(t *testing.T) {
	for _, dir := range packageDirs(t) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		for _, e := range entries {
			name := e.Name()
			if !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, "zz_generated") {
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(data), "\n"); n > maxLines {
				t.Errorf("%s/%s has %d lines, at most %d are allowed: split it by concern", dir, name, n, maxLines)
			}
			if !strings.HasSuffix(name, "_test.go") {
				files++
			}
		}
		if files > maxFiles {
			t.Errorf("%s has %d files, at most %d are allowed: split the package", dir, files, maxFiles)
		}
	}
}

// TestNoInit keeps features in lists that can be read: no init functions.
func TestNoInit(t *testing.T) {
	for _, dir := range packageDirs(t) {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s has an init function: call what it does from where it is needed", file)
				}
			}
		}
	}
}

// pathInDoc finds what looks like a path of this repository in a document.
var pathInDoc = regexp.MustCompile("`((?:api|cmd|internal|catalog|console|config|deploy|docs|examples|test|tools|sdk)/[A-Za-z0-9_./-]*[A-Za-z0-9_])/?`")

// placeholder is a part of a path that the reader replaces, such as NAME.
var placeholder = regexp.MustCompile(`/[A-Z]{3,}`)

// TestDocumentPaths holds documents to name paths that exist.
func TestDocumentPaths(t *testing.T) {
	out, err := exec.Command("git", "-C", root(t), "ls-files", "*.md").Output()
	if err != nil {
		t.Skipf("SKIPPED: not a git checkout: %v", err)
	}
	for _, doc := range strings.Fields(string(out)) {
		data, err := os.ReadFile(filepath.Join(root(t), doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pathInDoc.FindAllStringSubmatch(string(data), -1) {
			if placeholder.MatchString(m[1]) {
				continue
			}
			if _, err := os.Stat(filepath.Join(root(t), m[1])); err != nil {
				t.Errorf("%s names `%s`, which does not exist", doc, m[1])
			}
		}
	}
}

// TestOneKubernetesMinor fails when two Kubernetes minors meet in one of our modules.
func TestOneKubernetesMinor(t *testing.T) {
	for _, dir := range []string{".", "api"} {
		cmd := exec.Command("go", "list", "-m", "-f", `{{.Path}} {{with .Replace}}{{.Version}}{{else}}{{.Version}}{{end}}`, "all")
		cmd.Dir = filepath.Join(root(t), dir)
		cmd.Env = append(os.Environ(), "GOWORK=off")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -m in %s: %v", dir, err)
		}
		minor := regexp.MustCompile(`^(k8s\.io/\S+) v[01]\.(\d+)\.\d+$`)
		seen := map[string]string{}
		for line := range strings.Lines(string(out)) {
			m := minor.FindStringSubmatch(strings.TrimSpace(line))
			// These are numbered on their own, not with Kubernetes.
			if m == nil || slices.Contains([]string{"k8s.io/gengo", "k8s.io/system-validators"}, m[1]) {
				continue
			}
			seen[m[2]] = m[1]
		}
		if len(seen) != 1 {
			t.Errorf("module in %s: want one Kubernetes minor, found %v", dir, seen)
		}
	}
}
