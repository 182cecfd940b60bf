package fleet

import "encoding/json"

// EventClass says what kind of thing an event is, and so how long it is kept where room is short.
type EventClass string

// The classes, from what is kept longest to what goes first.
const (
	// ClassAlarm is for what a person must look at.
	ClassAlarm EventClass = "alarm"
	// ClassEvent is for what happened in the ordinary course of things.
	ClassEvent EventClass = "event"
	// ClassSample is for what was measured: many, and each of little worth alone.
	ClassSample EventClass = "sample"
)

// EventClasses returns every class, in the order in which they are dropped last.
func EventClasses() []EventClass { return []EventClass{ClassAlarm, ClassEvent, ClassSample} }

// Bounds of an event's parts, in bytes; what is longer is cut.
const (
	MaxEventReason  = 64
	MaxEventMessage = 1 << 10
	MaxEventData    = 4 << 10
)

// Event is one thing that happened at a site. The zero value is no event.
type Event struct {
	Class EventClass `json:"class"`
	// Reason is one word in camel case that programs may compare, such as "AppFailed".
	Reason string `json:"reason"`
	// Message is for people.
	Message string `json:"message,omitempty"`
	// App is the one that it is about; the zero value when it is about the site.
	App AppKey `json:"app,omitzero"`
	// Time is what the site's clock said, in milliseconds since 1970. It is for people: nothing is ordered by it.
	Time int64 `json:"time,omitempty"`
	// Data is what a sample measured, as its reason says; a JSON object.
	Data json.RawMessage `json:"data,omitempty"`
}

// Bounded returns e with parts of at most the lengths that are allowed. Data that is too long is left out: a
// part of it would mean something else.
func (e Event) Bounded() Event {
	e.Reason, e.Message = cut(e.Reason, MaxEventReason), cut(e.Message, MaxEventMessage)
	if len(e.Data) > MaxEventData {
		e.Data = nil
	}
	return e
}

// cut shortens s to at most n bytes without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
