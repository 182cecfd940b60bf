package appschema_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appschema"
)

const till = `{
	"$schema": "https://json-schema.org/draft/2020-12/schema",
	"type": "object",
	"required": ["currency"],
	"additionalProperties": false,
	"properties": {
		"currency": {"enum": ["EUR", "CHF"]},
		"tls": {"$ref": "#/$defs/tls"},
		"lanes": {"type": "array", "items": {"type": "object", "properties": {"number": {"type": "integer", "minimum": 1}}}},
		"rate": {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^[0-9]+%$"}]}
	},
	"$defs": {"tls": {"type": "object", "properties": {"port": {"type": "integer", "maximum": 65535}}}}
}`

func values(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := utiljson.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func compile(t *testing.T, text string) *appschema.Schema {
	t.Helper()
	s, err := appschema.Compile([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestValidate(t *testing.T) {
	tests := []struct {
		values, want, reason string
	}{
		{`{"currency":"EUR"}`, "", "the least that is required"},
		{`{"currency":"EUR","tls":{"port":443},"lanes":[{"number":1},{}],"rate":2.5}`, "", "everything that is allowed"},
		{`{"currency":"EUR","rate":"7%"}`, "", "the second alternative"},
		{`{}`, `"currency" is missing`, "what is required and not there is named"},
		{`{"currency":"USD"}`, `currency: value must be one of 'EUR', 'CHF'`, "the allowed values are named"},
		{`{"currency":"EUR","tls":{"port":"443"}}`, `tls.port: got string, want integer`, "the path leads through a $ref"},
		{`{"currency":"EUR","tls":{"port":65536}}`, `tls.port: maximum: got 65,536, want 65,535`, "a bound of the schema"},
		{`{"currency":"EUR","lanes":[{"number":1},{"number":0}]}`, `lanes.1.number: minimum: got 0, want 1`, "items are counted from 0"},
		{`{"currency":"EUR","colour":"red"}`, `colour: the schema has no such value`, "a typing error is found"},
		{`{"currency":"EUR","rate":"x"}`, `rate: matches none of what is allowed: 'x' does not match pattern '^[0-9]+%$'; got string, want number`, "alternatives are one violation"},
		{`{"currency":1,"tls":1}`, "currency: value must be one of 'EUR', 'CHF'\ntls: got number, want object", "all are told, in order"},
	}
	s := compile(t, till)
	for _, tt := range tests {
		for range 3 { // maps have no order
			found, err := s.Validate(values(t, tt.values))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, v := range found {
				got = append(got, v.Error())
				if !errors.Is(v, app.ErrConfig) {
					t.Errorf("%v is no app.ErrConfig", v)
				}
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", tt.values, tt.reason, diff)
			}
		}
	}
	if found, err := s.Validate(nil); err != nil || len(found) != 1 || found[0].Missing != "currency" {
		t.Errorf("no values at all: %v, %v", found, err)
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := []struct{ schema, says, reason string }{
		{``, "EOF", "nothing is no schema"},
		{`[]`, "array", "a list is no schema"},
		{`{"type":"strin"}`, "strin", "a type that nobody knows"},
		{`{"$ref":"https://example.com/schema.json"}`, "nothing is loaded from elsewhere", "the hub fetches no address that an author names"},
		{`{"$ref":"file:///etc/passwd"}`, "nothing is loaded from elsewhere", "nor reads its own files"},
		{`{"$schema":"http://169.254.169.254/latest"}`, "nothing is loaded from elsewhere", "nor asks the cloud that it runs in"},
		{`{"$ref":"#/$defs/nobody"}`, "$defs", "a place within that is not there"},
		{`{"pattern":"(?=x)"}`, "(?=x)", "patterns are RE2"},
		{`{"pattern":"((a{100}){100}){99}"}`, "invalid repeat count", "a short pattern may be a large program"},
		{`{"properties":{` + manyPatterns(200) + `}}`, "too large", "so may many patterns"},
		{`{"title":"` + strings.Repeat("x", appschema.MaxSchemaBytes) + `"}`, "65536", "it has a bound"},
		{`{"minimum":1e999}`, "1e999", "a number that no computer holds"},
	}
	for _, tt := range tests {
		_, err := appschema.Compile([]byte(tt.schema))
		if err == nil || !strings.Contains(err.Error(), tt.says) || !errors.Is(err, app.ErrConfig) {
			t.Errorf("%.60s: want an error that says %q, got %v: %s", tt.schema, tt.says, err, tt.reason)
		}
	}
}

func manyPatterns(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`"%d":{"pattern":"x{%d}"}`, i, 900+i%100))
	}
	return strings.Join(out, ",")
}

// TestCost gives schemas that are small and would take years.
func TestCost(t *testing.T) {
	doubling := func(levels int) string {
		defs := map[string]any{"l0": map[string]any{"type": "string"}}
		for i := 1; i <= levels; i++ {
			below := map[string]any{"$ref": fmt.Sprintf("#/$defs/l%d", i-1)}
			defs[fmt.Sprintf("l%d", i)] = map[string]any{"anyOf": []any{below, below}}
		}
		data, err := json.Marshal(map[string]any{"$defs": defs, "properties": map[string]any{"a": map[string]any{"$ref": fmt.Sprintf("#/$defs/l%d", levels)}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	deep := strings.Repeat(`{"a":`, 30) + "1" + strings.Repeat("}", 30)
	tests := []struct{ schema, values, reason string }{
		{doubling(60), `{"a":1}`, "alternatives in alternatives double at each level"},
		{`{"anyOf":[{"properties":{"a":{"$ref":"#"}},"required":["b"]},{"properties":{"a":{"$ref":"#"}},"required":["b"]}]}`, deep, "a schema that leads to itself doubles with the depth of the values"},
		{`{"$schema":"http://json-schema.org/draft-07/schema#","anyOf":[{"properties":{"a":{"$ref":"#"}},"required":["b"]},{"properties":{"a":{"$ref":"#"}},"required":["b"]}]}`, deep, "so it does in an older draft"},
	}
	for _, tt := range tests {
		begun := time.Now()
		_, err := compile(t, tt.schema).Validate(values(t, tt.values))
		if !errors.Is(err, app.ErrConfig) || err != nil && !strings.Contains(err.Error(), "too long") {
			t.Errorf("want a refusal, got %v: %s", err, tt.reason)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("took %s: %s", took, tt.reason)
		}
	}
	if _, err := compile(t, doubling(5)).Validate(values(t, `{"a":"x"}`)); err != nil {
		t.Errorf("a few alternatives are refused: %v", err)
	}
	loop := compile(t, `{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`)
	if found, err := loop.Validate(values(t, `{}`)); err == nil && len(found) == 0 {
		t.Error("a schema that leads to itself at the same value allows everything")
	}
	dynamic := compile(t, `{"$dynamicRef":"#node","$dynamicAnchor":"node"}`)
	if _, err := dynamic.Validate(values(t, `{}`)); !errors.Is(err, app.ErrConfig) {
		t.Errorf("a reference whose target is not known beforehand: %v", err)
	}
}

// FuzzSchema wants every schema and every value to be answered in bounded time, without a panic.
func FuzzSchema(f *testing.F) {
	f.Add([]byte(till), []byte(`{"currency":"EUR"}`))
	f.Add([]byte(`{"$ref":"#"}`), []byte(`{"a":[1,{"b":null}]}`))
	f.Fuzz(func(t *testing.T, schema, text []byte) {
		var v map[string]any
		if utiljson.Unmarshal(text, &v) != nil {
			return
		}
		s, err := appschema.Compile(schema)
		if err != nil {
			if !errors.Is(err, app.ErrConfig) {
				t.Fatalf("error is no app.ErrConfig: %v", err)
			}
			return
		}
		if _, err := s.Validate(v); err != nil && !errors.Is(err, app.ErrConfig) {
			t.Fatalf("error is no app.ErrConfig: %v", err)
		}
	})
}
