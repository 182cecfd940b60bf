package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/skerry-dev/skerry/internal/store"
)

// clientEnv holds the configuration, in JSON, of a client process; set, it makes this program one.
const clientEnv = "SKERRY_SCALE_CLIENT"

// clientConfig is what a client process is told at its start.
type clientConfig struct {
	// Dir is for what light sites keep, on a file system in memory where there is one; DiskDir for the stores
	// of full ones.
	Dir, DiskDir string
	// Sources are the addresses that connections come from.
	Sources []net.IP
	// JoinsPerSecond and JoinBurst keep this process' part of what the hub admits.
	JoinsPerSecond float64
	JoinBurst      int
}

// newSite is a site to add.
type newSite struct {
	Name, Token string
	Kind        kind
}

// request is what a client process is asked, one line of JSON each on its standard input.
type request struct {
	// Add are further sites to run; the answer does not wait for them.
	Add []newSite
	// Round, and After: what to count.
	Round string
	After time.Time
	// Sites asks for the times of every site, Traffic for what all connections carried.
	Sites, Traffic bool
}

// answer is what it says on its standard output, a line each.
type answer struct {
	Count   counts
	Sites   []siteTimes
	Traffic traffic
}

// counts are of all sites of a client process.
type counts struct {
	Sites, Joined, Linked int
	// OnRound reported the round that was asked for; Synced are in sync on a link that came up after the time
	// that was asked for.
	OnRound, Synced int
	// Alive is the least number of signs of life that a site sent.
	Alive int
	// Refusals is how often joining was put off, because the hub was busy.
	Refusals int
	// Failed gave up; Why says why one of them did.
	Failed int
	Why    string
}

func (c counts) plus(o counts) counts {
	sum := counts{
		c.Sites + o.Sites, c.Joined + o.Joined, c.Linked + o.Linked, c.OnRound + o.OnRound, c.Synced + o.Synced,
		min(c.Alive, o.Alive), c.Refusals + o.Refusals, c.Failed + o.Failed, c.Why,
	}
	if sum.Why == "" {
		sum.Why = o.Why
	}
	switch {
	case c.Sites == 0:
		sum.Alive = o.Alive
	case o.Sites == 0:
		sum.Alive = c.Alive
	}
	return sum
}

// client is a client process.
type client struct {
	config   clientConfig
	log      *slog.Logger
	shared   *store.Shared
	joins    *rate.Limiter
	refusals atomic.Int64
	members  []*member // of serve alone
	running  sync.WaitGroup
}

// runClient serves requests from in until it ends, and then ends all sites.
func runClient(ctx context.Context, config string, in io.Reader, out io.Writer) (err error) {
	c := &client{log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	if err := json.Unmarshal([]byte(config), &c.config); err != nil {
		return fmt.Errorf("%s: %w", clientEnv, err)
	}
	c.joins = rate.NewLimiter(rate.Limit(c.config.JoinsPerSecond), c.config.JoinBurst)
	if c.shared, err = store.OpenShared(filepath.Join(c.config.Dir, "shared.db")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.shared.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer c.running.Wait()
	defer cancel()
	lines := bufio.NewReader(in)
	encoder := json.NewEncoder(out)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		if err := encoder.Encode(c.serve(ctx, r)); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func (c *client) serve(ctx context.Context, r request) answer {
	for _, s := range r.Add {
		m := &member{
			name: s.Name, kind: s.Kind, token: s.Token, from: c.config.Sources[len(c.members)%len(c.config.Sources)],
			c: c, times: &times{s: siteTimes{Kind: s.Kind}},
		}
		c.members = append(c.members, m)
		c.running.Go(func() {
			if err := m.run(ctx); err != nil && ctx.Err() == nil {
				m.times.fail(fmt.Errorf("%s: %w", m.name, err))
			}
		})
	}
	a := answer{Count: c.count(r)}
	for _, m := range c.members {
		if r.Sites {
			m.times.change(func(s *siteTimes) { a.Sites = append(a.Sites, *s) })
		}
		if r.Traffic {
			a.Traffic = a.Traffic.plus(m.times.traffic())
		}
	}
	return a
}

func (c *client) count(r request) counts {
	n := counts{Sites: len(c.members), Refusals: int(c.refusals.Load())}
	for i, m := range c.members {
		t := m.times
		t.mu.Lock()
		s := t.s
		if t.failed != nil {
			n.Failed, n.Why = n.Failed+1, t.failed.Error()
		}
		t.mu.Unlock()
		if !s.Joined.IsZero() {
			n.Joined++
		}
		if !s.Linked.IsZero() {
			n.Linked++
		}
		if s.Round == r.Round {
			n.OnRound++
		}
		if s.Linked.After(r.After) && !s.Synced.IsZero() {
			n.Synced++
		}
		if i == 0 || s.Alive < n.Alive {
			n.Alive = s.Alive
		}
	}
	return n
}
