package fleet_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
)

func TestNames(t *testing.T) {
	tests := []struct {
		name   string
		ok     bool
		reason string
	}{
		{"shop-1", true, "letters, digits and an inner dash are a DNS label"},
		{"7", true, "RFC 1123 lets a label begin with a digit"},
		{strings.Repeat("a", 63), true, "63 characters are the longest label"},
		{strings.Repeat("a", 64), false, "a longer one fits no Kubernetes label"},
		{"", false, "the empty name is no token of a subject"},
		{"Shop", false, "upper case is not a Kubernetes name"},
		{"-a", false, "a dash may not stand first"},
		{"a-", false, "a dash may not stand last"},
		{"a.b", false, "a dot would be two tokens of a subject"},
		{"*", false, "a star would match every site's subjects"},
		{">", false, "the rest token would match everything"},
		{"_hub", false, "the hub's own subject must be no site's"},
		{"a/b", false, "a slash would leave the site's directory"},
		{"..", false, "dots would leave the site's directory"},
		{"a b", false, "a blank ends a subject on the bus"},
		{"a\nb", false, "a line break would begin another command on the bus"},
		{"é", false, "only ASCII is a DNS label"},
		{"a\x00", false, "a zero byte ends a file name"},
	}
	for _, tt := range tests {
		for kind, err := range map[string]error{
			"site":      fleet.SiteName(tt.name).Validate(),
			"member":    fleet.MemberID(tt.name).Validate(),
			"app":       fleet.AppKey{Namespace: "ns", Name: tt.name}.Validate(),
			"namespace": fleet.AppKey{Namespace: tt.name, Name: "a"}.Validate(),
		} {
			if (err == nil) != tt.ok {
				t.Errorf("%s %q: %v: %s", kind, tt.name, err, tt.reason)
			}
			if err != nil && !errors.Is(err, fleet.ErrInvalidName) {
				t.Errorf("%s %q: error does not wrap ErrInvalidName: %v", kind, tt.name, err)
			}
			if err != nil && !strings.Contains(err.Error(), kind) {
				t.Errorf("%s %q: error does not name the kind: %v", kind, tt.name, err)
			}
		}
	}
}

func TestParseAppKey(t *testing.T) {
	tests := []struct {
		in     string
		want   fleet.AppKey
		ok     bool
		reason string
	}{
		{"shop/hello", fleet.AppKey{Namespace: "shop", Name: "hello"}, true, "namespace and name"},
		{"hello", fleet.AppKey{}, false, "without a namespace it is not known which app is meant"},
		{"a/b/c", fleet.AppKey{}, false, "a second slash belongs to no name"},
		{"/b", fleet.AppKey{}, false, "an empty namespace is none"},
		{"a/", fleet.AppKey{}, false, "an empty name is none"},
		{"", fleet.AppKey{}, false, "nothing names nothing"},
	}
	for _, tt := range tests {
		got, err := fleet.ParseAppKey(tt.in)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("ParseAppKey(%q) = %v, %v: %s", tt.in, got, err, tt.reason)
		}
		if err != nil && !errors.Is(err, fleet.ErrInvalidName) {
			t.Errorf("ParseAppKey(%q): error does not wrap ErrInvalidName: %v", tt.in, err)
		}
	}
}

// TestAppKeyInJSON holds keys of JSON objects to be checked like any other name.
func TestAppKeyInJSON(t *testing.T) {
	want := map[fleet.AppKey]int{{Namespace: "a", Name: "x"}: 1, {Namespace: "b", Name: "y"}: 2}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != `{"a/x":1,"b/y":2}` {
		t.Errorf("encoded as %s", data)
	}
	var got map[fleet.AppKey]int
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was decoded differs (-want +got):\n%s", diff)
	}
	if err := json.Unmarshal([]byte(`{"../etc":1}`), &got); !errors.Is(err, fleet.ErrInvalidName) {
		t.Errorf("a key that is no name was answered with %v", err)
	}
}
