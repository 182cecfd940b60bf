// Package upkeepsite is the site half of the agents' own upgrades: it fetches the agent that the hub names, puts it into
// the slot that is not current, and ends this one so that the supervisor tries it. Only cmd imports it.
package upkeepsite

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/upkeep"
	"github.com/skerry-dev/skerry/internal/upkeep/slots"
	"github.com/skerry-dev/skerry/internal/upkeep/supervise"
)

// Options of the module.
type Options struct {
	// DataDir is the agent's, Version that of this program.
	DataDir, Version string
	// Supervised reports whether a supervisor started this agent.
	Supervised bool
	// Switch ends this agent in order, so that the supervisor starts the next. It must not block.
	Switch func()
}

const (
	// attempts is how many starts a new agent has: one may meet a power cut.
	attempts = 3
	// retryAfter is when a program that could not be fetched is tried again.
	retryAfter = 2 * time.Minute
	// recordEvery is how often a new agent looks whether the supervisor has judged it.
	recordEvery = 500 * time.Millisecond
	// tryTimeout bounds the first question to a new program: its version.
	tryTimeout = 20 * time.Second
)

// Module is the site's half.
type Module struct {
	o     Options
	host  *site.Host
	slots *slots.Slots
	self  fleet.Digest

	wake chan struct{}
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	target *upkeep.Section // nil when nothing is asked for
	report upkeep.Report
}

var _ site.Module = (*Module)(nil)

// New returns the module.
func New(h *site.Host, o Options) *Module {
	m := &Module{o: o, host: h, slots: slots.Open(o.DataDir), wake: make(chan struct{}, 1), done: make(chan struct{}), stop: func() {}}
	m.report = upkeep.Report{Version: o.Version}
	return m
}

// Name implements site.Module.
func (m *Module) Name() string { return upkeep.SectionName }

// Start implements site.Module.
func (m *Module) Start(ctx context.Context) error {
	self, err := digestOfSelf()
	if err != nil {
		m.host.Log.Warn("this program's digest is not known: every agent counts as another", "error", err)
	}
	m.self = self
	m.mu.Lock()
	m.report.Digest = self
	m.mu.Unlock()
	ctx, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(m.done)
		m.work(ctx)
	}()
	return nil
}

func digestOfSelf() (fleet.Digest, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fleet.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}

// Apply implements site.Module.
func (m *Module) Apply(_ context.Context, body []byte, _ fleet.Facts) error {
	var target *upkeep.Section
	if body != nil {
		s, err := upkeep.DecodeSection(body)
		if err != nil {
			return err
		}
		target = &s
	}
	m.mu.Lock()
	m.target = target
	m.mu.Unlock()
	m.poke()
	return nil
}

func (m *Module) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Report implements site.Module.
func (m *Module) Report() any {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.report
}

// Stop implements site.Module.
func (m *Module) Stop(context.Context) error {
	m.stop()
	<-m.done
	return nil
}

// say makes what stands in the report.
func (m *Module) say(id, phase, message string) {
	m.mu.Lock()
	next := m.report
	next.ID, next.Phase, next.Message = id, phase, message
	changed := next != m.report
	m.report = next
	m.mu.Unlock()
	if changed {
		m.host.Changed()
	}
}

// work brings what was asked for about, until ctx ends.
func (m *Module) work(ctx context.Context) {
	for {
		m.mu.Lock()
		target := m.target
		m.mu.Unlock()
		again := time.Duration(0)
		if target == nil {
			m.say("", "", "")
		} else {
			again = m.towards(ctx, *target)
		}
		var timer <-chan time.Time
		if again > 0 {
			timer = time.After(again)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-timer:
		}
	}
}

// towards takes the next step and returns when to look again; zero: when something changes.
func (m *Module) towards(ctx context.Context, target upkeep.Section) time.Duration {
	record, known, err := m.slots.Record()
	if err != nil {
		m.say(target.ID, upkeep.PhaseFailed, err.Error())
		return retryAfter
	}
	binary, ok := pick(target.Binaries)
	switch {
	case known && record.State == slots.Trial: // the supervisor has yet to judge, or to start it
		m.say(record.ID, upkeep.PhaseTrying, "")
		return recordEvery
	case ok && binary.Digest == m.self:
		m.say(target.ID, upkeep.PhaseRunning, "")
		return 0
	case known && record.State == slots.Failed && record.ID == target.ID:
		m.say(target.ID, upkeep.PhaseFailed, record.Reason)
		return 0
	case !m.o.Supervised:
		m.say(target.ID, upkeep.PhaseUnsupported, "this agent was not started by `skerry-site supervise`: install it anew with `skerry-site install`")
		return 0
	case !ok:
		m.say(target.ID, upkeep.PhaseFailed, "there is none for "+runtime.GOARCH)
		return 0
	}
	m.say(target.ID, upkeep.PhaseFetching, "")
	if err := m.try(ctx, target, binary); err != nil {
		if ctx.Err() != nil {
			return 0
		}
		m.host.Log.Error("the agent that the hub names was not tried", "version", target.Version, "error", err)
		m.say(target.ID, upkeep.PhaseFailed, err.Error())
		return retryAfter
	}
	return recordEvery
}

func pick(binaries []upkeep.Binary) (upkeep.Binary, bool) {
	for _, b := range binaries {
		if b.Arch == runtime.GOARCH {
			return b, true
		}
	}
	return upkeep.Binary{}, false
}

// try fetches and stages the program, looks whether it runs at all, and asks for a trial.
func (m *Module) try(ctx context.Context, target upkeep.Section, binary upkeep.Binary) error {
	if err := m.host.Content.Keep(upkeep.SectionName, []fleet.Digest{binary.Digest}); err != nil {
		return err
	}
	if err := m.host.Content.Ensure(ctx, target.Repository, site.ContentRef{Digest: binary.Digest, Size: binary.Size}); err != nil {
		return fmt.Errorf("fetch it: %w", err)
	}
	path, err := m.host.Content.Path(binary.Digest)
	if err != nil {
		return err
	}
	digest := strings.TrimPrefix(string(binary.Digest), "sha256:")
	slot, err := m.slots.Stage(path, digest)
	if err != nil {
		return err
	}
	record := slots.Record{
		ID: target.ID, Version: target.Version, Digest: digest, To: slot, Attempts: attempts, DeadlineSeconds: target.DeadlineSeconds,
	}
	// The slot has it now; twice is too much for a small disk.
	if err := m.host.Content.Keep(upkeep.SectionName, nil); err != nil {
		return err
	}
	if err := runs(ctx, m.slots.Path(slot)); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		reason := "it does not run on this machine: " + err.Error()
		return errors.Join(errors.New(reason), m.slots.Refuse(record, reason))
	}
	health, err := supervise.Ask(ctx, m.o.DataDir)
	if err != nil {
		return fmt.Errorf("ask this agent how it is: %w", err)
	}
	record.Healthy, record.Linked = health.Healthy(), health.Linked
	if err := m.slots.Begin(record); err != nil {
		return err
	}
	m.say(target.ID, upkeep.PhaseTrying, "")
	m.host.Log.Info("this agent ends, so that the next is tried", "version", target.Version)
	m.o.Switch()
	return nil
}

// runs asks a program for its version.
func runs(ctx context.Context, program string) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		const shown = 200
		return fmt.Errorf("%w %s", err, strings.TrimSpace(string(out[:min(len(out), shown)])))
	}
	return nil
}
