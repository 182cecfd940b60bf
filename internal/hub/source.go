package hub

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Notifier turns changes that come from the bus into reconcile requests. Requests of the same object
// merge while they wait, so it needs no bound beyond the number of objects. The zero value is not usable;
// see NewNotifier.
type Notifier struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
	early map[reconcile.Request]bool
	// forward, of a mapped source, replaces the queue.
	forward func(types.NamespacedName)
}

// NewNotifier returns a Notifier that keeps requests until its source starts.
func NewNotifier() *Notifier { return &Notifier{early: map[reconcile.Request]bool{}} }

// Notify asks for the object to be reconciled. It never blocks.
func (n *Notifier) Notify(key types.NamespacedName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.forward != nil {
		n.forward(key)
		return
	}
	req := reconcile.Request{NamespacedName: key}
	if n.queue == nil {
		n.early[req] = true
		return
	}
	n.queue.Add(req)
}

// NotifySite asks for the Site of that name to be reconciled.
func (n *Notifier) NotifySite(site fleet.SiteName) {
	n.Notify(types.NamespacedName{Name: string(site)})
}

// Source is what a controller watches.
func (n *Notifier) Source() source.Source {
	return source.Func(func(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.queue = q
		for req := range n.early {
			q.Add(req)
		}
		n.early = nil
		return nil
	})
}

// MappedSource is what a controller watches when an object's change concerns others, which fn names.
func (n *Notifier) MappedSource(fn func(context.Context, types.NamespacedName) []reconcile.Request) source.Source {
	return source.Func(func(ctx context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.forward = func(key types.NamespacedName) {
			for _, req := range fn(ctx, key) {
				q.Add(req)
			}
		}
		for req := range n.early {
			n.forward(req.NamespacedName)
		}
		n.early = nil
		return nil
	})
}

// Bounds of Pace.
const (
	// briefPass is how long a pass may take without a pause after it: those of small fleets do.
	briefPass = 20 * time.Millisecond
	longPause = time.Second
)

// Pace keeps passes over all sites apart. Every report of a site asks for one, and a pass over very many takes so
// long that it would be followed by the next at once, and the hub would do nothing else: after a pass that took
// long as much time goes by without one, a second at most. The zero value is ready. It is safe for concurrent use.
type Pace struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// Wait returns how long the next pass of key has to wait; zero: it may begin.
func (p *Pace) Wait(key string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.until[key]
	if !ok {
		return 0
	}
	if wait := until.Sub(now); wait > 0 {
		return min(wait, longPause) // whatever a clock did that was set
	}
	delete(p.until, key)
	return 0
}

// Done says that a pass of key took from began to ended.
func (p *Pace) Done(key string, began, ended time.Time) {
	took := ended.Sub(began)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.until, key)
	if took < briefPass {
		return
	}
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	p.until[key] = ended.Add(min(took, longPause))
}

// Forget drops what is known of key, whose object is gone or is another one now: its next pass may begin at once.
func (p *Pace) Forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.until, key)
}
