package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/wire"
)

func entry(name string) Entry {
	return Entry{
		Namespace: "default", Name: name, UID: "u-1", Version: "77",
		Uses:   []Use{{App: "hello", Keys: []string{"ca.pem", "password"}, Optional: true}, {App: "till"}},
		Sealed: []Sealed{{Member: "m-1", Key: []byte("key"), Data: []byte("sealed")}},
	}
}

// TestFrozenMessages holds the feature's messages, with every field set, to how protocol version 1 writes them.
func TestFrozenMessages(t *testing.T) {
	for file, message := range map[string]any{
		"section.json": Section{Secrets: []Entry{entry("db")}},
		"report.json":  Report{Closed: map[string]string{"default/db": "it is not sealed to this member"}},
	} {
		want, err := os.ReadFile("testdata/v1/" + file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(bytes.TrimSpace(want)), string(got)); diff != "" {
			t.Errorf("%s: this message is written differently (-frozen +now):\n%s", file, diff)
		}
	}
	data, err := os.ReadFile("testdata/v1/section.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSection(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Section{Secrets: []Entry{entry("db")}}, got); diff != "" {
		t.Errorf("the frozen section is read differently (-want +got):\n%s", diff)
	}
}

func TestSectionRoundTrip(t *testing.T) {
	want := Section{Secrets: []Entry{entry("a"), entry("b"), entry("c")}}
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSection(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was decoded differs (-want +got):\n%s", diff)
	}
	again, err := Section{Secrets: []Entry{entry("c"), entry("a"), entry("b")}}.Encode()
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("another order makes another section: %v", err)
	}
}

func TestDecodeSectionRefuses(t *testing.T) {
	long := strings.Repeat("a", 254)
	tests := []struct {
		want, reason string
		change       func(*Entry)
	}{
		{"namespace", "every entry has a place", func(e *Entry) { e.Namespace = "" }},
		{"name", "and a name", func(e *Entry) { e.Name = "" }},
		{"name", "which is bounded", func(e *Entry) { e.Name = long }},
		{"uid", "values are bound to the Secret's identity", func(e *Entry) { e.UID = "" }},
		{"version", "and to its version", func(e *Entry) { e.Version = "" }},
		{"uses[1]", "an app's name is checked", func(e *Entry) { e.Uses[1].App = "../x" }},
		{"sealed[0]", "so is a member's", func(e *Entry) { e.Sealed[0].Member = "M 1" }},
		{"keys", "keys are bounded", func(e *Entry) { e.Uses[0].Keys = slices.Repeat([]string{"k"}, maxNames+1) }},
	}
	for _, tt := range tests {
		bad := entry("b")
		tt.change(&bad)
		data, err := json.Marshal(Section{Secrets: []Entry{entry("a"), bad}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeSection(data)
		if !errors.Is(err, wire.ErrMessage) || !strings.Contains(err.Error(), tt.want) || len(got.Secrets) > 0 {
			t.Errorf("%s: answered with %d entries, %v: %s", tt.want, len(got.Secrets), err, tt.reason)
		}
	}
	for reason, entries := range map[string][]Entry{"twice": {entry("a"), entry("a")}, "out of order": {entry("b"), entry("a")}} {
		data, err := json.Marshal(Section{Secrets: entries})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeSection(data); !errors.Is(err, wire.ErrMessage) {
			t.Errorf("a Secret %s was answered with %v", reason, err)
		}
	}
}

func TestKeys(t *testing.T) {
	tests := []struct {
		reason string
		uses   []Use
		keys   []string
		all    bool
	}{
		{"nobody needs any", nil, nil, false},
		{"what two need is joined", []Use{{App: "a", Keys: []string{"x", "y"}}, {App: "b", Keys: []string{"a", "x"}}}, []string{"a", "x", "y"}, false},
		{"one that needs all gets all", []Use{{App: "a", Keys: []string{"x"}}, {App: "b"}}, nil, true},
	}
	for _, tt := range tests {
		keys, all := Entry{Uses: tt.uses}.Keys()
		if diff := cmp.Diff(tt.keys, keys); diff != "" || all != tt.all {
			t.Errorf("keys %v, all %v: %s", keys, all, tt.reason)
		}
	}
}

func FuzzDecodeSection(f *testing.F) {
	data, err := Section{Secrets: []Entry{entry("a"), entry("b")}}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSection(data)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if errors.Is(err, wire.ErrTooLarge) {
			return // other escapes
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeSection(again); err != nil {
			t.Errorf("what was decoded cannot be sent on: %v", err)
		}
	})
}
