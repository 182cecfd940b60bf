package taskhub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// reconcileCronTask brings one CronTask to its sites, which keep it by themselves.
func (r *reconciler) reconcileCronTask(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ref := task.Ref{Kind: task.KindCronTask, Namespace: req.Namespace, Name: req.Name}
	var c v1alpha1.CronTask
	err := r.host.Client.Get(ctx, req.NamespacedName, &c)
	if apierrors.IsNotFound(err) || err == nil && !c.DeletionTimestamp.IsZero() {
		r.forget(ref)
		return ctrl.Result{}, r.book.withdraw(ctx, ref)
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read %s: %w", ref, err)
	}
	p := &pass{
		ref: ref, uid: string(c.UID), generation: c.Generation, work: &c.Spec.Work, placement: &c.Spec.Placement,
		complete: func(e *task.Entry) { e.Schedule = scheduleOf(&c.Spec) },
	}
	var stop *problem
	for _, step := range []func(context.Context, *pass) error{
		func(context.Context, *pass) error { return checkSchedule(&c.Spec) }, r.resolve, r.place, r.leave, r.tellSchedule,
	} {
		if err = step(ctx, p); err != nil {
			break
		}
	}
	if err != nil && !errors.As(err, &stop) {
		return ctrl.Result{}, err
	}
	again, err := r.writeCronStatus(ctx, p, &c, stop)
	if stop != nil && stop.again > 0 {
		again = sooner(again, stop.again)
	}
	return ctrl.Result{RequeueAfter: again}, err
}

// scheduleOf is a spec's schedule in the core's words.
func scheduleOf(s *v1alpha1.CronTaskSpec) *task.Schedule {
	out := &task.Schedule{
		ScheduleRules: app.ScheduleRules{Cron: s.Schedule, Concurrency: app.Concurrency(s.Concurrency), Missed: app.Missed(s.Missed)},
		Suspend:       s.Suspend, History: int(s.History),
	}
	if s.StartingDeadline != nil {
		out.StartingDeadlineSeconds = int(s.StartingDeadline.Seconds())
	}
	return out
}

func checkSchedule(s *v1alpha1.CronTaskSpec) error {
	if err := scheduleOf(s).ScheduleRules.Validate(); err != nil {
		return &problem{v1alpha1.ReasonScheduleInvalid, "schedule: " + err.Error(), 0}
	}
	return nil
}

// tellSchedule tells every site, those that are away too: what they do not hear they do not keep.
func (r *reconciler) tellSchedule(ctx context.Context, p *pass) error {
	blocked := map[fleet.SiteName]string{}
	for _, name := range slices.Sorted(maps.Keys(p.sites)) {
		if err := r.tellOne(ctx, p, name, blocked); err != nil {
			return err
		}
		_, told := r.book.told(name, p.ref)
		p.states = append(p.states, task.SiteState{
			Site: name, Link: r.host.Fleet.Link(name), Told: told, Blocked: blocked[name], State: stateOf(r.host.Fleet, name, p.ref, p.uid),
		})
	}
	return nil
}

// cronFault says why a site does not do well; empty when it does.
func cronFault(s task.SiteState) string {
	switch run := lastDone(s); {
	case s.Blocked != "":
		return s.Blocked
	case s.State != nil && s.State.Message != "" && s.State.Next == 0 && s.State.Message != suspended:
		return s.State.Message
	case run.Phase == task.PhaseFailed || run.Phase == task.PhaseMissed:
		return fmt.Sprintf("the run of %s failed: %s", time.Unix(run.Time, 0).UTC().Format(time.RFC3339), run.Message)
	}
	return ""
}

// suspended is what a site says of a schedule that does not run since it shall not.
const suspended = "suspended"

// lastDone is the newest run that is over.
func lastDone(s task.SiteState) task.Run {
	if s.State != nil {
		for _, run := range s.State.Runs {
			if run.Phase.Final() {
				return run
			}
		}
	}
	return task.Run{}
}

// writeCronStatus writes where a schedule stands, and returns when to come back.
func (r *reconciler) writeCronStatus(ctx context.Context, p *pass, c *v1alpha1.CronTask, stop *problem) (time.Duration, error) {
	before := c.DeepCopy()
	c.Status.ObservedGeneration = c.Generation
	if bundle := releaseBundle(p.bundle); bundle != nil {
		c.Status.Bundle = bundle
	}
	var again time.Duration
	if p.states != nil || p.sites != nil && len(p.sites) == 0 {
		again = r.countCron(p, c)
	}
	setCronConditions(p, c, stop)
	if equality.Semantic.DeepEqual(before.Status, c.Status) {
		return again, nil
	}
	if early := r.early(p.ref, c.Generation); early > 0 {
		return early, nil
	}
	if err := r.host.Client.Status().Patch(ctx, c, client.MergeFrom(before)); err != nil {
		return 0, client.IgnoreNotFound(fmt.Errorf("write status of %s: %w", p.ref, err))
	}
	return again, nil
}

func (r *reconciler) countCron(p *pass, c *v1alpha1.CronTask) time.Duration {
	counts := v1alpha1.CronTaskCounts{Matched: int32(len(p.sites))}
	var failing []v1alpha1.FailingSite
	var again time.Duration
	for _, s := range p.states {
		fault := cronFault(s)
		e, _ := r.book.told(s.Site, p.ref)
		current := false
		if d, err := e.Digest(); err == nil && s.State != nil {
			current = s.State.Digest == string(d)
		}
		switch {
		case fault != "":
			counts.Failed++
			if len(failing) < maxFailing {
				failing = append(failing, v1alpha1.FailingSite{Site: string(s.Site), Message: fault})
			}
		case s.Link == fleet.LinkAway:
			counts.Away++
		case current:
			counts.Scheduled++
		default:
			counts.Waiting++
		}
		if s.Run().Phase == task.PhaseRunning && s.Link == fleet.LinkConnected {
			counts.Running++
		}
		if s.Link == fleet.LinkUnknown {
			again = unknownAgain
		}
	}
	c.Status.Sites, c.Status.Failing = counts, failing
	return again
}

func setCronConditions(p *pass, c *v1alpha1.CronTask, stop *problem) {
	n := c.Status.Sites
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, ObservedGeneration: c.Generation, Status: metav1.ConditionFalse}
	reconciling, stalled := "", ""
	switch {
	case stop != nil:
		ready.Reason, ready.Message, stalled = stop.reason, stop.message, stop.reason
	case n.Matched == 0:
		ready.Reason, ready.Message = nowhere(p)
		stalled = ready.Reason
	case n.Failed > 0:
		ready.Reason, stalled = v1alpha1.ReasonSitesFailing, v1alpha1.ReasonSitesFailing
		ready.Message = fmt.Sprintf("%d of %d sites do not do well", n.Failed, n.Matched)
		if len(c.Status.Failing) > 0 {
			ready.Message += fmt.Sprintf("; first %s: %s", c.Status.Failing[0].Site, c.Status.Failing[0].Message)
		}
	case n.Waiting > 0:
		ready.Reason, reconciling = v1alpha1.ReasonProgressing, v1alpha1.ReasonProgressing
		ready.Message = fmt.Sprintf("%d of %d sites keep the schedule, %d on their way, %d away", n.Scheduled, n.Matched, n.Waiting, n.Away)
	case n.Scheduled == 0:
		ready.Status, ready.Reason, reconciling = metav1.ConditionUnknown, v1alpha1.ReasonSitesAway, v1alpha1.ReasonSitesAway
		ready.Message = fmt.Sprintf("none of the %d sites is connected: they keep what they were told last", n.Matched)
	default:
		ready.Status, ready.Reason = metav1.ConditionTrue, v1alpha1.ReasonScheduled
		ready.Message = fmt.Sprintf("%d of %d sites keep the schedule, %d away", n.Scheduled, n.Matched, n.Away)
	}
	conditions := &c.Status.Conditions
	meta.SetStatusCondition(conditions, ready)
	present(conditions, v1alpha1.ConditionReconciling, reconciling, ready)
	present(conditions, v1alpha1.ConditionStalled, stalled, ready)
}
