package site

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Reports are sent soon after a change, and no more often than this: one change seldom comes alone.
const (
	reportAfter = 50 * time.Millisecond
	reportEvery = 500 * time.Millisecond
	// countsEvery is how often a report is sent for request counts alone.
	countsEvery = time.Minute
)

// sequenceBlock is how many sequence numbers are taken from the store at once: one write for many
// reports. An agent that was killed skips the rest of its block.
const sequenceBlock = 1000

// report sends the state document after each change while the link is up.
func (a *Agent) report(ctx context.Context) {
	counts := time.NewTicker(countsEvery)
	defer counts.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
		case <-counts.C:
		}
		if a.currentLink() != fleet.LinkConnected {
			continue // sent when the link comes up, which is a change
		}
		if !sleep(ctx, max(reportAfter, reportEvery-time.Since(last))) {
			return
		}
		last = time.Now()
		if err := a.sendReport(ctx); err != nil && ctx.Err() == nil {
			a.log.Debug("report was not stored", "error", err)
			if !sleep(ctx, jitter(retryEvery)) {
				return
			}
			a.notifyChanged()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (a *Agent) sendReport(ctx context.Context) error {
	r, err := a.makeReport()
	if err != nil {
		return err
	}
	data, err := r.Encode()
	if err != nil {
		return err
	}
	if _, err := a.o.Bus.Put(ctx, wire.ReportSubject(a.o.Site, a.o.Member), data, wire.AnyRevision); err != nil {
		return fmt.Errorf("store report: %w", err)
	}
	return nil
}

func (a *Agent) makeReport() (wire.Report, error) {
	modules := map[string]json.RawMessage{}
	var neighbours map[fleet.SiteName]bool
	for _, m := range a.modules {
		if h, ok := m.(Hearer); ok {
			neighbours = h.Hears()
		}
		v := m.Report()
		if v == nil {
			continue
		}
		data, err := json.Marshal(v)
		if err != nil {
			return wire.Report{}, fmt.Errorf("report of module %s: %w", m.Name(), err)
		}
		modules[m.Name()] = data
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	sequence, err := a.nextSequence()
	if err != nil {
		return wire.Report{}, err
	}
	return wire.Report{
		Site: a.o.Site, Member: a.o.Member, Epoch: a.epoch, Sequence: sequence,
		HubEpoch: a.manifest.HubEpoch, Generation: a.manifest.Generation, Wiped: a.wiped,
		Version: a.o.Version, Hardware: ReadHardware(), Gateway: a.gateway.URL(),
		Neighbours: neighbours, Problems: maps.Clone(a.problems), Modules: modules,
	}, nil
}

// nextSequence returns a number that no report of this epoch had. The caller holds a.mu.
func (a *Agent) nextSequence() (uint64, error) {
	if a.sequence >= a.reserved {
		reserved := a.sequence + sequenceBlock
		if err := a.bucket.Update(func(w store.Writer) error { return w.Put(keySequence, reserved) }); err != nil {
			return 0, fmt.Errorf("reserve sequence numbers: %w", err)
		}
		a.reserved = reserved
	}
	a.sequence++
	return a.sequence, nil
}

// stayAlive says on a timer that this member is there, and at the end that it leaves.
func (a *Agent) stayAlive(ctx context.Context) {
	tick := time.NewTicker(wire.AliveSeconds * time.Second)
	defer tick.Stop()
	for {
		if a.currentLink() == fleet.LinkConnected {
			a.sayAlive(ctx, false)
		}
		select {
		case <-tick.C:
		case <-a.calls.connected: // the link came up: say so at once
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if a.currentLink() == fleet.LinkConnected {
				a.sayAlive(last, true)
			}
			return
		}
	}
}

func (a *Agent) sayAlive(ctx context.Context, leaving bool) {
	a.mu.Lock()
	alive := wire.Alive{Sequence: a.sequence, Leaving: leaving}
	a.mu.Unlock()
	if leaving {
		alive.Reason = fleet.LeavingStop
		if a.o.Leaving != nil {
			alive.Reason = a.o.Leaving()
		}
	}
	data, err := wire.EncodeJSON("alive", alive)
	if err != nil {
		return
	}
	if err := a.o.Bus.Publish(ctx, wire.AliveSubject(a.o.Site, a.o.Member), data); err != nil {
		a.log.Debug("sign of life was not sent", "error", err)
	}
}
