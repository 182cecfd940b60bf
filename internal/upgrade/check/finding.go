package check

import (
	"cmp"
	"fmt"
	"slices"
)

// Severity says how much a finding matters. The zero value is Info.
type Severity int

// The severities, the least first.
const (
	Info    Severity = iota // worth knowing; nothing has to be done
	Warning                 // has an effect that is hardly meant, or breaks later
	Failure                 // does not work on the cluster that is asked about, or must not; written "error"
)

var severityNames = []string{"info", "warning", "error"}

// String returns info, warning or error.
func (s Severity) String() string { return severityNames[s] }

// MarshalText writes the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseSeverity reads a name that String returns.
func ParseSeverity(name string) (Severity, error) {
	if i := slices.Index(severityNames, name); i >= 0 {
		return Severity(i), nil
	}
	return 0, fmt.Errorf("severity %q: want error, warning or info", name)
}

// Finding is one thing that is wrong at one place.
type Finding struct {
	Rule     string   `json:"rule"` // a Rule's ID
	Severity Severity `json:"severity"`
	// File is the path as it was given or found, "-" for standard input, empty for a finding of no file; Line
	// counts from 1, 0 stands for no line.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Object is the object as Object.String writes it, empty for a finding of none; Field the path in it.
	Object string `json:"object,omitempty"`
	Field  string `json:"field,omitempty"`
	// Reason is a sentence without its full stop, as is Fix, which says what to do.
	Reason string `json:"reason"`
	Fix    string `json:"fix,omitempty"`
}

// Rule is what findings are named after.
type Rule struct {
	ID       string
	Title    string   // a phrase
	Severity Severity // the usual one
	Why      string   // a sentence or a few: what happens to those who leave it
	// Fails and Passes are manifests that the rule does and does not find fault with, for the minor Kubernetes; empty is
	// the newest known. Tests run them, and the page of rules shows them. Passes is empty where nothing passes.
	Fails, Passes string
	Kubernetes    string
	// PodSecurity is the level that the examples are for; empty is any.
	PodSecurity string
}

// Checker is a family of rules.
type Checker interface {
	// Rules returns every rule that Check's findings are named after.
	Rules() []Rule
	// Check looks at all objects of one input, in any order. It changes none.
	Check(objects []*Object) []Finding
}

// Run returns what the checkers find, in order of file and line.
func Run(objects []*Object, checkers ...Checker) []Finding {
	var out []Finding
	for _, c := range checkers {
		out = append(out, c.Check(objects)...)
	}
	Sort(out)
	return out
}

// Sort orders findings by file, line, severity (the worst first), rule and field.
func Sort(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(b.Severity, a.Severity),
			cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field))
	})
}

// Count returns how many findings have each severity.
func Count(findings []Finding) map[Severity]int {
	out := map[Severity]int{}
	for _, f := range findings {
		out[f.Severity]++
	}
	return out
}
