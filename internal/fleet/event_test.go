package fleet

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestEventBounded(t *testing.T) {
	long := strings.Repeat("ä", MaxEventMessage)
	e := Event{Class: ClassAlarm, Reason: long, Message: "x" + long, Data: bytes.Repeat([]byte("1"), MaxEventData+1)}.Bounded()
	for what, got := range map[string]struct {
		text  string
		bound int
	}{"reason": {e.Reason, MaxEventReason}, "message": {e.Message, MaxEventMessage}} {
		if len(got.text) > got.bound || len(got.text) < got.bound-1 || !utf8.ValidString(got.text) {
			t.Errorf("%s has %d bytes of at most %d, valid: %v", what, len(got.text), got.bound, utf8.ValidString(got.text))
		}
	}
	if e.Data != nil {
		t.Error("data that is too long was cut and not left out")
	}
	whole := Event{Class: ClassSample, Reason: "Traffic", Message: "m", Data: json.RawMessage(`{}`), App: AppKey{"a", "b"}, Time: 1}
	if diff := cmp.Diff(whole, whole.Bounded()); diff != "" {
		t.Errorf("an event within bounds was changed (-want +got):\n%s", diff)
	}
}

func TestEventWithoutApp(t *testing.T) {
	data, err := json.Marshal(Event{Class: ClassEvent, Reason: "AgentStarted"})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"class":"event","reason":"AgentStarted"}`; string(data) != want {
		t.Errorf("an event of the site is written as %s, want %s", data, want)
	}
	var read Event
	if err := json.Unmarshal(data, &read); err != nil || read.App != (AppKey{}) {
		t.Errorf("it is read as %+v, %v", read, err)
	}
}
