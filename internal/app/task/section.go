// Package task is the core of tasks: what runs once, or at its times, to its end. It holds what hub and sites
// say to each other of tasks, and how the sites of one task are counted.
//
// Hub half, site half and command line import it. It does nothing by itself; what comes from outside is checked
// where it is decoded, and refused whole with an error that wraps wire.ErrMessage.
package task

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// SectionName is the name of the section and of the module that owns it.
const SectionName = "tasks"

// MaxTasks bounds the tasks and schedules that one site is told of.
const MaxTasks = 128

// Kind tells what runs once from what runs at its times.
type Kind string

// The kinds, by the names of their objects.
const (
	KindTask     Kind = "Task"
	KindCronTask Kind = "CronTask"
)

// Ref names a task among all of a site.
type Ref struct {
	Kind      Kind   `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String returns "task/namespace/name" or "crontask/namespace/name": a relative path of three directories.
func (r Ref) String() string {
	return strings.ToLower(string(r.Kind)) + "/" + r.Namespace + "/" + r.Name
}

// Validate reports what is wrong with a reference.
func (r Ref) Validate() error {
	if r.Kind != KindTask && r.Kind != KindCronTask {
		return fmt.Errorf("kind %q: want %s or %s", r.Kind, KindTask, KindCronTask)
	}
	return fleet.AppKey{Namespace: r.Namespace, Name: r.Name}.Validate()
}

// keyLength is longer than any App's name may be (52): no app has the key of a task.
const keyLength = 60

// Key is the name under which a task runs its own bundle, where an app has its own: for its user and its data.
func (r Ref) Key() fleet.AppKey {
	sum := sha256.Sum256([]byte(r.String()))
	name := r.Name[:min(len(r.Name), 52)] + "-" + hex.EncodeToString(sum[:])
	return fleet.AppKey{Namespace: r.Namespace, Name: name[:keyLength]}
}

// Section is all that a site is told of tasks. One that it does not name is ended, and its results are removed.
type Section struct {
	Facts fleet.Facts `json:"facts"`
	// Tasks in the order of their references.
	Tasks []Entry `json:"tasks"`
}

// Entry is one task or schedule as one site should run it.
type Entry struct {
	Ref
	// UID is the object's: one that is deleted and made again is another.
	UID string `json:"uid"`
	// Bundle is what runs, its App the task's Key; or App is the name of the app in whose release it runs.
	Bundle *app.Placement `json:"bundle,omitempty"`
	App    string         `json:"app,omitempty"`
	// Command replaces that of the bundle, Args follow it, and Env is added.
	Command []string          `json:"command,omitempty"`
	Args    []string          `json:"args,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	// DeadlineSeconds bounds one run; Retries is how often it is tried again.
	DeadlineSeconds int `json:"deadlineSeconds"`
	Retries         int `json:"retries,omitempty"`
	// StartBy is until when it may begin, in seconds since 1970 by the hub's clock; zero for ever.
	StartBy int64 `json:"startBy,omitempty"`
	// Cancel ends it.
	Cancel bool `json:"cancel,omitempty"`
	// Done says that it is over at this site, as the hub heard: a site that has no record of it, since its
	// disk or its machine is another, does not run it again.
	Done bool `json:"done,omitempty"`
	// Schedule says when, for a CronTask.
	Schedule *Schedule `json:"schedule,omitempty"`
}

// Schedule says when a CronTask runs.
type Schedule struct {
	app.ScheduleRules
	Suspend bool `json:"suspend,omitempty"`
	// History is how many runs are kept, 1 to 10.
	History int `json:"history"`
}

// Digest is the same for entries that say the same.
func (e Entry) Digest() (fleet.Digest, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("%s: digest: %w", e.Ref, err)
	}
	return fleet.DigestOf(data), nil
}

// Encode returns the section as it travels. It sorts Tasks.
func (s Section) Encode() ([]byte, error) {
	slices.SortFunc(s.Tasks, func(a, b Entry) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
	if len(s.Tasks) > MaxTasks {
		return nil, fmt.Errorf("section tasks: %d tasks and schedules, a site takes %d: %w", len(s.Tasks), MaxTasks, wire.ErrTooLarge)
	}
	return wire.EncodeJSON("section tasks", s)
}

// DecodeSection reads what Encode wrote, and checks it.
func DecodeSection(data []byte) (Section, error) {
	var s Section
	if err := wire.DecodeJSON("section tasks", data, &s); err != nil {
		return Section{}, err
	}
	if len(s.Tasks) > MaxTasks {
		return Section{}, fmt.Errorf("section tasks: %d tasks, at most %d are allowed: %w", len(s.Tasks), MaxTasks, wire.ErrMessage)
	}
	seen := map[Ref]bool{}
	for i, e := range s.Tasks {
		if err := e.validate(); err != nil {
			return Section{}, fmt.Errorf("section tasks: tasks[%d]: %w: %w", i, err, wire.ErrMessage)
		}
		if seen[e.Ref] {
			return Section{}, fmt.Errorf("section tasks: tasks[%d]: %s is named twice: %w", i, e.Ref, wire.ErrMessage)
		}
		seen[e.Ref] = true
	}
	return s, nil
}

// Bounds of an entry's numbers.
const (
	maxDeadline = 7 * 24 * 60 * 60
	maxRetries  = 10
	MaxHistory  = 10
)

func (e Entry) validate() error {
	if err := e.Ref.Validate(); err != nil {
		return err
	}
	if e.UID == "" || len(e.UID) > 64 || strings.ContainsAny(e.UID, "/\x00") || e.UID[0] == '.' {
		return fmt.Errorf("%s: uid %q: want 1 to 64 letters, digits and '-'", e.Ref, e.UID)
	}
	if (e.Bundle == nil) == (e.App == "") {
		return fmt.Errorf("%s: want one of bundle and app", e.Ref)
	}
	if e.App != "" {
		if err := (fleet.AppKey{Namespace: e.Namespace, Name: e.App}).Validate(); err != nil {
			return fmt.Errorf("%s: %w", e.Ref, err)
		}
	} else if err := e.validateBundle(); err != nil {
		return fmt.Errorf("%s: bundle: %w", e.Ref, err)
	}
	if len(e.Command) > 0 && !app.LocalPath(e.Command[0]) {
		return fmt.Errorf("%s: command[0]: %q is not a path inside the bundle", e.Ref, e.Command[0])
	}
	for _, arg := range slices.Concat(e.Command, e.Args) {
		if strings.Contains(arg, "\x00") {
			return fmt.Errorf("%s: argument %q holds a zero byte", e.Ref, arg)
		}
	}
	for name, value := range e.Env {
		if err := app.CheckEnv(name, value); err != nil {
			return fmt.Errorf("%s: env: %w", e.Ref, err)
		}
	}
	if e.DeadlineSeconds < 1 || e.DeadlineSeconds > maxDeadline || e.Retries < 0 || e.Retries > maxRetries || e.StartBy < 0 {
		return fmt.Errorf("%s: deadlineSeconds %d, retries %d or startBy %d is out of bounds", e.Ref, e.DeadlineSeconds, e.Retries, e.StartBy)
	}
	if (e.Schedule != nil) != (e.Kind == KindCronTask) {
		return fmt.Errorf("%s: a CronTask has a schedule, a Task none", e.Ref)
	}
	if e.Schedule == nil {
		return nil
	}
	if e.Schedule.History < 1 || e.Schedule.History > MaxHistory {
		return fmt.Errorf("%s: schedule.history: %d, want 1 to %d", e.Ref, e.Schedule.History, MaxHistory)
	}
	if err := e.Schedule.ScheduleRules.Validate(); err != nil {
		return fmt.Errorf("%s: schedule.%w", e.Ref, err)
	}
	return nil
}

func (e Entry) validateBundle() error {
	if err := e.Bundle.Validate(); err != nil {
		return err
	}
	if e.Bundle.App != e.Ref.Key() {
		return fmt.Errorf("app %s is not the task's own key", e.Bundle.App)
	}
	return nil
}
