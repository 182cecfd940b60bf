package app

import (
	"cmp"
	"fmt"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Reasons of events about an app.
const (
	// EventRunning: a release answers that did not before.
	EventRunning = "AppRunning"
	// EventFailed: the desired release cannot run as declared; the last good one goes on, if there is one.
	EventFailed = "AppFailed"
	// EventCrashed: the running release ended or failed its probes; it is started again by itself.
	EventCrashed = "AppCrashed"
	// EventRemoved: the app has left the site.
	EventRemoved = "AppRemoved"
)

// Happened returns what a person would want to know of the step from one report of an app to the next; the zero
// report stands for none. It tells changes of state only, so that a state that lasts is said once.
func Happened(old, now AppReport) []fleet.Event {
	var out []fleet.Event
	add := func(class fleet.EventClass, reason, format string, args ...any) {
		out = append(out, fleet.Event{Class: class, Reason: reason, App: now.App, Message: fmt.Sprintf(format, args...)})
	}
	broke := now.Phase == fleet.PhaseBackOff || now.Restarts > old.Restarts
	switch {
	case now.Phase == fleet.PhaseFailed && (old.Phase != now.Phase || old.Desired.Digest != now.Desired.Digest):
		add(fleet.ClassAlarm, EventFailed, "release %s failed: %s", now.Desired.Release, now.Message)
	case broke && old.Phase != fleet.PhaseBackOff:
		add(fleet.ClassAlarm, EventCrashed, "release %s: %s", now.Desired.Release, cmp.Or(now.Message, "ended and was started again"))
	}
	if now.Running.Digest != "" && now.Running.Digest != old.Running.Digest {
		add(fleet.ClassEvent, EventRunning, "release %s answers, version %s", now.Running.Release, now.Running.Version)
	}
	return out
}
