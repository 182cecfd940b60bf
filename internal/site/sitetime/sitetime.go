// Package sitetime tells a site's corrected time: the hub's, however wrong the machine's own clock is.
//
// The hub's time comes over an authenticated connection, and goes on by a clock that nobody sets. An anchor of it
// on the disk carries it over a restart of the agent, by the time since the machine's boot, and over a reboot
// with no hub in reach, by the machine's clock, when that was right before and has gone on plausibly. Otherwise
// the time is not known, and says so: it is never guessed.
//
// cmd makes a Clock and hands it to what needs the time. It uses the kernel alone.
package sitetime

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/internal/store"
)

// Source tells the hub's time as far as it was heard in this life of the agent.
type Source func() (now time.Time, known bool)

// Machine is what a machine knows of time.
type Machine interface {
	// Wall is the machine's clock, which may be anything.
	Wall() time.Time
	// Boot names the machine's boot, and Since is the time since then, sleep included. An empty name means that
	// the machine does not say.
	Boot() (name string, since time.Duration)
}

// Bounds of what is believed of a machine's clock after a reboot.
const (
	// trusted is how far it may have been from the hub's time when both were known.
	trusted = 5 * time.Minute
	// longest is how long a machine may have been off.
	longest = 366 * 24 * time.Hour
)

// anchorEvery is how often the anchor is stored while the hub's time is known.
const anchorEvery = 10 * time.Minute

// key of the anchor in the bucket.
const key = "anchor"

// anchor is one moment at which the hub's time was known.
type anchor struct {
	Hub  time.Time `json:"hub"`
	Wall time.Time `json:"wall"`
	Boot string    `json:"boot,omitempty"`
	// Since is the time from the boot to that moment, in nanoseconds.
	Since time.Duration `json:"since,omitempty"`
}

// Clock tells the corrected time. It is safe for concurrent use.
type Clock struct {
	bucket  *store.Bucket
	hub     Source
	machine Machine
	log     *slog.Logger

	mu     sync.Mutex
	anchor anchor
}

// Open returns a clock that keeps its anchor in bucket, which is its alone. A damaged anchor is as none.
func Open(bucket *store.Bucket, hub Source, machine Machine, log *slog.Logger) (*Clock, error) {
	c := &Clock{bucket: bucket, hub: hub, machine: machine, log: log}
	err := bucket.Get(key, &c.anchor)
	if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDamaged) {
		return nil, fmt.Errorf("site time: %w", err)
	}
	return c, nil
}

// Now returns the corrected time, and whether it is known.
func (c *Clock) Now() (time.Time, bool) {
	hub, heard := c.hub()
	c.mu.Lock()
	defer c.mu.Unlock()
	if heard {
		c.remember(hub)
		return hub, true
	}
	return c.carried()
}

// carried works the time out from the anchor.
func (c *Clock) carried() (time.Time, bool) {
	a := c.anchor
	if a.Hub.IsZero() {
		return time.Time{}, false
	}
	if boot, since := c.machine.Boot(); boot != "" && boot == a.Boot && since >= a.Since {
		return a.Hub.Add(since - a.Since), true
	}
	wall := c.machine.Wall()
	if off := a.Hub.Sub(a.Wall); off > trusted || off < -trusted {
		return time.Time{}, false // this machine's clock is wrong
	}
	now := wall.Add(a.Hub.Sub(a.Wall))
	if now.Before(a.Hub) || now.Sub(a.Hub) > longest {
		return time.Time{}, false
	}
	return now.UTC(), true
}

// remember stores an anchor now and then, and at once when the machine's clock was set. The caller holds the
// lock.
func (c *Clock) remember(hub time.Time) {
	boot, since := c.machine.Boot()
	next := anchor{Hub: hub, Wall: c.machine.Wall().Round(0).UTC(), Boot: boot, Since: since}
	moved := next.Hub.Sub(next.Wall) - c.anchor.Hub.Sub(c.anchor.Wall)
	if c.anchor.Boot == boot && hub.Sub(c.anchor.Hub) < anchorEvery && !hub.Before(c.anchor.Hub) && moved.Abs() < time.Minute {
		return
	}
	if err := c.bucket.Put(key, next); err != nil { // it is tried again at the next look
		c.log.Warn("the time of the hub is not remembered", "error", err)
		return
	}
	c.anchor = next
}

// Linux is a Machine that asks the kernel.
type Linux struct{}

// Wall implements Machine.
func (Linux) Wall() time.Time { return time.Now() }

// Boot implements Machine.
func (Linux) Boot() (string, time.Duration) {
	name, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0
	}
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return "", 0
	}
	return strings.TrimSpace(string(name)), time.Duration(t.Nano())
}
