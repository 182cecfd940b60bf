package appsite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// scripted is a Runtime whose instances do what the test says, by release: the module's own steps are what
// is tested with it. Instances of releases without a script are ready at once.
type scripted struct {
	mu      sync.Mutex
	scripts map[string]script
	all     []*actor
	events  []string
	// hears makes instances appsite.Signallers.
	hears bool
}

// hearing is an actor that can be told by a signal.
type hearing struct{ *actor }

func (h hearing) Signal(name string) error {
	h.rt.mu.Lock()
	defer h.rt.mu.Unlock()
	h.rt.events = append(h.rt.events, name+" "+h.spec.Release)
	return nil
}

// script is how instances of a release behave.
type script struct {
	refuse  bool          // Start fails
	fail    bool          // PhaseFailed at once
	never   bool          // never ready
	readyIn time.Duration // ready after this time
}

func (s *scripted) Name() string                  { return app.RuntimeProcess }
func (s *scripted) Recover(context.Context) error { return nil }

func (s *scripted) Start(_ context.Context, spec appsite.Spec) (appsite.Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sc := s.scripts[spec.Release]
	s.events = append(s.events, "start "+spec.Release)
	if sc.refuse {
		return nil, errors.New("refused")
	}
	if _, err := os.Stat(spec.Scratch); err != nil {
		return nil, err
	}
	a := &actor{
		rt: s, spec: spec, changes: make(chan struct{}, 1), gone: make(chan struct{}),
		status: appsite.Status{Phase: fleet.PhaseStarting, Message: "not yet"},
	}
	s.all = append(s.all, a)
	n := len(s.all)
	ready := appsite.Status{Phase: fleet.PhaseRunning, Target: fmt.Sprintf("http://127.0.0.1:%d", n)}
	switch {
	case sc.fail:
		a.status = appsite.Status{Phase: fleet.PhaseFailed, Message: "cannot be run"}
	case sc.readyIn > 0:
		time.AfterFunc(sc.readyIn, func() { a.become(ready) })
	case !sc.never:
		a.status = ready
	}
	if s.hears {
		return hearing{a}, nil
	}
	return a, nil
}

// story is what happened since the last call.
func (s *scripted) story() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.events
	s.events = nil
	return out
}

// newest is the instance that was started last.
func (s *scripted) newest() *actor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[len(s.all)-1]
}

// actor is one scripted instance.
type actor struct {
	rt      *scripted
	spec    appsite.Spec
	changes chan struct{}
	gone    chan struct{}

	mu     sync.Mutex
	status appsite.Status
	over   bool
}

func (a *actor) become(s appsite.Status) {
	a.mu.Lock()
	a.status = s
	a.mu.Unlock()
	select {
	case a.changes <- struct{}{}:
	default:
	}
}

func (a *actor) Status() appsite.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

func (a *actor) Changes() <-chan struct{} { return a.changes }

func (a *actor) Stop(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.over = true
		close(a.gone)
		a.rt.mu.Lock()
		a.rt.events = append(a.rt.events, "stop "+a.spec.Release)
		a.rt.mu.Unlock()
	}
	return nil
}
