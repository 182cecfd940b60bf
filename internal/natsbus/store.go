package natsbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/skerry-dev/skerry/internal/wire"
)

// Store is wire.Store for a Client that has every right in its account, which is the hub's.
type Store struct {
	bus *Client
	js  jetstream.JetStream
}

var _ wire.Store = (*Store)(nil)

// NewStore returns the Store of the bus that c is connected to.
func NewStore(c *Client) (*Store, error) {
	js, err := jetstream.New(c.nc, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	return &Store{bus: c, js: js}, nil
}

const (
	// apiTimeout bounds a request to JetStream for a caller whose context has no end.
	apiTimeout = 30 * time.Second
	// watchBatch is how many values a watch holds at once.
	watchBatch = 256
	// consumerLife is after how long without its watch the server forgets a consumer.
	consumerLife = time.Minute
	// maxStoredHeaders is how much a stored message may grow by its headers.
	maxStoredHeaders = 4 << 10
)

// EnsureStreams makes the streams of wire.Stored, or brings them to what they should be. Replicas is on
// how many servers each is kept: 1 for the embedded server.
func (s *Store) EnsureStreams(ctx context.Context, replicas int) error {
	if err := s.bus.check(ctx, nil); err != nil {
		return fmt.Errorf("make streams: %w", err)
	}
	room, err := s.roomForEvents(ctx)
	if err != nil {
		return fmt.Errorf("make streams: how much the account of the bus may store: %w", s.bus.translate(err))
	}
	for name, pattern := range wire.Stored() {
		maxBytes := int64(-1) // that of the account alone
		if name == wire.StreamEvents {
			maxBytes = room
		}
		_, err := s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name:              name,
			Subjects:          []string{pattern},
			MaxMsgsPerSubject: int64(wire.Kept(name)),
			MaxBytes:          maxBytes,
			MaxMsgSize:        wire.MaxMessage + maxStoredHeaders,
			Storage:           jetstream.FileStorage,
			Replicas:          replicas,
			AllowDirect:       true,
			// A full store refuses what is new: to drop what is old would take a site's manifest away.
			Discard:    jetstream.DiscardNew,
			DenyDelete: true,
			// Nothing here relies on the server's memory of message ids.
			Duplicates: time.Second,
		})
		if err != nil {
			return fmt.Errorf("make stream %s: %w", name, s.bus.translate(err))
		}
	}
	return nil
}

// maxEvents bounds what events take on disk: what is desired must always have room. The hub trims them long
// before; beyond it sites keep theirs.
const maxEvents = 2 << 30

// roomForEvents is maxEvents, or a quarter of what a smaller account may store: JetStream sets it aside.
func (s *Store) roomForEvents(ctx context.Context) (int64, error) {
	info, err := s.js.AccountInfo(ctx)
	if err != nil {
		return 0, err
	}
	room := int64(maxEvents)
	limits := []int64{info.Limits.MaxStore}
	for _, tier := range info.Tiers {
		limits = append(limits, tier.Limits.MaxStore)
	}
	for _, limit := range limits {
		if limit > 0 {
			room = min(room, limit/4)
		}
	}
	return room, nil
}

// Purge implements wire.Store.
func (s *Store) Purge(ctx context.Context, pattern string) error {
	err := s.bus.check(ctx, nil)
	if err == nil {
		err = s.purge(ctx, pattern)
	}
	if err != nil {
		return fmt.Errorf("purge %s: %w", pattern, err)
	}
	return nil
}

func (s *Store) purge(ctx context.Context, pattern string, more ...jetstream.StreamPurgeOpt) error {
	name, ok := wire.StreamOf(pattern)
	if !ok {
		return wire.ErrNoResponder
	}
	within, done := s.bus.within(ctx, pattern)
	defer done()
	stream, err := s.js.Stream(within, name)
	if err == nil {
		err = stream.Purge(within, append(more, jetstream.WithPurgeSubject(pattern))...)
	}
	return s.bus.cause(within, err)
}

// Watch implements wire.Store. It ends with wire.ErrDisconnected when the link is lost; the next one
// tells everything again.
func (s *Store) Watch(ctx context.Context, pattern string, fn wire.Handler) error {
	return s.follow(ctx, "watch", pattern, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy}, fn)
}

// History implements wire.Store. It ends as Watch does.
func (s *Store) History(ctx context.Context, pattern string, after uint64, fn wire.Handler) error {
	from := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1}
	return s.follow(ctx, "history of", pattern, from, fn)
}

func (s *Store) follow(ctx context.Context, what, pattern string, from jetstream.ConsumerConfig, fn wire.Handler) error {
	err := s.bus.check(ctx, nil)
	if err == nil {
		err = s.watch(ctx, pattern, from, fn)
	}
	return fmt.Errorf("%s %s: %w", what, pattern, err)
}

func (s *Store) watch(ctx context.Context, pattern string, config jetstream.ConsumerConfig, fn wire.Handler) error {
	name, ok := wire.StreamOf(pattern)
	if !ok {
		return wire.ErrNoResponder
	}
	within, done := s.bus.within(ctx, pattern)
	defer done()
	config.FilterSubject, config.AckPolicy = pattern, jetstream.AckNonePolicy
	config.MemoryStorage, config.InactiveThreshold = true, consumerLife
	consumer, err := s.js.CreateConsumer(within, name, config)
	if err != nil {
		return s.bus.cause(within, err)
	}
	defer s.forget(name, consumer)
	w := &watcher{fn: fn}
	if err := w.tellStored(within, consumer); err != nil {
		return s.bus.cause(within, err)
	}
	fn(wire.Message{})
	return s.bus.cause(within, w.tellNew(within, consumer))
}

// Trim implements wire.Store.
func (s *Store) Trim(ctx context.Context, subject string, keep int) error {
	err := s.bus.check(ctx, nil)
	if err == nil {
		err = s.purge(ctx, subject, jetstream.WithPurgeKeep(uint64(max(keep, 1))))
	}
	if err != nil {
		return fmt.Errorf("trim %s: %w", subject, err)
	}
	return nil
}

// Usage implements wire.Store.
func (s *Store) Usage(ctx context.Context, stream string) (wire.Usage, error) {
	u, err := s.usage(ctx, stream)
	if err != nil {
		return wire.Usage{}, fmt.Errorf("usage of %s: %w", stream, err)
	}
	return u, nil
}

func (s *Store) usage(ctx context.Context, stream string) (wire.Usage, error) {
	if err := s.bus.check(ctx, nil); err != nil {
		return wire.Usage{}, err
	}
	pattern, ok := wire.Stored()[stream]
	if !ok {
		return wire.Usage{}, wire.ErrNoResponder
	}
	within, done := s.bus.within(ctx, pattern)
	defer done()
	found, err := s.js.Stream(within, stream)
	var info *jetstream.StreamInfo
	if err == nil {
		info, err = found.Info(within, jetstream.WithSubjectFilter(pattern))
	}
	if err != nil {
		return wire.Usage{}, s.bus.cause(within, err)
	}
	values := info.State.Subjects
	if values == nil {
		values = map[string]uint64{}
	}
	return wire.Usage{Bytes: info.State.Bytes, Newest: info.State.LastSeq, Values: values}, nil
}

// forget removes the consumer, which the server would do by itself later.
func (s *Store) forget(stream string, consumer jetstream.Consumer) {
	if !s.bus.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.js.DeleteConsumer(ctx, stream, consumer.CachedInfo().Name); err != nil {
		s.bus.log.Debug("remove consumer of a watch", "error", err)
	}
}

// watcher passes on what a consumer delivers.
type watcher struct {
	fn   wire.Handler
	next uint64 // the consumer's sequence that was told last
}

// errGap says that a message was lost on the way, which ends a watch: the next one tells everything.
var errGap = errors.New("a message was lost on the way")

// tellStored passes on what is stored now, until the server says that there is no more.
func (w *watcher) tellStored(ctx context.Context, consumer jetstream.Consumer) error {
	for {
		batch, err := consumer.FetchNoWait(watchBatch)
		if err != nil {
			return err
		}
		n := 0
		for more := true; more; {
			var m jetstream.Msg
			select {
			case m, more = <-batch.Messages():
			case <-ctx.Done():
				return ctx.Err()
			}
			if !more {
				break
			}
			n++
			if err := w.tell(m); err != nil {
				return err
			}
		}
		if err := batch.Error(); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

// tellNew passes on what comes, until ctx ends.
func (w *watcher) tellNew(ctx context.Context, consumer jetstream.Consumer) error {
	messages, err := consumer.Messages(jetstream.PullMaxMessages(watchBatch))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		if err := w.tell(m); err != nil {
			return err
		}
	}
}

func (w *watcher) tell(m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	w.next++
	if meta.Sequence.Consumer != w.next {
		return fmt.Errorf("got message %d of the watch, want %d: %w", meta.Sequence.Consumer, w.next, errGap)
	}
	w.fn(wire.Message{Subject: m.Subject(), Data: m.Data(), Revision: meta.Sequence.Stream})
	return nil
}
