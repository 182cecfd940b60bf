package site_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// arrived returns what the hub keeps of the site's events, in the order in which it came, without those that
// the agent makes by itself.
func (r *rig) arrived() (reasons []string, batches []wire.EventBatch) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := r.hub.History(ctx, wire.EventsPattern("shop-1"), 0, func(m wire.Message) {
		if m.Subject == "" {
			cancel()
			return
		}
		batch, err := wire.DecodeEventBatch(m.Data)
		if err != nil {
			r.t.Fatal(err)
		}
		batches = append(batches, batch)
		for _, record := range batch.Records {
			if !slices.Contains([]string{"AgentStarted", "LinkUp", "LinkDown"}, record.Reason) {
				reasons = append(reasons, record.Reason)
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		r.t.Fatal(err)
	}
	return reasons, batches
}

func (r *rig) wantArrived(reason string, want ...string) []wire.EventBatch {
	r.t.Helper()
	got, batches := r.arrived()
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("%s: events at the hub (-want +got):\n%s", reason, diff)
	}
	return batches
}

// happen makes the module say that something happened.
func (r *rig) happen(class fleet.EventClass, reasons ...string) {
	for _, reason := range reasons {
		r.apps.host.Events.Add(fleet.Event{Class: class, Reason: reason})
	}
}

// lossyBus loses the acknowledgement of every other batch of events, after it was stored.
type lossyBus struct {
	wire.Bus
	puts int
}

var errLost = errors.New("the acknowledgement was lost")

func (b *lossyBus) Put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	got, err := b.Bus.Put(ctx, subject, data, revision)
	if _, _, other := wire.ParseEvents(subject); other != nil {
		return got, err
	}
	if b.puts++; b.puts%2 == 1 && err == nil {
		return 0, errLost
	}
	return got, err
}

func TestEventsArriveOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.wrap = func(b wire.Bus) wire.Bus { return &lossyBus{Bus: b} }
		r.start()
		var want []string
		for i := range 40 {
			reason := fmt.Sprintf("E%d", i)
			want = append(want, reason)
			class := fleet.EventClasses()[i%3]
			switch i {
			case 10, 25:
				r.connect(false)
			case 15, 28:
				r.connect(true)
			case 20, 27: // the second while it is away
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				r.make()
				r.run()
				if i == 20 {
					r.agent.SetLink(fleet.LinkConnected)
				} else {
					r.connect(false)
				}
			}
			r.happen(class, reason)
			pass(time.Duration(i%7) * time.Second)
		}
		pass(3 * time.Minute)
		r.wantArrived("after links and agents came and went, with every other acknowledgement lost", want...)
		r.end()
	})
}

func TestAlarmsDoNotWait(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		pass(2 * time.Minute)
		r.happen(fleet.ClassAlarm, "Fire")
		pass(100 * time.Millisecond)
		r.wantArrived("an alarm", "Fire")
		r.connect(false)
		r.happen(fleet.ClassAlarm, "Flood")
		pass(time.Minute)
		r.connect(true)
		pass(100 * time.Millisecond)
		r.wantArrived("an alarm that waited for the link", "Fire", "Flood")
	})
}

func TestAHubThatLostItsMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.happen(fleet.ClassAlarm, "One")
		pass(time.Minute)
		r.wantArrived("before", "One")
		if err := r.hub.Purge(t.Context(), wire.AllEvents); err != nil {
			t.Fatal(err)
		}
		r.happen(fleet.ClassAlarm, "Two")
		pass(time.Minute)
		batches := r.wantArrived("what it had is not sent again, what is new comes", "Two")
		if first := batches[0].Records[0].Sequence; first == 1 {
			t.Error("the numbers began anew although the site's record of them is whole")
		}
	})
}

// olderBus belongs to a hub that knows nothing of events.
type olderBus struct {
	wire.Bus
	asked int
}

func (b *olderBus) Get(ctx context.Context, subject string) (wire.Message, error) {
	if _, _, err := wire.ParseEvents(subject); err == nil {
		b.asked++
		return wire.Message{}, wire.ErrForbidden
	}
	return b.Bus.Get(ctx, subject)
}

func TestAHubThatTakesNoEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		older := &olderBus{}
		r := newRig(t)
		r.wrap = func(b wire.Bus) wire.Bus { older.Bus = b; return older }
		r.start()
		for range 60 {
			r.happen(fleet.ClassAlarm, "Tick")
			pass(time.Minute)
		}
		if older.asked == 0 || older.asked > 30 {
			t.Errorf("in an hour an older hub was asked %d times", older.asked)
		}
		if r.wantReport().Problems != nil {
			t.Error("that a hub is older is no problem of the site")
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		r.wrap = nil
		r.start()
		pass(time.Minute)
		if got, _ := r.arrived(); len(got) != 60 {
			t.Errorf("after the hub was upgraded %d of 60 events came", len(got))
		}
		r.end()
	})
}

// TestAMonthAway lets a site with a small outbox work for a month on its own.
func TestAMonthAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.outboxBudget = 1 << 20
		r.start()
		r.connect(false)
		data := []byte(`{"celsius":-18.25,"humidity":61.5,"door":"closed","compressor":"on","since":"2026-01-01T00:00:00Z"}`)
		for i := range 30 * 24 * 12 {
			r.apps.host.Events.Add(fleet.Event{Class: fleet.ClassSample, Reason: "Freezer", Data: data})
			if i%2000 == 0 {
				r.happen(fleet.ClassAlarm, fmt.Sprintf("Alarm%d", i))
			}
			pass(5 * time.Minute)
		}
		r.connect(true)
		pass(10 * time.Minute)
		var alarms []string
		got := map[fleet.EventClass]uint64{}
		var last, first uint64
		_, batches := r.arrived()
		for _, b := range batches {
			for _, record := range b.Records {
				if record.Sequence <= last {
					t.Fatalf("%d came after %d", record.Sequence, last)
				}
				if first == 0 {
					first = record.Sequence
				}
				last = record.Sequence
				got[record.Class]++
				if record.Class == fleet.ClassAlarm {
					alarms = append(alarms, record.Reason)
				}
			}
		}
		dropped := batches[len(batches)-1].Dropped
		if diff := cmp.Diff([]string{"Alarm0", "Alarm2000", "Alarm4000", "Alarm6000", "Alarm8000"}, alarms); diff != "" {
			t.Errorf("alarms (-want +got):\n%s", diff)
		}
		if total := got[fleet.ClassSample] + dropped[fleet.ClassSample]; total != 30*24*12 || dropped[fleet.ClassSample] == 0 || len(dropped) != 1 {
			t.Errorf("%d samples came, dropped are %v: want both to be all, and nothing else dropped", got[fleet.ClassSample], dropped)
		}
		if n := last - first + 1; n != got[fleet.ClassSample]+got[fleet.ClassAlarm]+got[fleet.ClassEvent]+dropped[fleet.ClassSample] {
			t.Errorf("the gaps in %d numbers are not what was dropped", n)
		}
		r.end()
	})
}
