package event

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

type counts = map[fleet.EventClass]uint64

func batch(epoch string, dropped counts, sequences ...uint64) wire.EventBatch {
	b := wire.EventBatch{Site: "shop-1", Member: "m", Epoch: epoch, Dropped: dropped}
	for _, s := range sequences {
		b.Records = append(b.Records, wire.EventRecord{Sequence: s, Event: fleet.Event{Class: fleet.ClassEvent, Reason: "E"}})
	}
	return b
}

func TestLedger(t *testing.T) {
	var l Ledger
	for _, row := range []struct {
		reason string
		batch  wire.EventBatch
		want   []string
	}{
		{"what came before the first batch is not known to be missing", batch("A", counts{"sample": 5}, 10, 11), []string{"10", "11"}},
		{"the next one", batch("A", counts{"sample": 5}, 12), []string{"12"}},
		{"a batch that was taken before is not taken again", batch("A", counts{"sample": 5}, 11, 12), nil},
		{"a batch of which some was taken", batch("A", counts{"sample": 5}, 12, 13), []string{"13"}},
		{"a hole before the batch", batch("A", counts{"sample": 7}, 16), []string{"14 lost 2 event: 2 events are missing here; for want of room the site dropped 2 of class sample", "16"}},
		{"holes in it, alarms among them", batch("A", counts{"sample": 8, "alarm": 2}, 17, 19, 22), []string{"17",
			"18 lost 1 alarm: 1 events are missing here; for want of room the site dropped 2 of class alarm, 1 of class sample", "19",
			"20 lost 2 event: 2 events are missing here", "22"}},
		{"another epoch begins anew", batch("B", nil, 4, 6), []string{"4", "5 lost 1 event: 1 events are missing here", "6"}},
	} {
		var got []string
		for _, e := range l.Take(row.batch) {
			line := fmt.Sprint(e.Sequence)
			if e.Lost > 0 {
				line = fmt.Sprintf("%d lost %d %s: %s", e.Sequence, e.Lost, e.Class, e.Message)
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.reason, diff)
		}
	}
	l.Forget("shop-1")
	if got := l.Take(batch("B", nil, 9)); len(got) != 1 {
		t.Errorf("after the site was forgotten: %+v", got)
	}
}

func TestQuery(t *testing.T) {
	till := Entry{Site: "shop-1", Event: fleet.Event{Class: fleet.ClassAlarm, App: fleet.AppKey{Namespace: "shop", Name: "till"}}}
	site := Entry{Site: "shop-1", Event: fleet.Event{Class: fleet.ClassEvent}}
	sample := Entry{Site: "shop-2", Event: fleet.Event{Class: fleet.ClassSample}}
	newer := Entry{Site: "shop-2", Event: fleet.Event{Class: "unheard of"}}
	for _, row := range []struct {
		reason string
		query  Query
		want   []bool
	}{
		{"samples are many and are shown when asked for", Query{}, []bool{true, true, false, true}},
		{"one class", Query{Classes: []fleet.EventClass{fleet.ClassSample}}, []bool{false, false, true, false}},
		{"one site", Query{Site: "shop-1"}, []bool{true, true, false, false}},
		{"one namespace's apps, and nothing of the site itself", Query{Namespace: "shop"}, []bool{true, false, false, false}},
		{"one app", Query{Namespace: "shop", App: "till"}, []bool{true, false, false, false}},
		{"another app", Query{Namespace: "shop", App: "web"}, []bool{false, false, false, false}},
	} {
		var got []bool
		for _, e := range []Entry{till, site, sample, newer} {
			got = append(got, row.query.Match(e))
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.reason, diff)
		}
	}
}
