// Package report shows what `skerry check` found, in the forms that people and other tools read.
//
// It is a leaf of package check, and imports the standard library beside it; the command line imports it. It fails only
// when what it writes to does.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// Report is one run of `skerry check`.
type Report struct {
	Version     string // of skerry
	Kubernetes  string // the minor that is asked about, such as 1.36
	Partial     bool   // only announced removals of it are known
	PodSecurity string // the level
	Files       int
	Objects     int
	Findings    []check.Finding // in order
	Rules       []check.Rule    // all that were looked for
	// Fails says whether a finding makes the command fail.
	Fails func(check.Finding) bool
}

// ErrFormat is returned for a form that there is not.
var ErrFormat = errors.New("no such form of output")

func formats() map[string]func(io.Writer, Report) error {
	return map[string]func(io.Writer, Report) error{
		"table": table, "json": asJSON, "sarif": sarif, "github": github, "markdown": markdown, "junit": junit,
	}
}

// Formats returns the names of the forms, in order.
func Formats() []string { return slices.Sorted(maps.Keys(formats())) }

// Known returns nil for a name of Formats, else an error that lists them and is ErrFormat.
func Known(format string) error {
	if formats()[format] == nil {
		return fmt.Errorf("%q: %w: want one of %s", format, ErrFormat, strings.Join(Formats(), ", "))
	}
	return nil
}

// Write writes a report in a form. One that is not known is ErrFormat.
func Write(w io.Writer, format string, r Report) error {
	if err := Known(format); err != nil {
		return err
	}
	if err := formats()[format](w, r); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// summary is the last line for people.
func (r Report) summary() string {
	n := check.Count(r.Findings)
	found := "nothing was found"
	if len(r.Findings) > 0 {
		found = fmt.Sprintf("%s, %s, %d info", plural(n[check.Failure], "error"), plural(n[check.Warning], "warning"), n[check.Info])
	}
	partial := ""
	if r.Partial {
		partial = ", of which only announced removals are known"
	}
	return fmt.Sprintf("%s in %s checked for Kubernetes %s%s, Pod Security level %s: %s",
		plural(r.Objects, "object"), plural(r.Files, "file"), r.Kubernetes, partial, r.PodSecurity, found)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// location returns file:line as far as they are known.
func location(f check.Finding) string {
	switch {
	case f.File == "":
		return ""
	case f.Line == 0:
		return f.File
	}
	return fmt.Sprintf("%s:%d", f.File, f.Line)
}

// sentence is reason and fix in a line.
func sentence(f check.Finding) string {
	out := f.Reason
	if f.Fix != "" {
		out += "; fix: " + f.Fix
	}
	return out
}

// plain replaces what would move a terminal's cursor or break a line.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// table is for a terminal: a line with place, severity, rule and object, then what and what to do.
func table(w io.Writer, r Report) error {
	var b strings.Builder
	for _, f := range r.Findings {
		head := []string{}
		for _, part := range []string{location(f), f.Severity.String(), f.Rule, f.Object, f.Field} {
			if part != "" {
				head = append(head, plain(part))
			}
		}
		fmt.Fprintf(&b, "%s\n    %s\n", strings.Join(head, "  "), plain(f.Reason))
		if f.Fix != "" {
			fmt.Fprintf(&b, "    fix: %s\n", plain(f.Fix))
		}
	}
	fmt.Fprintf(&b, "%s\n", r.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

// asJSON writes the whole report as one object.
func asJSON(w io.Writer, r Report) error {
	n := check.Count(r.Findings)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Kubernetes  string          `json:"kubernetes"`
		Partial     bool            `json:"partial"`
		PodSecurity string          `json:"podSecurity"`
		Files       int             `json:"files"`
		Objects     int             `json:"objects"`
		Counts      map[string]int  `json:"counts"`
		Findings    []check.Finding `json:"findings"`
	}{
		r.Kubernetes, r.Partial, r.PodSecurity, r.Files, r.Objects,
		map[string]int{"error": n[check.Failure], "warning": n[check.Warning], "info": n[check.Info]},
		append([]check.Finding{}, r.Findings...),
	})
}

// github writes workflow commands, which GitHub shows beside the lines of a pull request.
// https://docs.github.com/actions/reference/workflow-commands-for-github-actions
func github(w io.Writer, r Report) error {
	data := strings.NewReplacer("%", "%25")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	var b strings.Builder
	for _, f := range r.Findings {
		command := map[check.Severity]string{check.Failure: "error", check.Warning: "warning", check.Info: "notice"}[f.Severity]
		properties := []string{"title=" + property.Replace(f.Rule)}
		if f.File != "" && f.File != "-" {
			properties = append(properties, "file="+property.Replace(f.File))
			if f.Line > 0 {
				properties = append(properties, fmt.Sprintf("line=%d", f.Line))
			}
		}
		text := sentence(f)
		if f.Object != "" {
			text = f.Object + ": " + text
		}
		fmt.Fprintf(&b, "::%s %s::%s\n", command, strings.Join(properties, ","), data.Replace(plain(text)))
	}
	fmt.Fprintf(&b, "%s\n", r.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown is fit for a comment or a job's summary.
func markdown(w io.Writer, r Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### skerry check\n\n%s.\n", r.summary())
	if len(r.Findings) > 0 {
		b.WriteString("\n| severity | place | object | rule | what | fix |\n| --- | --- | --- | --- | --- | --- |\n")
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "| %s | %s | %s | `%s` | %s | %s |\n", f.Severity, cell(location(f)), cell(f.Object), f.Rule, cell(f.Reason), cell(f.Fix))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell writes text that is neither markup nor the end of a cell.
func cell(s string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "@", "&#64;").Replace(plain(s))
}
