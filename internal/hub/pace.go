package hub

import (
	"sync"
	"time"
)

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
