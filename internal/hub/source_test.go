package hub_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/skerry-dev/skerry/internal/hub"
)

// started starts a source on a queue of its own.
func started(t *testing.T, s source.Source) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	t.Helper()
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	t.Cleanup(q.ShutDown)
	if err := s.Start(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	return q
}

// names empties a queue.
func names(q workqueue.TypedRateLimitingInterface[reconcile.Request]) []string {
	var out []string
	for q.Len() > 0 {
		req, _ := q.Get()
		q.Done(req)
		out = append(out, req.Name)
	}
	slices.Sort(out)
	return out
}

func TestNotifier(t *testing.T) {
	n := hub.NewNotifier()
	for range 3 {
		n.NotifySite("shop-1") // nobody listens yet
	}
	n.NotifySite("shop-2")
	q := started(t, n.Source())
	if diff := cmp.Diff([]string{"shop-1", "shop-2"}, names(q)); diff != "" {
		t.Errorf("what was told before the start (-want +got):\n%s", diff)
	}
	for range 3 {
		n.NotifySite("shop-3")
	}
	if diff := cmp.Diff([]string{"shop-3"}, names(q)); diff != "" {
		t.Errorf("what was told after the start (-want +got):\n%s", diff)
	}
}

func TestMappedNotifier(t *testing.T) {
	n := hub.NewNotifier()
	n.Notify(types.NamespacedName{Namespace: "shop", Name: "early"})
	q := started(t, n.MappedSource(func(_ context.Context, key types.NamespacedName) []reconcile.Request {
		return []reconcile.Request{
			{NamespacedName: types.NamespacedName{Namespace: key.Namespace, Name: key.Name + "-a"}},
			{NamespacedName: types.NamespacedName{Namespace: key.Namespace, Name: key.Name + "-b"}},
		}
	}))
	n.Notify(types.NamespacedName{Namespace: "shop", Name: "late"})
	want := []string{"early-a", "early-b", "late-a", "late-b"}
	if diff := cmp.Diff(want, names(q)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPace(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		took, after, want time.Duration
		reason            string
	}{
		"brief":      {5 * time.Millisecond, 0, 0, "passes of a small fleet follow each other as they are asked for"},
		"long":       {300 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, "as much time as the pass took goes by without one"},
		"long, over": {300 * time.Millisecond, 300 * time.Millisecond, 0, "the pause is over"},
		"very long":  {20 * time.Second, 0, time.Second, "whoever waits for the next pass waits a second at most"},
		"clock back": {300 * time.Millisecond, -time.Hour, time.Second, "a clock that is set back stops nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			var p hub.Pace
			p.Done("app", start.Add(-tt.took), start)
			if got := p.Wait("app", start.Add(tt.after)); got != tt.want {
				t.Errorf("waits %s, want %s: %s", got, tt.want, tt.reason)
			}
			if got := p.Wait("other", start); got != 0 {
				t.Errorf("another key waits %s, want not at all", got)
			}
			p.Forget("app")
			if got := p.Wait("app", start); got != 0 {
				t.Errorf("one that was forgotten waits %s, want not at all", got)
			}
		})
	}
}
