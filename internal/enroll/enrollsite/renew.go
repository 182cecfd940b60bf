package enrollsite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/skerry-dev/skerry/internal/wire"
)

// Bounds of the time between attempts to renew.
const (
	firstRetry = 5 * time.Second
	lastRetry  = 5 * time.Minute
	// finalRetry is how long after a final refusal the hub is asked again: a person may have mended it.
	finalRetry = 15 * time.Minute
	// startJitter spreads the first renewals of agents that start at one moment.
	startJitter = 10 * time.Second
)

// Renew gets new credentials now. They are on disk and in use when it returns.
func (i *Identity) Renew(ctx context.Context) error {
	s := i.snapshot()
	a := &asker{key: i.key, tls: i.TLSConfig(), proxy: i.o.Proxy, dial: i.o.Dial, pins: i.pins()}
	response, err := a.askServing(ctx, i.o, s, s.HubURLs, wire.PathRenew, wire.EnrollRequest{
		Site: s.Site, Member: s.Member, Hardware: i.o.Hardware, Version: i.o.Version,
	})
	if err != nil {
		return fmt.Errorf("renew credentials of site %q, member %q: %w", s.Site, s.Member, err)
	}
	return i.take(response)
}

func (i *Identity) take(response wire.EnrollResponse) error {
	pair, err := keyPair(response.Certificate, i.key)
	if err != nil {
		return fmt.Errorf("renewed certificate: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	next, err := i.state.after(response)
	if err != nil {
		return err
	}
	trusted, err := next.pins()
	if err != nil {
		return err
	}
	serving, err := next.servingPair()
	if err != nil {
		return fmt.Errorf("renewed certificate: %w", err)
	}
	if err := next.write(i.path); err != nil {
		return err
	}
	i.state, i.trusted, i.certificate, i.serving, i.heard = next, trusted, pair, serving, time.Now()
	select {
	case i.renewed <- struct{}{}:
	default: // one is there
	}
	return nil
}

// RenewSoon makes Run renew at once, for a bus that refuses the credential or a gateway that lacks a
// certificate. It never blocks.
func (i *Identity) RenewSoon() {
	select {
	case i.nudge <- struct{}{}:
	default:
	}
}

// Run renews the credentials when two thirds of their life are over, until ctx ends. After a start it
// renews soon, because nobody knows how long the machine was off. refused, if not nil, is told each final
// refusal.
func (i *Identity) Run(ctx context.Context, refused func(*RefusedError)) {
	wait, failures := i.untilRenewal(), 0
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-i.nudge:
			timer.Stop()
		case <-timer.C:
		}
		err := i.Renew(ctx)
		if ctx.Err() != nil {
			return
		}
		var refusal *RefusedError
		switch {
		case err == nil:
			failures = 0
			wait = i.untilRenewal()
			i.o.Log.Debug("credentials are renewed", "next", wait)
			continue
		case errors.As(err, &refusal) && refusal.Final():
			wait = jitter(finalRetry)
			if refused != nil {
				refused(refusal)
			}
		default:
			wait = jitter(min(lastRetry, firstRetry<<min(failures, 10)))
			failures++
		}
		i.o.Log.Warn("cannot renew credentials; what runs here goes on", "error", err, "again", wait.Round(time.Second))
		i.pause(ctx, min(wait, firstRetry))
	}
}

// pause keeps nudges from asking the hub faster than retries would.
func (i *Identity) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// untilRenewal is the time until two thirds of the credentials' life are over, all by the hub's clock.
func (i *Identity) untilRenewal() time.Duration {
	now, known := i.HubTime()
	if !known {
		return rand.N(startJitter)
	}
	s := i.snapshot()
	life := time.Duration(s.Expires-s.NotBefore) * time.Second
	due := time.Unix(s.NotBefore, 0).Add(life * 2 / 3)
	// A tenth earlier at most, so that members who joined together do not renew together.
	return max(due.Sub(now)-rand.N(life/10+1), time.Second)
}

// jitter returns between half of d and all of it.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }
