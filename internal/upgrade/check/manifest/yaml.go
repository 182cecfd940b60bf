package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// document is one of a stream.
type document struct {
	data []byte
	line int // of its first byte
}

// split cuts a stream where a line begins with three dashes, which YAML keeps for just that, in block scalars too.
func split(data []byte) []document {
	var out []document
	doc := document{line: 1}
	start, line := 0, 1
	for pos := 0; pos < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		if marker(data[pos:end]) && pos > start {
			doc.data = data[start:pos]
			out = append(out, doc)
			start, doc = pos, document{line: line}
		}
		pos = end
		line++
	}
	if start < len(data) {
		doc.data = data[start:]
		out = append(out, doc)
	}
	return out
}

func marker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// lineInError finds what the parser says of the place.
var lineInError = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// readYAML reads one document; nil is an empty one. place turns its lines into those of the file.
func readYAML(data []byte, limits Limits, place func(int) int) (v *check.Value, err error) {
	if len(data) > limits.DocumentBytes {
		return nil, faultAt(place(1), "the document is larger than %d bytes", limits.DocumentBytes)
	}
	// The parser is not ours, and what it reads comes from anywhere.
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, faultAt(place(1), "the YAML parser gave up: %v", r)
		}
	}()
	if err := outsize(data, limits, place); err != nil {
		return nil, err
	}
	// The parser counts breaks that are none to an editor.
	lines, inFile := bytes.Count(data, []byte("\n"))+1, place
	place = func(line int) int { return inFile(min(max(line, 1), lines)) }
	var node yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&node); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, parserFault(err, place)
	}
	b := builder{limits: limits, place: place, made: map[*yaml.Node]*built{}}
	root, err := b.build(&node, 0)
	if err != nil {
		return nil, err
	}
	// A second document can follow "...", which split leaves alone.
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, faultAt(place(1), "a line with three dots ends the document and another follows: begin it with three dashes")
	}
	if root.value.Kind == check.Null {
		return nil, nil
	}
	return root.value, nil
}

// outsize refuses what would cost the parser much before the builder could count it. It looks at bytes alone: no value
// is without one of these before it, and brackets in text count too, which therefore get ten times the room.
func outsize(data []byte, limits Limits, place func(int) int) error {
	depth, line, values := 0, 1, 0
	for _, c := range data {
		switch c {
		case '\n':
			line++
			values++
		case '[', '{':
			values++
			if depth++; depth > 10*limits.Depth {
				return faultAt(place(line), "%v", check.ErrDeep)
			}
		case ']', '}':
			depth = max(0, depth-1)
		case ',', ':', '-', '?':
			values++
		}
	}
	// Text is full of these bytes as well.
	if values > 4*limits.Values {
		return faultAt(place(1), "the document has more than %d values", limits.Values)
	}
	return nil
}

func parserFault(err error, place func(int) int) error {
	text, line := err.Error(), 1
	m := lineInError.FindStringSubmatch(text)
	if m != nil {
		if m[1] != "" {
			line, _ = strconv.Atoi(m[1])
		}
		text = text[len(m[0]):]
	}
	return faultAt(place(line), "%s", text)
}

// built is a value with what it costs.
type built struct {
	value  *check.Value // nil while it is being built
	values int          // with all below, aliases each time
	height int
}

// builder turns the parser's nodes into values. What an anchor names is built once and shared.
type builder struct {
	limits Limits
	place  func(int) int
	made   map[*yaml.Node]*built
}

func (b *builder) build(n *yaml.Node, depth int) (*built, error) {
	if depth > b.limits.Depth {
		return nil, b.fault(n, "%v", check.ErrDeep)
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.DocumentNode {
		return b.build(n.Content[0], depth)
	}
	if done := b.made[n]; done != nil {
		if done.value == nil {
			return nil, b.fault(n, "the anchor %q holds itself", n.Anchor)
		}
		if depth+done.height > b.limits.Depth {
			return nil, b.fault(n, "%v", check.ErrDeep)
		}
		return done, nil
	}
	out := &built{values: 1}
	if n.Anchor != "" {
		b.made[n] = out
	}
	v := &check.Value{Line: b.place(n.Line)}
	var err error
	switch n.Kind {
	case yaml.MappingNode:
		v.Kind = check.Map
		err = b.fields(v, n, depth, out)
	case yaml.SequenceNode:
		v.Kind = check.List
		for _, c := range n.Content {
			item, err := b.below(c, depth, out)
			if err != nil {
				return nil, err
			}
			v.Items = append(v.Items, item)
		}
	case yaml.ScalarNode:
		scalar(v, n)
	default:
		err = b.fault(n, "a node of an unknown kind")
	}
	if err != nil {
		return nil, err
	}
	out.value = v
	return out, nil
}

// below builds a part of a value and adds its cost.
func (b *builder) below(n *yaml.Node, depth int, into *built) (*check.Value, error) {
	part, err := b.build(n, depth+1)
	if err != nil {
		return nil, err
	}
	into.height = max(into.height, part.height+1)
	if into.values += part.values; into.values > b.limits.Values {
		return nil, b.fault(n, "the document has more than %d values, those counted that aliases repeat", b.limits.Values)
	}
	return part.value, nil
}

func (b *builder) fields(v *check.Value, n *yaml.Node, depth int, out *built) error {
	var merged []check.Field
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		if name.Kind == yaml.AliasNode {
			name = name.Alias
		}
		if name.Kind != yaml.ScalarNode {
			return b.fault(n.Content[i], "a field's name is no text")
		}
		value, err := b.below(n.Content[i+1], depth, out)
		if err != nil {
			return err
		}
		if name.ShortTag() == "!!merge" {
			more, err := b.merge(n.Content[i+1], value)
			if err != nil {
				return err
			}
			merged = append(merged, more...)
			continue
		}
		v.Fields = append(v.Fields, check.Field{Name: fieldName(name), Line: b.place(name.Line), Value: value})
	}
	if merged == nil {
		return nil
	}
	// A field of the map itself outranks a merged one, of which the first counts.
	have := map[string]bool{}
	for _, f := range v.Fields {
		have[f.Name] = true
	}
	for _, f := range merged {
		if !have[f.Name] {
			have[f.Name] = true
			v.Fields = append(v.Fields, f)
		}
	}
	return nil
}

// fieldName returns the name that a JSON object has for a scalar: kubectl reads the plain word on as true.
func fieldName(n *yaml.Node) string {
	var v check.Value
	if scalar(&v, n); v.Kind == check.Null {
		return n.Value
	}
	return v.Text
}

// merge returns the fields that a merge key brings.
func (b *builder) merge(n *yaml.Node, v *check.Value) ([]check.Field, error) {
	switch {
	case v.Kind == check.Map:
		return v.Fields, nil
	case v.Kind == check.List && !slices.ContainsFunc(v.Items, func(i *check.Value) bool { return i.Kind != check.Map }):
		var out []check.Field
		for _, item := range v.Items {
			out = append(out, item.Fields...)
		}
		return out, nil
	}
	return nil, b.fault(n, "a merge key needs a map, or a list of maps")
}

func (b *builder) fault(n *yaml.Node, format string, args ...any) error {
	return &syntaxError{b.place(n.Line), fmt.Sprintf(format, args...)}
}

// Plain words that are booleans in YAML 1.1, by which kubectl reads.
var (
	wordsTrue  = []string{"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}
	wordsFalse = []string{"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}
)

// scalar sets v to what a scalar means.
func scalar(v *check.Value, n *yaml.Node) {
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
	v.Kind, v.Text, v.Literal = check.String, n.Value, n.Style&yaml.LiteralStyle != 0
	switch tag := n.ShortTag(); {
	case tag == "!!null":
		v.Kind, v.Text = check.Null, ""
	case (plain || tag == "!!bool") && slices.Contains(wordsTrue, n.Value):
		v.Kind, v.Text = check.Bool, "true"
	case (plain || tag == "!!bool") && slices.Contains(wordsFalse, n.Value):
		v.Kind, v.Text = check.Bool, "false"
	case tag == "!!int":
		if i, ok := new(big.Int).SetString(strings.ReplaceAll(n.Value, "_", ""), 0); ok && i.BitLen() <= 64 {
			v.Kind, v.Text = check.Number, i.String()
		}
	case tag == "!!float":
		if f, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64); err == nil && f-f == 0 {
			v.Kind, v.Text = check.Number, strconv.FormatFloat(f, 'g', -1, 64)
		}
	}
}
