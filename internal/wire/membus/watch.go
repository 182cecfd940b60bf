package membus

import (
	"context"
	"fmt"
	"sort"

	"github.com/skerry-dev/skerry/internal/wire"
)

// Trim implements wire.Store.
func (c *Client) Trim(ctx context.Context, subject string, keep int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if err := c.check("trim", subject, nil); err != nil {
		return err
	}
	if _, ok := wire.StreamOf(subject); !ok {
		return fmt.Errorf("trim %s: %w", subject, wire.ErrNoResponder)
	}
	c.broker.trim(subject, max(keep, 1))
	return nil
}

// trim is called with the lock held.
func (b *Broker) trim(subject string, keep int) {
	if kept := b.stored[subject]; len(kept) > keep {
		b.stored[subject] = append([]wire.Message(nil), kept[len(kept)-keep:]...)
	}
}

// Usage implements wire.Store.
func (c *Client) Usage(ctx context.Context, stream string) (wire.Usage, error) {
	if err := ctx.Err(); err != nil {
		return wire.Usage{}, err
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if err := c.check("usage of", stream, nil); err != nil {
		return wire.Usage{}, err
	}
	pattern, ok := wire.Stored()[stream]
	if !ok {
		return wire.Usage{}, fmt.Errorf("usage of %s: %w", stream, wire.ErrNoResponder)
	}
	u := wire.Usage{Newest: c.broker.revision, Values: map[string]uint64{}}
	for subject, kept := range c.broker.stored {
		if wire.Matches(pattern, subject) {
			u.Values[subject] = uint64(len(kept))
			for _, m := range kept {
				u.Bytes += uint64(len(m.Subject) + len(m.Data))
			}
		}
	}
	return u, nil
}

// Watch implements wire.Store.
func (c *Client) Watch(ctx context.Context, pattern string, fn wire.Handler) error {
	return c.follow(ctx, &watch{client: c, pattern: pattern}, fn)
}

// History implements wire.Store.
func (c *Client) History(ctx context.Context, pattern string, after uint64, fn wire.Handler) error {
	return c.follow(ctx, &watch{client: c, pattern: pattern, seen: after, all: true}, fn)
}

func (c *Client) follow(ctx context.Context, w *watch, fn wire.Handler) error {
	if err := c.startWatch(w); err != nil {
		return err
	}
	defer w.stop()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		m, more, err := w.next()
		switch {
		case err != nil:
			return fmt.Errorf("watch %s: %w", w.pattern, err)
		case more:
			fn(m)
		default:
			select {
			case <-w.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func (c *Client) startWatch(w *watch) error {
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := c.check("watch", w.pattern, nil); err != nil {
		return err
	}
	if _, ok := wire.StreamOf(w.pattern); !ok {
		return fmt.Errorf("watch %s: %w", w.pattern, wire.ErrNoResponder)
	}
	w.wake, w.initial = make(chan struct{}, 1), true
	b.watches[w] = struct{}{}
	return nil
}

// watch yields stored values by walking the store, so it holds no queue.
type watch struct {
	client  *Client
	pattern string
	wake    chan struct{} // holds one token when there may be something new
	seen    uint64        // revision of the last value told
	initial bool          // the caught-up message was not told yet
	all     bool          // older values too
	err     error
}

// end is called with the lock held.
func (w *watch) end(err error) {
	w.err = err
	w.poke()
}

func (w *watch) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch) stop() {
	w.client.broker.mu.Lock()
	defer w.client.broker.mu.Unlock()
	delete(w.client.broker.watches, w)
}

// next returns what to tell next; false when there is nothing now.
func (w *watch) next() (wire.Message, bool, error) {
	b := w.client.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.err != nil {
		return wire.Message{}, false, w.err
	}
	var newer []wire.Message
	for subject, kept := range b.stored {
		if !wire.Matches(w.pattern, subject) {
			continue
		}
		if !w.all {
			kept = kept[len(kept)-1:]
		}
		for _, m := range kept {
			if m.Revision > w.seen {
				newer = append(newer, m)
			}
		}
	}
	if len(newer) == 0 {
		first := w.initial
		w.initial = false
		return wire.Message{}, first, nil
	}
	sort.Slice(newer, func(i, j int) bool { return newer[i].Revision < newer[j].Revision })
	w.seen = newer[0].Revision
	return clone(newer[0]), true, nil
}
