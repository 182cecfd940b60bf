package task

import (
	"encoding/json"
	"unicode/utf8"
)

// Phase says where one run stands. It is level-triggered: the newest value replaces the last.
type Phase string

// The phases of a run.
const (
	PhasePending   Phase = "Pending"   // told, nothing begun; the message says what it waits for
	PhaseRunning   Phase = "Running"   // at it, or in the pause before another try
	PhaseSucceeded Phase = "Succeeded" // ended with exit code 0
	PhaseFailed    Phase = "Failed"    // ended otherwise, or cannot run at all
	PhaseMissed    Phase = "Missed"    // heard of too late
	PhaseCancelled Phase = "Cancelled" // ended since it was to be
)

// Final reports whether a run in this phase is over.
func (p Phase) Final() bool {
	return p == PhaseSucceeded || p == PhaseFailed || p == PhaseMissed || p == PhaseCancelled
}

// Reasons of events of tasks.
const (
	// EventFailed: a run failed for good.
	EventFailed = "TaskFailed"
	// EventMissed: a Task did not begin in time, or a run of a schedule within its deadline.
	EventMissed = "TaskMissed"
)

// Bounds of a report: it is a part of the site's state document, which is 256 KiB with all else that it holds.
const (
	MaxMessage = 256
	MaxTail    = 512
	// MaxReport bounds the module's part. Beyond it tails go first, then older runs of schedules.
	MaxReport = 72 << 10
)

// Report is the module's part of a site's state document.
type Report struct {
	Tasks []State `json:"tasks"`
}

// State is where one task or schedule stands at one site.
type State struct {
	Ref
	UID string `json:"uid"`
	// Runs are the newest first: of a Task just one, of a CronTask those that the site keeps.
	Runs []Run `json:"runs,omitempty"`
	// Next is when a schedule is due next, in seconds since 1970; zero while that is not known.
	Next int64 `json:"next,omitempty"`
	// Message says why a schedule does not run, or why an entry waits.
	Message string `json:"message,omitempty"`
	// Skipped and Missed count times of a schedule that were left out.
	Skipped uint64 `json:"skipped,omitempty"`
	Missed  uint64 `json:"missed,omitempty"`
	// Digest is the entry's that the site works with.
	Digest string `json:"digest,omitempty"`
}

// Run is one run with all its tries. Times are in seconds since 1970, corrected where the site can.
type Run struct {
	// Time is the one of the schedule that it is for; zero for a Task.
	Time  int64 `json:"time,omitempty"`
	Phase Phase `json:"phase"`
	// Attempt counts from 1; zero when none began.
	Attempt int `json:"attempt,omitempty"`
	// ExitCode of the last try that ended; -1 when it was killed or never ran.
	ExitCode int    `json:"exitCode"`
	Message  string `json:"message,omitempty"`
	Started  int64  `json:"started,omitempty"`
	Finished int64  `json:"finished,omitempty"`
	// Tail is the end of what it printed.
	Tail string `json:"tail,omitempty"`
}

// Bounded returns the report within its bounds. It does not change r.
func (r Report) Bounded() Report {
	out := Report{Tasks: make([]State, len(r.Tasks))}
	for i, s := range r.Tasks {
		s.Message = Cut(s.Message, MaxMessage)
		runs := make([]Run, len(s.Runs))
		for j, run := range s.Runs {
			run.Message, run.Tail = Cut(run.Message, MaxMessage), Tail(run.Tail, MaxTail)
			runs[j] = run
		}
		s.Runs = runs
		out.Tasks[i] = s
	}
	for _, shrink := range []func(*State){
		func(s *State) { eachRun(s, func(j int, run *Run) { run.Tail = Tail(run.Tail, 64*min(j, 1)) }) },
		func(s *State) { s.Runs = s.Runs[:min(len(s.Runs), 1)] },
		func(s *State) { eachRun(s, func(_ int, run *Run) { run.Tail = "" }) },
		func(s *State) {
			s.Message = Cut(s.Message, 64)
			eachRun(s, func(_ int, run *Run) { run.Message = Cut(run.Message, 64) })
		},
	} {
		if out.size() <= MaxReport {
			break
		}
		for i := range out.Tasks {
			shrink(&out.Tasks[i])
		}
	}
	return out
}

func eachRun(s *State, edit func(int, *Run)) {
	for j := range s.Runs {
		edit(j, &s.Runs[j])
	}
}

func (r Report) size() int {
	data, err := json.Marshal(r)
	if err != nil {
		return 0
	}
	return len(data)
}

// Cut returns the first bytes of text, at most most, in whole characters.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// Tail returns the last bytes of text, at most most, in whole characters.
func Tail(text string, most int) string {
	if len(text) <= most {
		return text
	}
	from := len(text) - most
	for from < len(text) && !utf8.RuneStart(text[from]) {
		from++
	}
	return text[from:]
}
