// Package eventhub is the hub half of events: it follows what sites store, keeps the newest in memory for who
// asks, and makes room where they take too much.
//
// Events stay in the stream in which sites store them, which is also how each is accepted once: the newest batch of
// a member is the hub's mark of it, durable before the site hears of it. Nothing of them is written to the
// Kubernetes API. Any number of hubs may follow the same stream; each answers by itself. Only cmd imports it.
//
// A bus that breaks off is followed again from where it was; a batch that cannot be understood is logged, counted
// and left out.
package eventhub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/event"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
)

const (
	// tailRevisions is how far back a hub that starts reads into the stream.
	tailRevisions = 5000
	// maxStored is from how many bytes in the stream on older events make room, and trimEvery how often that is
	// looked at.
	maxStored = 1 << 30
	// maxReading bounds how many read the events of one site from the stream at once.
	maxReading = 8
	trimEvery  = 10 * time.Minute
)

// Feature is the hub half of events.
type Feature struct {
	store wire.Store
	host  *hub.Host
	log   *slog.Logger
	tail  *tail
	// reading has room for those who read what is kept of one site: each takes a consumer of the bus.
	reading chan struct{}

	taken   *prometheus.CounterVec
	lost    prometheus.Counter
	refused prometheus.Counter
}

// New returns the feature, which follows store.
func New(store wire.Store) *Feature {
	return &Feature{
		store: store, tail: newTail(), reading: make(chan struct{}, maxReading),
		taken:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "skerry_hub_events_total", Help: "Events of sites that this hub took, by class."}, []string{"class"}),
		lost:    prometheus.NewCounter(prometheus.CounterOpts{Name: "skerry_hub_events_lost_total", Help: "Numbers of events that are missing: their sites dropped them."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "skerry_hub_event_batches_refused_total", Help: "Batches of events that could not be understood."}),
	}
}

// Name implements hub.Feature.
func (f *Feature) Name() string { return "events" }

// Setup implements hub.Feature.
func (f *Feature) Setup(_ context.Context, h *hub.Host) error {
	f.host, f.log = h, h.Log.With("component", "events")
	stored := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "skerry_hub_events_bytes", Help: "What sites' events take on the hub's disk, as of the last look."}, f.tail.storedBytes)
	for _, c := range []prometheus.Collector{f.taken, f.lost, f.refused, stored} {
		if err := h.Metrics.Register(c); err != nil {
			return fmt.Errorf("register metrics of events: %w", err)
		}
	}
	for _, class := range fleet.EventClasses() {
		f.taken.WithLabelValues(string(class))
	}
	h.Public.HandleFunc("GET "+event.Path, f.view)
	h.OnSiteGone(func(ctx context.Context, s *v1alpha1.Site) error {
		if err := f.store.Purge(ctx, wire.EventsPattern(fleet.SiteName(s.Name))); err != nil {
			return fmt.Errorf("forget events: %w", err)
		}
		return nil
	})
	for _, run := range []func(context.Context){f.follow, f.makeRoom} {
		if err := h.Manager.Add(everywhere(run)); err != nil {
			return fmt.Errorf("add to manager: %w", err)
		}
	}
	return nil
}

// everywhere runs on every hub, leader or not.
type everywhere func(context.Context)

var _ manager.LeaderElectionRunnable = everywhere(nil)

// Start implements manager.Runnable.
func (e everywhere) Start(ctx context.Context) error { e(ctx); return nil }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (e everywhere) NeedLeaderElection() bool { return false }

// follow keeps the newest events in memory until ctx ends.
func (f *Feature) follow(ctx context.Context) {
	var after uint64
	for begun := false; ctx.Err() == nil; {
		if !begun {
			usage, err := f.store.Usage(ctx, wire.StreamEvents)
			if err == nil {
				begun = true
				after = usage.Newest - min(usage.Newest, tailRevisions)
				f.tail.begin(usage.Bytes)
			}
		}
		if begun {
			err := f.store.History(ctx, wire.AllEvents, after, func(m wire.Message) {
				if m.Subject == "" {
					f.tail.caughtUp()
					return
				}
				after = m.Revision
				f.take(m)
			})
			if ctx.Err() == nil {
				f.log.Warn("following events was interrupted and goes on", "error", err)
			}
		}
		pause(ctx, time.Second)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (f *Feature) take(m wire.Message) {
	batch, err := decode(m)
	if err != nil {
		f.refused.Inc()
		f.log.Warn("ignoring events", "subject", m.Subject, "error", err)
		return
	}
	for _, e := range f.tail.take(batch) {
		if e.Lost > 0 {
			f.lost.Add(float64(e.Lost))
			continue
		}
		f.taken.WithLabelValues(class(e.Class)).Inc()
	}
}

// class bounds the values of a label: a site may say anything.
func class(c fleet.EventClass) string {
	for _, known := range fleet.EventClasses() {
		if c == known {
			return string(c)
		}
	}
	return "other"
}

// errForeign means that a batch says it is of another member than the one whose subject it came on, which the bus
// enforced.
var errForeign = errors.New("the events say that they are of another member")

func decode(m wire.Message) (wire.EventBatch, error) {
	site, member, err := wire.ParseEvents(m.Subject)
	if err != nil {
		return wire.EventBatch{}, err
	}
	batch, err := wire.DecodeEventBatch(m.Data)
	if err == nil && (batch.Site != site || batch.Member != member) {
		err = errForeign
	}
	return batch, err
}

// makeRoom removes older events while they take too much, from whom most are kept. The newest batch of each
// member always stays: it is the mark of what was accepted.
func (f *Feature) makeRoom(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, trimEvery/2+rand.N(trimEvery))
		if err := f.trim(ctx, maxStored); err != nil && ctx.Err() == nil {
			f.log.Warn("older events were not removed", "error", err)
		}
	}
}

func (f *Feature) trim(ctx context.Context, bound uint64) error {
	usage, err := f.store.Usage(ctx, wire.StreamEvents)
	if err != nil {
		return err
	}
	for usage.Bytes > bound {
		most := uint64(0)
		for _, n := range usage.Values {
			most = max(most, n)
		}
		if most <= 1 {
			return fmt.Errorf("%d bytes are in the newest events of %d members alone", usage.Bytes, len(usage.Values))
		}
		keep := most / 2
		f.log.Info("making room: only the newest batches of events are kept", "bytes", usage.Bytes, "each", keep)
		for subject, n := range usage.Values {
			if n > keep {
				if err := f.store.Trim(ctx, subject, int(keep)); err != nil {
					return err
				}
			}
		}
		if usage, err = f.store.Usage(ctx, wire.StreamEvents); err != nil {
			return err
		}
	}
	f.tail.begin(usage.Bytes)
	return nil
}
