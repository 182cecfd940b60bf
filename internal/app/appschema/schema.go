// Package appschema checks an app's values against the JSON schema that its bundle brings along. It is a leaf
// of package app for its hub half and the command line, and the only package that knows the schema library.
//
// Schemas and values are written by people who need not be trusted: nothing is loaded from elsewhere, and
// what a schema may cost is bounded before it is spent. Errors wrap app.ErrConfig.
package appschema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/skerry-dev/skerry/internal/app"
)

// Bounds of schemas.
const (
	MaxSchemaBytes = 64 << 10
	// maxPatternProgram bounds the compiled regular expressions of one schema, in instructions.
	maxPatternProgram = 100_000
	// maxViolations is how many violations are told at once.
	maxViolations = 10
)

// location is what the schema calls itself in errors of the library.
const location = "skerry:///values.schema.json"

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct {
	root    *jsonschema.Schema
	printer *message.Printer
}

// Compile reads a schema of draft 4, 6, 7, 2019-09 or 2020-12, the last when it does not say. It must be
// whole in itself: every $ref leads to a place within. Patterns are RE2.
func Compile(data []byte) (*Schema, error) {
	if len(data) > MaxSchemaBytes {
		return nil, fmt.Errorf("values.schema.json: %d bytes, at most %d are allowed: %w", len(data), MaxSchemaBytes, app.ErrConfig)
	}
	var doc map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&doc); err != nil {
		return nil, fmt.Errorf("values.schema.json: %w: %w", err, app.ErrConfig)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(nothing{})
	patterns := &patterns{left: maxPatternProgram, known: map[string]*regexp.Regexp{}}
	c.UseRegexpEngine(patterns.compile)
	err := c.AddResource(location, doc)
	var root *jsonschema.Schema
	if err == nil {
		root, err = c.Compile(location)
	}
	if err != nil {
		return nil, fmt.Errorf("values.schema.json: %s: %w", flat(err), app.ErrConfig)
	}
	return &Schema{root: root, printer: message.NewPrinter(language.English)}, nil
}

// flat puts an error of the library on one line, without the name that we gave the schema.
func flat(err error) string {
	lines := strings.Fields(strings.ReplaceAll(err.Error(), location, ""))
	return strings.Join(lines, " ")
}

// nothing loads nothing: a schema must not make the hub fetch addresses or read its files.
type nothing struct{}

// Load implements jsonschema.URLLoader.
func (nothing) Load(url string) (any, error) {
	return nil, fmt.Errorf("%q is not part of the schema, and nothing is loaded from elsewhere", url)
}

// patterns compiles regular expressions while they are small enough together.
type patterns struct {
	left  int
	known map[string]*regexp.Regexp
}

func (p *patterns) compile(text string) (jsonschema.Regexp, error) {
	if re, ok := p.known[text]; ok {
		return re, nil
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if weight(parsed) > p.left {
		return nil, errors.New("regular expressions are too large")
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	p.left -= weight(parsed)
	p.known[text] = re
	return re, nil
}

// weight is about how many instructions a regular expression becomes.
func weight(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n = min(n+weight(sub), maxPatternProgram+1)
	}
	if re.Op == syntax.OpRepeat {
		n = min(n*max(re.Min, re.Max, 1), maxPatternProgram+1)
	}
	return n
}

// Validate reports values that the schema does not allow: at most ten, in the order of their paths, the same
// ones each time. An error means that it cannot be told.
func (s *Schema) Validate(values map[string]any) ([]*app.Violation, error) {
	if err := affordable(s.root, values); err != nil {
		return nil, err
	}
	if values == nil {
		values = map[string]any{}
	}
	err := s.root.Validate(values)
	if err == nil {
		return nil, nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return nil, fmt.Errorf("values.schema.json: %w: %w", err, app.ErrConfig)
	}
	found := s.leaves(invalid)
	slices.SortFunc(found, func(a, b *app.Violation) int {
		if c := slices.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return strings.Compare(a.Message, b.Message)
	})
	found = slices.CompactFunc(found, func(a, b *app.Violation) bool { return a.Message == b.Message && slices.Equal(a.Path, b.Path) })
	return found[:min(len(found), maxViolations)], nil
}

// leaves turns the library's tree of errors into violations. Alternatives that all fail are one.
func (s *Schema) leaves(e *jsonschema.ValidationError) []*app.Violation {
	at := slices.Clone(e.InstanceLocation)
	var out []*app.Violation
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf:
		if len(e.Causes) > 0 {
			message, missing := s.alternatives(e, len(at))
			return []*app.Violation{{Path: at, Message: "matches none of what is allowed: " + message, Missing: missing}}
		}
	case *kind.Required:
		for _, name := range k.Missing {
			out = append(out, &app.Violation{Path: at, Missing: name, Message: fmt.Sprintf("%q is missing", name)})
		}
		return out
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			out = append(out, &app.Violation{Path: append(slices.Clone(at), name), Message: "the schema has no such value"})
		}
		return out
	}
	if len(e.Causes) == 0 {
		return []*app.Violation{{Path: at, Message: cut(e.ErrorKind.LocalizedString(s.printer))}}
	}
	for _, cause := range e.Causes {
		out = append(out, s.leaves(cause)...)
	}
	return out
}

// alternatives says in short why each one fails, and which name one of them misses, if any does.
func (s *Schema) alternatives(e *jsonschema.ValidationError, depth int) (message, missing string) {
	var reasons []string
	for _, cause := range e.Causes {
		for _, v := range s.leaves(cause) {
			reason := v.Message
			if v.Missing != "" && (missing == "" || v.Missing < missing) {
				missing = v.Missing
			}
			if len(v.Path) > depth {
				reason = strings.Join(v.Path[depth:], ".") + ": " + reason
			}
			reasons = append(reasons, reason)
		}
	}
	slices.Sort(reasons)
	return cut(strings.Join(slices.Compact(reasons), "; ")), missing
}

// maxMessage bounds a message, in bytes: values that it quotes may be long.
const maxMessage = 300

func cut(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessage], "") + "…"
}
