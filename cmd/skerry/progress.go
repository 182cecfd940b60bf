package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/telemetry"
)

// progress shows what becomes true: on a terminal a list that is redrawn in place, elsewhere one line when
// an item is done. It is safe for concurrent use.
type progress struct {
	out     io.Writer
	live    bool
	color   bool
	started time.Time

	mu    sync.Mutex
	items []*progressItem
	drawn int
}

type progressItem struct {
	name, detail string
	state        itemState
	took         time.Duration
}

type itemState int

const (
	itemWaiting itemState = iota
	itemDone
	itemFailed
)

// Marks of the states: without colour they differ by shape.
func (s itemState) mark(color bool) string {
	mark := [...]string{"·", "✓", "✗"}[s]
	if !color {
		return mark
	}
	return [...]string{"\x1b[2m", "\x1b[32m", "\x1b[31m"}[s] + mark + "\x1b[0m"
}

func newProgress(out io.Writer, started time.Time, names ...string) *progress {
	live := telemetry.IsTerminal(out)
	p := &progress{out: out, live: live, color: live && os.Getenv("NO_COLOR") == "", started: started}
	for _, name := range names {
		p.items = append(p.items, &progressItem{name: name})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw()
	return p
}

// done says that an item is true now; detail is what a person does with it, such as an address.
func (p *progress) done(name, detail string) { p.set(name, itemDone, detail) }

// fail says that an item cannot come.
func (p *progress) fail(name string, err error) { p.set(name, itemFailed, err.Error()) }

func (p *progress) set(name string, state itemState, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, item := range p.items {
		if item.name != name || item.state == itemDone {
			continue
		}
		item.state, item.detail, item.took = state, detail, time.Since(p.started)
		if !p.live {
			fmt.Fprintln(p.out, p.line(item))
		}
	}
	p.draw()
}

func (p *progress) draw() {
	if !p.live {
		return
	}
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	for _, item := range p.items {
		fmt.Fprintf(&b, "\x1b[2K%s\n", p.line(item))
	}
	p.drawn = len(p.items)
	// A terminal that has gone has nobody to tell.
	_, _ = io.WriteString(p.out, b.String())
}

func (p *progress) line(item *progressItem) string {
	s := fmt.Sprintf("  %s %-16s %s", item.state.mark(p.color), item.name, item.detail)
	if item.state == itemDone {
		s = fmt.Sprintf("%-64s %5.1f s", s, item.took.Seconds())
	}
	return strings.TrimRight(s, " ")
}
