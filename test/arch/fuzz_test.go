package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	decoder = regexp.MustCompile(`(?m)^func (Decode[A-Z]\w*)\(data \[\]byte`)
	fuzzed  = regexp.MustCompile(`(?m)^func Fuzz\w+\(`)
)

// TestDecodersAreFuzzed finds every function that decodes what came from outside, and holds the tests of its package
// to fuzz it.
func TestDecodersAreFuzzed(t *testing.T) {
	found := 0
	for _, p := range listPackages(t) {
		if !strings.HasPrefix(p.path, "internal/") {
			continue
		}
		files, err := filepath.Glob(filepath.Join(root(t), p.path, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		tests := ""
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(file, "_test.go") {
				if fuzzed.Match(data) {
					tests += string(data)
				}
				continue
			}
			for _, m := range decoder.FindAllStringSubmatch(string(data), -1) {
				names = append(names, m[1])
			}
		}
		found += len(names)
		for _, name := range names {
			if !strings.Contains(tests, name) {
				t.Errorf("%s.%s reads what comes from outside, and no fuzz test of its package calls it", p.path, name)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d decoders were found", found)
	}
}
