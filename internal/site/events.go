package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site/outbox"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Parts of the agent, beside its modules, that may have a problem.
const (
	partSync   = "sync"
	partOutbox = "outbox"
)

// How events travel.
const (
	// flushEvery is how often events are written to the disk at most, alarms aside: those that come together are
	// written together.
	flushEvery = time.Second
	// batchSize is about how large a batch is: a slow link carries reports between two of them.
	batchSize = 32 << 10
	// sendTimeout bounds the wait for the acknowledgement of one.
	sendTimeout = time.Minute
	// sendAfter is about how long events wait for others before they are sent together. After the link came up
	// they wait longer: all sites come back at once when a hub does, and their state goes first. Alarms do not
	// wait.
	sendAfter     = 5 * time.Second
	sendAfterLink = 30 * time.Second
	// refusedEvery is how often a hub that takes no events is asked again: it may be older than this agent.
	refusedEvery = 5 * time.Minute
	// flushAgain is when events are written again that the disk did not take.
	flushAgain = 10 * time.Second
	// trafficEvery is how often the requests that the gateway counted become samples.
	trafficEvery = 5 * time.Minute
)

// keepEvents writes events to the disk, one at once, those that follow it together soon after, and asks for them to
// be sent.
func (a *Agent) keepEvents(ctx context.Context) {
	var again <-chan time.Time // set while the disk does not take what waits
	var last time.Time
	for {
		send := a.unsent
		select {
		case <-ctx.Done():
			return // the rest is written when the modules have stopped
		case <-a.outbox.Ready():
		case <-again:
		}
		select {
		case <-a.outbox.Urgent():
			send = a.urgent
		default:
			soon := time.NewTimer(flushEvery - time.Since(last))
			select {
			case <-ctx.Done():
			case <-soon.C:
			case <-a.outbox.Urgent():
				send = a.urgent
			}
			soon.Stop()
		}
		last = time.Now()
		err := a.outbox.Flush()
		a.setProblem(partOutbox, err)
		if again = nil; err != nil {
			again = time.After(flushAgain)
		}
		replace(send, struct{}{})
	}
}

// sendEvents brings events to the hub, in order, while the link is up.
func (a *Agent) sendEvents(ctx context.Context) {
	s := eventSender{agent: a}
	for {
		var wait time.Duration
		select {
		case <-ctx.Done():
			return
		case <-a.urgent:
		case <-a.unsent:
			wait = jitter(sendAfter)
		case <-a.linked:
			if a.outbox.Stats().Alarms == 0 {
				wait = jitter(sendAfterLink)
			}
		}
		if !a.await(ctx, wait, a.urgent) {
			return
		}
		if a.currentLink() != fleet.LinkConnected {
			continue // begun again when the link comes up
		}
		err := s.drain(ctx)
		if err == nil {
			continue
		}
		a.log.Debug("events were not sent", "error", err)
		pause := retryEvery
		if errors.Is(err, wire.ErrForbidden) || errors.Is(err, wire.ErrNoResponder) {
			pause = refusedEvery
		}
		if !a.await(ctx, jitter(pause), a.linked) {
			return
		}
		replace(a.unsent, struct{}{})
	}
}

// await waits for a time or for an event, whichever is first. False: ctx has ended.
func (a *Agent) await(ctx context.Context, d time.Duration, event <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-event:
	}
	return ctx.Err() == nil
}

// eventSender knows what the hub has.
type eventSender struct {
	agent *Agent
	// known says that revision is that of the newest batch at the hub.
	known    bool
	revision uint64
}

// drain sends everything that is kept. The condition on the newest batch makes sure that one whose
// acknowledgement was lost is not accepted twice: it is found to be there instead.
func (s *eventSender) drain(ctx context.Context) error {
	for {
		if s.agent.outbox.Stats().Pending == 0 {
			return nil
		}
		// Before anything is sent, so that numbers of another life are told from those of this one.
		if !s.known {
			if err := s.look(ctx); err != nil {
				return err
			}
		}
		batch, err := s.agent.outbox.Batch(batchSize)
		if err != nil || len(batch.Records) == 0 {
			return err
		}
		if err := s.send(ctx, batch); err != nil {
			s.known = false
			return err
		}
	}
}

// look asks the hub which batch is its newest, and takes that as acknowledged.
func (s *eventSender) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	o := s.agent.o
	m, err := o.Bus.Get(ctx, wire.EventsSubject(o.Site, o.Member))
	if errors.Is(err, wire.ErrNotFound) {
		s.known, s.revision = true, 0
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for the newest events: %w", err)
	}
	s.known, s.revision = true, m.Revision
	batch, err := wire.DecodeEventBatch(m.Data)
	if err != nil {
		// Of a newer agent that ran here before: nothing in it can be one of this agent's.
		s.agent.log.Warn("the newest events at the hub cannot be read", "error", err)
		return nil
	}
	return s.agent.outbox.Acknowledge(batch.Epoch, batch.Last())
}

func (s *eventSender) send(ctx context.Context, batch wire.EventBatch) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	o := s.agent.o
	batch.Site, batch.Member = o.Site, o.Member
	data, err := batch.Encode()
	if err != nil {
		return err
	}
	revision, err := o.Bus.Put(ctx, wire.EventsSubject(o.Site, o.Member), data, s.revision)
	if err != nil {
		return fmt.Errorf("store events: %w", err)
	}
	s.revision = revision
	return s.agent.outbox.Acknowledge(batch.Epoch, batch.Last())
}

// started says how this life began.
func (a *Agent) started() {
	e := fleet.Event{Class: fleet.ClassEvent, Reason: "AgentStarted", Message: "version " + a.o.Version}
	switch a.outbox.Before() {
	case outbox.EndedNever:
		e.Message += ", for the first time"
	case outbox.EndedOrderly:
		e.Message += ", after an orderly stop"
	case outbox.EndedHard:
		e.Message += ", after it was killed or lost power"
	}
	a.outbox.Add(e)
}

// closeOutbox writes what is left. A site that was wiped keeps nothing.
func (a *Agent) closeOutbox() {
	if err := a.outbox.Close(); err != nil {
		a.log.Error("the last events were not kept", "error", err)
	}
	a.mu.Lock()
	wiped := a.wiped
	a.mu.Unlock()
	if wiped {
		if err := os.RemoveAll(filepath.Join(a.o.Dir, "outbox")); err != nil {
			a.log.Error("events of a wiped site were not removed", "error", err)
		}
	}
}

// noteProblem keeps that a part of the agent has a problem, or has none any more. That the hub does not answer
// as it should is none for the hub to hear of.
func (a *Agent) noteProblem(part string, err error) {
	switch {
	case part == partSync:
	case err != nil:
		a.outbox.Add(fleet.Event{Class: fleet.ClassAlarm, Reason: "Problem", Message: part + ": " + err.Error()})
	default:
		a.outbox.Add(fleet.Event{Class: fleet.ClassEvent, Reason: "ProblemSolved", Message: part + " is well again"})
	}
}

// noteLink keeps when the link came and went.
func (a *Agent) noteLink(old, now fleet.Link) {
	switch {
	case old == now:
	case now == fleet.LinkConnected && a.awaySince.IsZero():
		a.outbox.Add(fleet.Event{Class: fleet.ClassEvent, Reason: "LinkUp", Message: "the hub is reached"})
	case now == fleet.LinkConnected:
		away := time.Since(a.awaySince).Round(time.Second)
		a.outbox.Add(fleet.Event{Class: fleet.ClassEvent, Reason: "LinkUp", Message: fmt.Sprintf("the hub is reached again after %v", away)})
	case old == fleet.LinkConnected:
		a.awaySince = time.Now()
		a.outbox.Add(fleet.Event{Class: fleet.ClassEvent, Reason: "LinkDown", Message: "the hub cannot be reached; the site goes on by itself"})
	}
}

// Traffic is the data of samples with the reason "Traffic": what the gateway counted for one app.
type Traffic struct {
	// Seconds that the sample covers.
	Seconds  int    `json:"seconds"`
	Requests uint64 `json:"requests"`
	// Errors are answers with a status of 500 and above.
	Errors uint64 `json:"errors,omitempty"`
}

// sampleTraffic keeps how much each app was asked, so that it is known afterwards also for the time without a
// hub. An app that nobody asked has no sample.
func (a *Agent) sampleTraffic(ctx context.Context) {
	last := map[fleet.AppKey]fleet.RequestCounts{}
	tick := time.NewTicker(trafficEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		counts := a.gateway.Counts()
		for key, now := range counts {
			t := Traffic{Seconds: int(trafficEvery / time.Second), Requests: now.Requests - last[key].Requests, Errors: now.Errors - last[key].Errors}
			if now.Requests <= last[key].Requests {
				continue
			}
			data, err := json.Marshal(t)
			if err != nil {
				continue // a struct of numbers
			}
			a.outbox.Add(fleet.Event{Class: fleet.ClassSample, Reason: "Traffic", App: key, Data: data})
		}
		last = counts
	}
}

// outboxMetrics are what the outbox holds, as it is when it is asked.
type outboxMetrics struct {
	outbox                  *outbox.Outbox
	pending, bytes, dropped *prometheus.Desc
}

func newOutboxMetrics(o *outbox.Outbox) *outboxMetrics {
	return &outboxMetrics{
		outbox:  o,
		pending: prometheus.NewDesc("skerry_site_outbox_pending", "Events that the hub does not have yet.", nil, nil),
		bytes:   prometheus.NewDesc("skerry_site_outbox_bytes", "What the outbox takes on the disk.", nil, nil),
		dropped: prometheus.NewDesc("skerry_site_outbox_dropped_total", "Events that were dropped for want of room, by class.", []string{"class"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *outboxMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.pending
	out <- m.bytes
	out <- m.dropped
}

// Collect implements prometheus.Collector.
func (m *outboxMetrics) Collect(out chan<- prometheus.Metric) {
	s := m.outbox.Stats()
	out <- prometheus.MustNewConstMetric(m.pending, prometheus.GaugeValue, float64(s.Pending))
	out <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(s.Bytes))
	for _, class := range fleet.EventClasses() {
		out <- prometheus.MustNewConstMetric(m.dropped, prometheus.CounterValue, float64(s.Dropped[class]), string(class))
	}
}
