// Package upkeep is the core of the agents' own upgrades: what the hub tells a site of the agent that it should run, and
// what the site says of it.
//
// It is a feature's core and imports the kernel alone. Its halves are upkeephub and upkeepsite; slots is the part on a
// site's disk that decides which program runs, supervise what starts it and goes back.
package upkeep

import (
	"encoding/json"
	"fmt"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// SectionName is the name of the section and of the module that owns it.
const SectionName = "agent"

// Repository is where the hub's registry keeps agents: a namespace that only administrators may push to.
const Repository = "skerry-system/agent"

// MediaTypeBinary is that of the one layer of each platform's manifest: the program as it is.
const MediaTypeBinary = "application/vnd.skerry.agent.v1"

// Bounds of a section.
const (
	MaxBinaries = 16
	// MaxSize of a program, in bytes.
	MaxSize = 256 << 20
	// DefaultDeadline, MinDeadline and MaxDeadline bound, in seconds, how long a new agent may take to be healthy.
	DefaultDeadline = 180
	MinDeadline     = 5
	MaxDeadline     = 3600
	maxID           = 128
	maxVersion      = 128
)

// Section is what a site is told: the agent that it should run. Without a section it runs what it runs.
type Section struct {
	// ID names this wish: one that failed is not tried again under the same ID.
	ID string `json:"id"`
	// Version is for people; the digests decide.
	Version string `json:"version"`
	// Repository holds Binaries, one for each architecture.
	Repository string   `json:"repository"`
	Binaries   []Binary `json:"binaries"`
	// DeadlineSeconds is how long the new agent may take to be healthy.
	DeadlineSeconds int `json:"deadlineSeconds"`
}

// Binary is the agent for one architecture.
type Binary struct {
	// Arch is the architecture as Go names it.
	Arch   string       `json:"arch"`
	Digest fleet.Digest `json:"digest"`
	// Size in bytes.
	Size int64 `json:"size"`
}

// Encode returns the section as it travels.
func (s Section) Encode() ([]byte, error) { return wire.EncodeJSON("section agent", s) }

// DecodeSection reads what Encode wrote, and checks it.
func DecodeSection(data []byte) (Section, error) {
	var s Section
	if err := wire.DecodeJSON("section agent", data, &s); err != nil {
		return Section{}, err
	}
	fail := func(format string, args ...any) (Section, error) {
		return Section{}, fmt.Errorf("section agent: %w: %w", fmt.Errorf(format, args...), wire.ErrMessage)
	}
	switch {
	case s.ID == "" || len(s.ID) > maxID:
		return fail("id has %d bytes, want 1 to %d", len(s.ID), maxID)
	case len(s.Version) > maxVersion:
		return fail("version has %d bytes, want at most %d", len(s.Version), maxVersion)
	case len(s.Binaries) == 0 || len(s.Binaries) > MaxBinaries:
		return fail("%d binaries, want 1 to %d", len(s.Binaries), MaxBinaries)
	case s.DeadlineSeconds < MinDeadline || s.DeadlineSeconds > MaxDeadline:
		return fail("deadlineSeconds is %d, want %d to %d", s.DeadlineSeconds, MinDeadline, MaxDeadline)
	}
	for i, b := range s.Binaries {
		if err := b.Digest.Validate(); err != nil {
			return fail("binaries[%d]: %w", i, err)
		}
		if b.Arch == "" || b.Size <= 0 || b.Size > MaxSize {
			return fail("binaries[%d]: arch %q, size %d: want an architecture and 1 to %d bytes", i, b.Arch, b.Size, MaxSize)
		}
	}
	return s, nil
}

// Phases of an upgrade at a site.
const (
	PhaseRunning     = "Running"     // the agent that was asked for runs, and was found healthy
	PhaseFetching    = "Fetching"    // its program is on its way
	PhaseTrying      = "Trying"      // it runs and has to prove itself
	PhaseFailed      = "Failed"      // it could not be run, or was unhealthy: the one before runs again
	PhaseUnsupported = "Unsupported" // this agent was not started by the supervisor
)

// Report is the module's part of a site's state document.
type Report struct {
	// Version and Digest are those of the program that runs.
	Version string       `json:"version"`
	Digest  fleet.Digest `json:"digest,omitempty"`
	// ID is that of the section that Phase speaks of; both are empty when nothing was asked for.
	ID    string `json:"id,omitempty"`
	Phase string `json:"phase,omitempty"`
	// Message says why.
	Message string `json:"message,omitempty"`
}

// ReportOf reads the part of a report; the zero value when there is none that can be read.
func ReportOf(r wire.Report) Report {
	var out Report
	if json.Unmarshal(r.Modules[SectionName], &out) != nil {
		return Report{}
	}
	return out
}
