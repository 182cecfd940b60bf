package app_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
)

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMergeValues(t *testing.T) {
	tests := []struct{ base, over, want, reason string }{
		{`{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`, "both are kept"},
		{`{"a":1}`, `{"a":2}`, `{"a":2}`, "the later one wins"},
		{`{"a":{"b":1,"c":{"d":2}}}`, `{"a":{"c":{"e":3}}}`, `{"a":{"b":1,"c":{"d":2,"e":3}}}`, "maps are merged at every depth"},
		{`{"a":[1,2,3]}`, `{"a":[4]}`, `{"a":[4]}`, "lists are replaced: no rule says which items belong together"},
		{`{"a":{"b":1}}`, `{"a":"x"}`, `{"a":"x"}`, "something else replaces a map"},
		{`{"a":"x"}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`, "a map replaces something else"},
		{`{"a":1,"b":2}`, `{"a":null}`, `{"b":2}`, "null removes"},
		{`{"a":{"b":1,"c":2}}`, `{"a":{"b":null}}`, `{"a":{"c":2}}`, "null removes inside a map"},
		{`{"a":{"b":1}}`, `{"a":{"b":null}}`, `{"a":{}}`, "a map that became empty is still there"},
		{`{}`, `{"a":{"b":null,"c":1},"d":null}`, `{"a":{"c":1}}`, "null of what was not there leaves nothing behind"},
		{`{"a":null,"b":{"c":null}}`, `{}`, `{"b":{}}`, "nor does it in the first layer"},
		{`{"a":1}`, `{"a":[null,{"b":null}]}`, `{"a":[null,{"b":null}]}`, "lists are taken as they are"},
		{`{"a":0,"b":"","c":false}`, `{"a":1}`, `{"a":1,"b":"","c":false}`, "zero, empty and false are values"},
		{`{"a":1}`, `{"a":0}`, `{"a":0}`, "zero replaces"},
	}
	for _, tt := range tests {
		base, over := object(t, tt.base), object(t, tt.over)
		got := app.MergeValues(base, over)
		if diff := cmp.Diff(tt.want, encoded(t, got)); diff != "" {
			t.Errorf("%s over %s: %s (-want +got):\n%s", tt.over, tt.base, tt.reason, diff)
		}
		if encoded(t, base) != encoded(t, object(t, tt.base)) || encoded(t, over) != encoded(t, object(t, tt.over)) {
			t.Errorf("%s over %s: changed its arguments", tt.over, tt.base)
		}
	}
	if got := app.MergeValues(nil, nil); got == nil || len(got) != 0 {
		t.Errorf("nothing over nothing is %v, want an empty map", got)
	}
}

// FuzzMergeValues merges three layers: that never panics and leaves no null outside lists, and merging nothing
// or the last layer once more changes nothing.
func FuzzMergeValues(f *testing.F) {
	f.Add(`{"a":{"b":1}}`, `{"a":null}`, `{"a":{"c":[null]}}`)
	f.Add(`{"a":1}`, `{"a":{"b":null}}`, `{}`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var layers [3]map[string]any
		for i, text := range []string{a, b, c} {
			if json.Unmarshal([]byte(text), &layers[i]) != nil {
				return
			}
		}
		merged := app.MergeValues(app.MergeValues(layers[0], layers[1]), layers[2])
		noNull(t, merged)
		if again := app.MergeValues(merged, nil); encoded(t, again) != encoded(t, merged) {
			t.Errorf("merging nothing changes %s to %s", encoded(t, merged), encoded(t, again))
		}
		if again := app.MergeValues(merged, layers[2]); encoded(t, again) != encoded(t, merged) {
			t.Errorf("merging the last layer again changes %s to %s", encoded(t, merged), encoded(t, again))
		}
	})
}

func noNull(t *testing.T, v any) {
	t.Helper()
	m, ok := v.(map[string]any)
	if !ok {
		return
	}
	for key, item := range m {
		if item == nil {
			t.Errorf("%q is null", key)
		}
		noNull(t, item)
	}
}

func TestCheckValuesDepth(t *testing.T) {
	nested := func(n int, open, end string) map[string]any {
		return object(t, `{"a":`+strings.Repeat(open, n)+"1"+strings.Repeat(end, n)+"}")
	}
	if err := app.CheckValuesDepth(nested(app.MaxValuesDepth-1, `{"a":`, "}")); err != nil {
		t.Errorf("the deepest that is allowed: %v", err)
	}
	for _, v := range []map[string]any{
		nested(app.MaxValuesDepth, `{"a":`, "}"), nested(app.MaxValuesDepth, "[", "]"), nested(5000, "[", "]"),
	} {
		if err := app.CheckValuesDepth(v); err == nil {
			t.Error("values that lie too deep in each other are accepted")
		}
	}
}
