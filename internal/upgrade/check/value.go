package check

import (
	"encoding/json"
	"errors"
	"strconv"
)

// Kind is the kind of a Value.
type Kind int

// The kinds, as JSON has them.
const (
	Null Kind = iota
	Bool
	Number
	String
	Map
	List
)

// Value is a part of a manifest that knows where it stands. Values that an alias repeats are shared, so nobody
// changes one once it is made.
type Value struct {
	Kind Kind
	Text string // of a Bool or a Number as JSON writes it, of a String itself
	Line int    // from 1
	// Literal says that a String is written as a block in which line n of Text is line Line+n of the file.
	Literal bool
	Fields  []Field  // of a Map, in order; of fields with one name the last counts
	Items   []*Value // of a List
}

// Field is a field of a Map.
type Field struct {
	Name  string
	Line  int // of its name
	Value *Value
}

// Ref is a value with the way to it. The zero Ref is one of nothing.
type Ref struct {
	Path  string // such as spec.containers[0].image; empty for the root
	Line  int    // of the field's name or the item; of what is around it, where the value is not there
	Value *Value // nil where there is none
}

// Get returns a field of a Map, and one of nothing where there is none.
func (r Ref) Get(names ...string) Ref {
	for _, name := range names {
		next := Ref{Path: join(r.Path, name), Line: r.Line}
		if r.Value != nil && r.Value.Kind == Map {
			for _, f := range r.Value.Fields {
				if f.Name == name {
					next.Line, next.Value = f.Line, f.Value
				}
			}
		}
		r = next
	}
	return r
}

// join writes a path as JSONPath does: names that hold more than letters, digits, - and _ stand in brackets.
func join(path, name string) string {
	for _, c := range name {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return path + "[" + strconv.Quote(name) + "]"
		}
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// Items returns the items of a List, none of anything else.
func (r Ref) Items() []Ref {
	if r.Value == nil || r.Value.Kind != List {
		return nil
	}
	out := make([]Ref, len(r.Value.Items))
	for i, v := range r.Value.Items {
		out[i] = Ref{Path: r.Path + "[" + strconv.Itoa(i) + "]", Line: v.Line, Value: v}
	}
	return out
}

// Fields returns the fields of a Map, none of anything else.
func (r Ref) Fields() []Ref {
	if r.Value == nil || r.Value.Kind != Map {
		return nil
	}
	out := make([]Ref, len(r.Value.Fields))
	for i, f := range r.Value.Fields {
		out[i] = Ref{Path: join(r.Path, f.Name), Line: f.Line, Value: f.Value}
	}
	return out
}

// Exists reports whether there is a value other than null.
func (r Ref) Exists() bool { return r.Value != nil && r.Value.Kind != Null }

// Text returns a String, and "" for anything else.
func (r Ref) Text() string {
	if r.Value == nil || r.Value.Kind != String {
		return ""
	}
	return r.Value.Text
}

// Texts returns the Strings of a List.
func (r Ref) Texts() []string {
	var out []string
	for _, item := range r.Items() {
		if item.Value.Kind == String {
			out = append(out, item.Value.Text)
		}
	}
	return out
}

// True reports whether it is the Bool true.
func (r Ref) True() bool { return r.Value != nil && r.Value.Kind == Bool && r.Value.Text == "true" }

// ErrDeep is returned for a value that is nested deeper than anybody writes.
var ErrDeep = errors.New("it is nested too deeply")

// maxJSONDepth bounds AppendJSON; package manifest reads nothing as deep.
const maxJSONDepth = 1000

// AppendJSON appends v as JSON to dst. Nil is null.
func AppendJSON(dst []byte, v *Value) ([]byte, error) { return appendJSON(dst, v, 0) }

func appendJSON(dst []byte, v *Value, depth int) ([]byte, error) {
	if v == nil {
		return append(dst, "null"...), nil
	}
	if depth > maxJSONDepth {
		return nil, ErrDeep
	}
	var err error
	switch v.Kind {
	case Null:
		return append(dst, "null"...), nil
	case Bool, Number:
		return append(dst, v.Text...), nil
	case String:
		return appendText(dst, v.Text)
	case List:
		dst = append(dst, '[')
		for i, item := range v.Items {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendJSON(dst, item, depth+1); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	default:
		dst = append(dst, '{')
		for i, f := range v.Fields {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendText(dst, f.Name); err != nil {
				return nil, err
			}
			if dst, err = appendJSON(append(dst, ':'), f.Value, depth+1); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	}
}

func appendText(dst []byte, s string) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return append(dst, data...), nil
}
