package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/skerry-dev/skerry/internal/upgrade/check"
)

// readJSON reads JSON documents that follow each other. With an error it returns those before it.
func readJSON(data []byte, limits Limits, place func(int) int) ([]*check.Value, error) {
	r := jsonReader{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), limits: limits, place: place, line: 1}
	r.decoder.UseNumber()
	var out []*check.Value
	for {
		r.values = 0
		token, err := r.next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		v, err := r.value(token, 0)
		if err != nil {
			return out, err
		}
		if v.Kind != check.Null {
			out = append(out, v)
		}
	}
}

type jsonReader struct {
	data    []byte
	decoder *json.Decoder
	limits  Limits
	place   func(int) int
	line    int // of the token read last
	offset  int // up to which lines were counted
	values  int // of the document
}

// next reads a token and counts lines up to its end.
func (r *jsonReader) next() (json.Token, error) {
	token, err := r.decoder.Token()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	end := int(r.decoder.InputOffset())
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		end = int(syntax.Offset)
	}
	end = min(max(end, r.offset), len(r.data))
	r.line += bytes.Count(r.data[r.offset:end], []byte("\n"))
	r.offset = end
	if err != nil {
		return nil, faultAt(r.place(r.line), "%v", err)
	}
	return token, nil
}

// must reads a token where the document cannot end.
func (r *jsonReader) must() (json.Token, error) {
	token, err := r.next()
	if errors.Is(err, io.EOF) {
		return nil, faultAt(r.place(r.line), "the file ends within an object")
	}
	return token, err
}

func (r *jsonReader) value(token json.Token, depth int) (*check.Value, error) {
	v := &check.Value{Line: r.place(r.line)}
	if depth > r.limits.Depth {
		return nil, faultAt(v.Line, "%v", check.ErrDeep)
	}
	if r.values++; r.values > r.limits.Values {
		return nil, faultAt(v.Line, "the document has more than %d values", r.limits.Values)
	}
	switch t := token.(type) {
	case json.Delim:
		return v, r.composite(v, t, depth)
	case bool:
		v.Kind, v.Text = check.Bool, "false"
		if t {
			v.Text = "true"
		}
	case json.Number:
		v.Kind, v.Text = check.Number, t.String()
	case string:
		v.Kind, v.Text = check.String, t
	}
	return v, nil
}

func (r *jsonReader) composite(v *check.Value, open json.Delim, depth int) error {
	v.Kind = check.List
	if open == '{' {
		v.Kind = check.Map
	}
	for {
		token, err := r.must()
		if err != nil {
			return err
		}
		if end, ok := token.(json.Delim); ok && (end == ']' || end == '}') {
			return nil
		}
		var field check.Field
		if v.Kind == check.Map {
			field.Name, field.Line = token.(string), r.place(r.line)
			if token, err = r.must(); err != nil {
				return err
			}
		}
		if field.Value, err = r.value(token, depth+1); err != nil {
			return err
		}
		if v.Kind == check.Map {
			v.Fields = append(v.Fields, field)
		} else {
			v.Items = append(v.Items, field.Value)
		}
	}
}
