package membus

import (
	"context"
	"fmt"
	"sync"

	"github.com/skerry-dev/skerry/internal/wire"
)

// subscription is a bounded queue and the goroutine that empties it, which cancel waits for.
type subscription struct {
	client  *Client
	pattern string
	queue   chan wire.Message
	stop    chan struct{}
	once    sync.Once
	done    chan struct{}
}

// Subscribe implements wire.Bus.
func (c *Client) Subscribe(ctx context.Context, subject string, fn wire.Handler) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if err := c.check("subscribe", subject, nil); err != nil {
		return nil, err
	}
	if subject == "" {
		return nil, fmt.Errorf("subscribe: subject is empty: %w", wire.ErrMessage)
	}
	return c.broker.subscribe(c, subject, fn).cancel, nil
}

// subscribe is called with the lock held.
func (b *Broker) subscribe(c *Client, pattern string, fn wire.Handler) *subscription {
	s := &subscription{
		client:  c,
		pattern: pattern,
		queue:   make(chan wire.Message, pending),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	b.subs[s] = struct{}{}
	go s.run(fn)
	return s
}

func (s *subscription) run(fn wire.Handler) {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case m := <-s.queue:
			select {
			case <-s.stop:
				return
			default:
				fn(m)
			}
		}
	}
}

// push drops the message when the queue is full. It is called with the broker's lock held.
func (s *subscription) push(m wire.Message) {
	select {
	case s.queue <- m:
	default:
	}
}

// cancel ends the subscription and waits for a call that is under way.
func (s *subscription) cancel() {
	s.client.broker.mu.Lock()
	delete(s.client.broker.subs, s)
	s.client.broker.mu.Unlock()
	s.once.Do(func() { close(s.stop) })
	<-s.done
}
