// Package event is the core of the events that sites keep and the hub collects: how a person sees them, and what
// is missing between them. The site half is the agent's own outbox (package site/outbox); the hub half is package
// eventhub. Hub half and command line import it. It does no input or output and cannot fail.
package event

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Path is the hub's view of events. Its query is of Query's fields; its answer is one JSON object a line, each an
// Entry, in the order in which the hub took them.
const Path = "/view/v1/events"

// Names of the view's query.
const (
	QuerySite      = "site"
	QueryNamespace = "namespace"
	QueryApp       = "app"
	QueryClass     = "class"
	QueryLimit     = "limit"
	QueryFollow    = "follow"
)

// Bounds of QueryLimit.
const (
	DefaultLimit = 100
	MaxLimit     = 10_000
)

// ReasonLost is the reason of an entry that stands where events are missing.
const ReasonLost = "EventsLost"

// Entry is one event as the hub took it.
type Entry struct {
	Site   fleet.SiteName `json:"site"`
	Member fleet.MemberID `json:"member"`
	// Epoch and Sequence are the event's number; of an entry with ReasonLost that of the first that is missing.
	Epoch    string `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	fleet.Event
	// Lost is how many events are missing here; zero for an event.
	Lost uint64 `json:"lost,omitempty"`
	// Dropped says of which classes the site dropped events between the batch before and this one.
	Dropped map[fleet.EventClass]uint64 `json:"dropped,omitempty"`
}

// Ledger knows up to which number each member's events were taken. The zero value knows none. It is not safe for
// concurrent use.
type Ledger struct {
	marks map[member]mark
}

type member struct {
	site fleet.SiteName
	id   fleet.MemberID
}

type mark struct {
	epoch   string
	last    uint64
	dropped map[fleet.EventClass]uint64
}

// Take returns the entries of a batch that were not taken before, and an entry with ReasonLost wherever numbers
// are missing. Before the first batch of a member, or of another epoch, nothing is known to be missing.
func (l *Ledger) Take(b wire.EventBatch) []Entry {
	if l.marks == nil {
		l.marks = map[member]mark{}
	}
	who := member{b.Site, b.Member}
	before, known := l.marks[who]
	known = known && before.epoch == b.Epoch
	if !known {
		before = mark{epoch: b.Epoch, dropped: b.Dropped}
	}
	dropped := growth(before.dropped, b.Dropped)
	var out []Entry
	last := before.last
	for _, r := range b.Records {
		if r.Sequence <= last {
			continue
		}
		if missing := r.Sequence - last - 1; missing > 0 && (known || last > before.last) {
			out = append(out, lost(b, last+1, missing, dropped))
			dropped = nil // said once
		}
		last = r.Sequence
		out = append(out, Entry{Site: b.Site, Member: b.Member, Epoch: b.Epoch, Sequence: r.Sequence, Event: r.Event})
	}
	l.marks[who] = mark{epoch: b.Epoch, last: last, dropped: b.Dropped}
	return out
}

// Forget drops what is known of a site.
func (l *Ledger) Forget(site fleet.SiteName) {
	for who := range l.marks {
		if who.site == site {
			delete(l.marks, who)
		}
	}
}

// lost is the entry that stands for missing numbers. It is an alarm when an alarm is among them.
func lost(b wire.EventBatch, first, n uint64, dropped map[fleet.EventClass]uint64) Entry {
	e := Entry{Site: b.Site, Member: b.Member, Epoch: b.Epoch, Sequence: first, Lost: n, Dropped: dropped}
	e.Reason, e.Class = ReasonLost, fleet.ClassEvent
	if dropped[fleet.ClassAlarm] > 0 {
		e.Class = fleet.ClassAlarm
	}
	e.Message = fmt.Sprintf("%d events are missing here", n)
	var parts []string
	for _, class := range fleet.EventClasses() {
		if count := dropped[class]; count > 0 {
			parts = append(parts, fmt.Sprintf("%d of class %s", count, class))
		}
	}
	if len(parts) > 0 {
		e.Message += "; for want of room the site dropped " + strings.Join(parts, ", ")
	}
	return e
}

// growth returns by how much counts grew, nil when by nothing.
func growth(old, now map[fleet.EventClass]uint64) map[fleet.EventClass]uint64 {
	var out map[fleet.EventClass]uint64
	for class, n := range now {
		if n <= old[class] {
			continue
		}
		if out == nil {
			out = map[fleet.EventClass]uint64{}
		}
		out[class] = n - old[class]
	}
	return out
}

// Query chooses entries. The zero value chooses all.
type Query struct {
	Site      fleet.SiteName
	Namespace string
	App       string
	// Classes chosen; none means all but samples.
	Classes []fleet.EventClass
}

// Match reports whether the query chooses e.
func (q Query) Match(e Entry) bool {
	switch {
	case q.Site != "" && e.Site != q.Site,
		q.Namespace != "" && e.App.Namespace != q.Namespace,
		q.App != "" && e.App.Name != q.App:
		return false
	case len(q.Classes) == 0:
		return e.Class != fleet.ClassSample
	}
	return slices.Contains(q.Classes, e.Class)
}
