package taskhub_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/task"
)

// TestTasks brings tasks to sites that this test speaks for. The steps share one API server.
func TestTasks(t *testing.T) {
	w := newWorld(t)
	one, two := w.site("shop-1", map[string]string{"kind": "shop"}), w.site("shop-2", map[string]string{"kind": "shop"})
	gate := w.site("gate-1", map[string]string{"kind": "gate"})
	gate.Alive(true) // it leaves
	shops := map[string]string{"kind": "shop"}
	t.Run("a task goes to its sites and to its end", func(t *testing.T) {
		w.t = t
		x := w.task("first", nil, func(x *v1alpha1.Task) {
			x.Spec.Work.Args, x.Spec.Work.Env = []v1alpha1.TaskArg{"a"}, map[string]v1alpha1.EnvValue{"WHERE": "${site.name}"}
			x.Spec.Work.Retries, x.Spec.Work.Deadline = 1, &metav1.Duration{Duration: time.Minute}
		})
		for _, m := range []*member{one, two, gate} {
			e := m.awaitTold(ofTask("first"))
			if e.UID != string(x.UID) || e.Bundle == nil || e.Bundle.Env["WHERE"] != string(m.Name) || e.Retries != 1 || e.DeadlineSeconds != 60 || e.Args[0] != "a" {
				t.Errorf("site %s is told %+v", m.Name, e)
			}
		}
		w.expect(x, v1alpha1.ReasonProgressing, v1alpha1.TaskCounts{Matched: 3, Waiting: 2, Away: 1})
		one.reports(ofTask("first"), task.Run{Phase: task.PhaseRunning, Attempt: 1})
		two.reports(ofTask("first"), ended(task.PhaseSucceeded, 0, ""))
		w.expect(x, v1alpha1.ReasonProgressing, v1alpha1.TaskCounts{Matched: 3, Running: 1, Succeeded: 1, Away: 1})
		if x.Status.Bundle == nil || x.Status.Bundle.Version != "1" {
			t.Errorf("the bundle that it runs is not on record: %+v", x.Status.Bundle)
		}
		one.reports(ofTask("first"), ended(task.PhaseSucceeded, 0, ""))
		w.expect(x, v1alpha1.ReasonSitesAway, v1alpha1.TaskCounts{Matched: 3, Succeeded: 2, Away: 1})
		gate.Alive(false)
		gate.reports(ofTask("first"), ended(task.PhaseSucceeded, 0, ""))
		w.expect(x, v1alpha1.ReasonComplete, v1alpha1.TaskCounts{Matched: 3, Succeeded: 3})
		for _, m := range []*member{one, two, gate} {
			w.eventually("another machine would not run it again", func() string { return unless(m.told(ofTask("first")).Done, "it would") })
		}
		if !meta.IsStatusConditionTrue(x.Status.Conditions, v1alpha1.ConditionComplete) || x.Status.FinishedAt == nil ||
			meta.FindStatusCondition(x.Status.Conditions, v1alpha1.ConditionReconciling) != nil {
			t.Errorf("status %+v", x.Status)
		}
	})
	t.Run("what failed is told, with the reason", func(t *testing.T) {
		w.t = t
		x := w.task("fails", shops, nil)
		one.reports(ofTask("fails"), ended(task.PhaseFailed, 3, "exited with status 3"))
		two.reports(ofTask("fails"), ended(task.PhaseSucceeded, 0, ""))
		w.expect(x, v1alpha1.ReasonSitesFailing, v1alpha1.TaskCounts{Matched: 2, Succeeded: 1, Failed: 1})
		failed := meta.FindStatusCondition(x.Status.Conditions, v1alpha1.ConditionFailed)
		if failed == nil || !strings.Contains(failed.Message, "shop-1: exited with status 3") ||
			!meta.IsStatusConditionTrue(x.Status.Conditions, v1alpha1.ConditionStalled) || len(x.Status.Failing) != 1 {
			t.Errorf("status %+v", x.Status)
		}
	})
	t.Run("one site at once", func(t *testing.T) {
		w.t = t
		x := w.task("slowly", shops, func(x *v1alpha1.Task) { x.Spec.Parallelism = 1 })
		first, second := one, two
		w.eventually("one is told", func() string {
			if two.told(ofTask("slowly")) != nil {
				first, second = two, one
			}
			return unless(first.told(ofTask("slowly")) != nil, "none is")
		})
		first.reports(ofTask("slowly"), task.Run{Phase: task.PhaseRunning, Attempt: 1})
		w.expect(x, v1alpha1.ReasonProgressing, v1alpha1.TaskCounts{Matched: 2, Running: 1, Waiting: 1})
		if second.told(ofTask("slowly")) != nil {
			t.Error("the second was told while the first was at it")
		}
		first.reports(ofTask("slowly"), ended(task.PhaseFailed, 1, "x"))
		second.reports(ofTask("slowly"), ended(task.PhaseSucceeded, 0, ""))
		w.expect(x, v1alpha1.ReasonSitesFailing, v1alpha1.TaskCounts{Matched: 2, Succeeded: 1, Failed: 1})
	})
	t.Run("cancelled", func(t *testing.T) {
		w.t = t
		x := w.task("cancelled", shops, func(x *v1alpha1.Task) { x.Spec.Parallelism = 1 })
		told := one
		w.eventually("one is told", func() string {
			if two.told(ofTask("cancelled")) != nil {
				told = two
			}
			return unless(told.told(ofTask("cancelled")) != nil, "none is")
		})
		before := x.DeepCopy()
		x.Spec.Cancel = true
		w.must(w.client.Patch(w.ctx, x, client.MergeFrom(before)))
		w.eventually("the site is told to end it", func() string { return unless(told.told(ofTask("cancelled")).Cancel, "it is not") })
		told.reports(ofTask("cancelled"), ended(task.PhaseCancelled, -1, "the task was cancelled"))
		w.expect(x, v1alpha1.ReasonCancelled, v1alpha1.TaskCounts{Matched: 2, Failed: 2})
	})
	t.Run("too late", func(t *testing.T) {
		w.t = t
		gate.Alive(true)
		x := w.task("late", map[string]string{"kind": "gate"}, func(x *v1alpha1.Task) {
			x.Spec.StartBy = &metav1.Time{Time: time.Now().Add(-time.Minute)}
		})
		w.expect(x, v1alpha1.ReasonSitesFailing, v1alpha1.TaskCounts{Matched: 1, Missed: 1})
		gate.Alive(false)
	})
	t.Run("nowhere", func(t *testing.T) {
		w.t = t
		x := w.task("nowhere", map[string]string{"kind": "kiosk"}, nil)
		w.expect(x, v1alpha1.ReasonNoSites, v1alpha1.TaskCounts{})
		x = w.task("unpushed", nil, func(x *v1alpha1.Task) { x.Spec.Work.Source.Bundle = "later:1" })
		w.expect(x, v1alpha1.ReasonBundleNotFound, v1alpha1.TaskCounts{})
		w.shelf.put("default/later", "1")
		one.awaitTold(ofTask("unpushed"))
		w.must(w.client.Delete(w.ctx, x))
		w.eventually("a task that is deleted leaves", func() string { return unless(one.told(ofTask("unpushed")) == nil, "it does not") })
	})
	t.Run("its time is over", func(t *testing.T) {
		w.t = t
		x := w.task("short", shops, func(x *v1alpha1.Task) { x.Spec.TTLAfterFinished = &metav1.Duration{Duration: time.Second} })
		for _, m := range []*member{one, two} {
			m.reports(ofTask("short"), ended(task.PhaseSucceeded, 0, ""))
		}
		w.eventually("it is deleted, and leaves", func() string {
			err := w.client.Get(w.ctx, client.ObjectKeyFromObject(x), x)
			return unless(apierrors.IsNotFound(err) && one.told(ofTask("short")) == nil, "it is still there")
		})
	})
	t.Run("of an app, at its sites", func(t *testing.T) { w.t = t; tasksOfApps(t, w, one, two, gate) })
	t.Run("it does not change", func(t *testing.T) { w.t = t; immutable(t, w) })
	t.Run("a site that may no longer be used is told no more", func(t *testing.T) {
		w.t = t
		x := w.task("grants", shops, nil)
		one.reports(ofTask("grants"), task.Run{Phase: task.PhaseRunning, Attempt: 1})
		var grant v1alpha1.SiteGrant
		w.must(w.client.Get(w.ctx, client.ObjectKey{Name: "all"}, &grant))
		before := grant.DeepCopy()
		grant.Spec.Sites = metav1.LabelSelector{MatchLabels: map[string]string{"kind": "gate"}}
		w.must(w.client.Patch(w.ctx, &grant, client.MergeFrom(before)))
		w.expect(x, v1alpha1.ReasonNotGranted, v1alpha1.TaskCounts{})
		w.eventually("it leaves", func() string { return unless(one.told(ofTask("grants")) == nil, "it does not") })
		again := grant.DeepCopy()
		grant.Spec.Sites = metav1.LabelSelector{}
		w.must(w.client.Patch(w.ctx, &grant, client.MergeFrom(again)))
		one.awaitTold(ofTask("grants"))
		w.must(w.client.Delete(w.ctx, x))
	})
	t.Run("schedules", func(t *testing.T) { w.t = t; schedules(t, w, one, two, gate) })
	t.Run("a hub that starts again finds all of it", func(t *testing.T) { w.t = t; restarted(t, w, one) })
}

func tasksOfApps(t *testing.T, w *world, one, two, gate *member) {
	x := w.task("in-app", nil, func(x *v1alpha1.Task) {
		x.Spec.Work = v1alpha1.TaskWork{App: "shop", Env: map[string]v1alpha1.EnvValue{"A": "b"}}
	})
	w.expect(x, v1alpha1.ReasonAppNotFound, v1alpha1.TaskCounts{})
	w.shelf.put("default/shop", "1")
	w.must(w.client.Create(w.ctx, &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shop"}, Spec: v1alpha1.AppSpec{
		Source: v1alpha1.AppSource{Bundle: "shop:1"}, Placement: v1alpha1.Placement{Sites: metav1.LabelSelector{MatchLabels: map[string]string{"kind": "shop"}}},
	}}))
	for _, m := range []*member{one, two} {
		if e := m.awaitTold(ofTask("in-app")); e.App != "shop" || e.Bundle != nil || e.Env["A"] != "b" {
			t.Errorf("site %s is told %+v", m.Name, e)
		}
		m.reports(ofTask("in-app"), ended(task.PhaseSucceeded, 0, ""))
	}
	w.expect(x, v1alpha1.ReasonComplete, v1alpha1.TaskCounts{Matched: 2, Succeeded: 2})
	if gate.told(ofTask("in-app")) != nil {
		t.Error("a site that does not have the app is told")
	}
}

// immutable changes what must not change.
func immutable(t *testing.T, w *world) {
	x := w.task("fixed", map[string]string{"kind": "kiosk"}, func(x *v1alpha1.Task) {
		x.Spec.Parallelism, x.Spec.Work.Values = 1, &runtime.RawExtension{Raw: []byte(`{"a":1}`)}
	})
	for name, edit := range map[string]func(*v1alpha1.TaskSpec){
		"work":        func(s *v1alpha1.TaskSpec) { s.Work.Args = []v1alpha1.TaskArg{"x"} },
		"placement":   func(s *v1alpha1.TaskSpec) { s.Placement.Sites = metav1.LabelSelector{} },
		"parallelism": func(s *v1alpha1.TaskSpec) { s.Parallelism = 2 },
		"startBy":     func(s *v1alpha1.TaskSpec) { s.StartBy = &metav1.Time{Time: time.Now()} },
		"ttl":         func(s *v1alpha1.TaskSpec) { s.TTLAfterFinished = &metav1.Duration{Duration: time.Hour} },
		"values":      func(s *v1alpha1.TaskSpec) { s.Work.Values = &runtime.RawExtension{Raw: []byte(`{"a":2}`)} },
	} {
		if err := change(w, edit); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "a task does not change") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.must(change(w, func(s *v1alpha1.TaskSpec) { s.Cancel = true }))
	w.expect(x, v1alpha1.ReasonCancelled, v1alpha1.TaskCounts{})
	if err := change(w, func(s *v1alpha1.TaskSpec) { s.Cancel = false }); !apierrors.IsInvalid(err) {
		t.Errorf("a cancelled task is begun again: %v", err)
	}
}

// change edits the task "fixed" as a program does that writes all of an object.
func change(w *world, edit func(*v1alpha1.TaskSpec)) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var x v1alpha1.Task
		w.must(w.client.Get(w.ctx, client.ObjectKey{Namespace: "default", Name: "fixed"}, &x))
		edit(&x.Spec)
		return w.client.Update(w.ctx, &x)
	})
}

func schedules(t *testing.T, w *world, one, two, gate *member) {
	c := &v1alpha1.CronTask{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "backup"}, Spec: v1alpha1.CronTaskSpec{
		Schedule: "0 3 * * *", Missed: v1alpha1.MissedRunOnce, StartingDeadline: &metav1.Duration{Duration: time.Hour}, History: 2,
		Work: work(), Placement: v1alpha1.Placement{Sites: metav1.LabelSelector{MatchLabels: map[string]string{"kind": "shop"}}},
	}}
	w.must(w.client.Create(w.ctx, c))
	expect := func(reason string, counts v1alpha1.CronTaskCounts) {
		t.Helper()
		w.eventually("status of the schedule", func() string {
			w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(c), c))
			ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady)
			return unless(ready != nil && ready.Reason == reason && c.Status.Sites == counts && c.Status.ObservedGeneration == c.Generation, "want "+reason+", is "+ready.String())
		})
	}
	want := task.Schedule{ScheduleRules: app.ScheduleRules{
		Cron: "0 3 * * *", Concurrency: app.ConcurrencyForbid, Missed: app.MissedRunOnce, StartingDeadlineSeconds: 3600}, History: 2}
	for _, m := range []*member{one, two} {
		if e := m.awaitTold(ofCron("backup")); e.Schedule == nil || *e.Schedule != want {
			t.Errorf("site %s is told %+v", m.Name, e.Schedule)
		}
	}
	expect(v1alpha1.ReasonProgressing, v1alpha1.CronTaskCounts{Matched: 2, Waiting: 2})
	for _, m := range []*member{one, two} {
		m.reports(ofCron("backup"), ended(task.PhaseSucceeded, 0, ""))
	}
	expect(v1alpha1.ReasonScheduled, v1alpha1.CronTaskCounts{Matched: 2, Scheduled: 2})
	before := c.DeepCopy()
	c.Spec.Suspend = true
	w.must(w.client.Patch(w.ctx, c, client.MergeFrom(before)))
	w.eventually("a change reaches the sites", func() string { return unless(two.told(ofCron("backup")).Schedule.Suspend, "it does not") })
	expect(v1alpha1.ReasonProgressing, v1alpha1.CronTaskCounts{Matched: 2, Waiting: 2})
	one.reports(ofCron("backup"), ended(task.PhaseFailed, 1, "no room"))
	two.reports(ofCron("backup"), task.Run{Phase: task.PhaseRunning, Attempt: 1})
	expect(v1alpha1.ReasonSitesFailing, v1alpha1.CronTaskCounts{Matched: 2, Failed: 1, Scheduled: 1, Running: 1})
	if len(c.Status.Failing) != 1 || !strings.Contains(c.Status.Failing[0].Message, "no room") {
		t.Errorf("failing %+v", c.Status.Failing)
	}
	for name, schedule := range map[string]string{"words": "at noon", "never": "0 0 31 2 *", "a zone": "CRON_TZ=UTC 0 0 * * *"} {
		bad := &v1alpha1.CronTask{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bad"}, Spec: *c.Spec.DeepCopy()}
		bad.Spec.Schedule = schedule
		if err := w.client.Create(w.ctx, bad); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.schedule") {
			t.Errorf("a schedule of %s is taken: %v", name, err)
		}
	}
}

// restarted stops the hub, deletes a task meanwhile, and starts another.
func restarted(t *testing.T, w *world, one *member) {
	stays := w.task("stays", map[string]string{"kind": "shop"}, nil)
	goes := w.task("goes", map[string]string{"kind": "shop"}, nil)
	one.reports(ofTask("stays"), task.Run{Phase: task.PhaseRunning, Attempt: 1})
	before := one.awaitTold(ofTask("stays"))
	one.awaitTold(ofTask("goes"))
	w.stop()
	w.must(w.client.Delete(w.ctx, goes))
	w.start()
	w.eventually("what was deleted meanwhile leaves", func() string { return unless(one.told(ofTask("goes")) == nil, "it does not") })
	after := one.awaitTold(ofTask("stays"))
	was, err := before.Digest()
	w.must(err)
	is, err := after.Digest()
	w.must(err)
	if was != is {
		t.Errorf("it is told otherwise: %+v, before %+v", after, before)
	}
	one.Alive(false)
	w.eventually("what runs is known again", func() string {
		w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(stays), stays))
		return unless(stays.Status.Sites.Running == 1, "it is not")
	})
	if slices.ContainsFunc(stays.Status.Conditions, func(c metav1.Condition) bool { return c.Type == v1alpha1.ConditionFailed }) {
		t.Errorf("status %+v", stays.Status)
	}
}
