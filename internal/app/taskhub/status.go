package taskhub

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/task"
)

// statusEvery is how long two writes of one object's status are apart at least.
const statusEvery = time.Second

// writeTaskStatus writes where a Task stands, and returns when to come back; zero when only a change matters.
func (r *reconciler) writeTaskStatus(ctx context.Context, p *pass, t *v1alpha1.Task, stop *problem) (time.Duration, error) {
	before := t.DeepCopy()
	t.Status.ObservedGeneration = t.Generation
	if t.Status.Bundle == nil {
		t.Status.Bundle = releaseBundle(p.bundle)
	}
	again := r.countTask(p, t)
	if r.finished(p, t, stop) {
		t.Status.FinishedAt, again, stop = r.finishedAt(), 0, nil
	}
	setTaskConditions(p, t, stop)
	if equality.Semantic.DeepEqual(before.Status, t.Status) {
		return again, nil
	}
	if early := r.early(p.ref, t.Generation); early > 0 {
		return early, nil
	}
	if err := r.host.Client.Status().Patch(ctx, t, client.MergeFrom(before)); err != nil {
		return 0, client.IgnoreNotFound(fmt.Errorf("write status of %s: %w", p.ref, err))
	}
	if t.Status.FinishedAt != nil {
		r.forget(p.ref)
	}
	return again, nil
}

// early returns after how long the status of an object may be written, and marks it as written now when that is
// zero.
func (r *reconciler) early(ref task.Ref, generation int64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	mark, now := r.written[ref], r.host.Now()
	if mark.generation == generation && now.Sub(mark.at) < statusEvery {
		return statusEvery - now.Sub(mark.at)
	}
	r.written[ref] = writeMark{at: now, generation: generation}
	return 0
}

// setTaskConditions says what the counts and the problem mean, in the words that generic tools read.
func setTaskConditions(p *pass, t *v1alpha1.Task, stop *problem) {
	c := t.Status.Sites
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, ObservedGeneration: t.Generation, Status: metav1.ConditionFalse}
	reconciling, stalled := "", ""
	conditions := &t.Status.Conditions
	meta.RemoveStatusCondition(conditions, v1alpha1.ConditionComplete)
	meta.RemoveStatusCondition(conditions, v1alpha1.ConditionFailed)
	switch {
	case stop != nil:
		ready.Reason, ready.Message, stalled = stop.reason, stop.message, stop.reason
	case c.Matched == 0 && t.Status.FinishedAt == nil:
		ready.Reason, ready.Message = nowhere(p)
		stalled = ready.Reason
	case t.Status.FinishedAt == nil && c.Waiting+c.Running == 0:
		ready.Status, ready.Reason, reconciling = metav1.ConditionUnknown, v1alpha1.ReasonSitesAway, v1alpha1.ReasonSitesAway
		ready.Message = counted(c)
	case t.Status.FinishedAt == nil:
		ready.Reason, reconciling = v1alpha1.ReasonProgressing, v1alpha1.ReasonProgressing
		ready.Message = counted(c)
	case c.Failed+c.Missed > 0 || t.Spec.Cancel && c.Matched == 0:
		ready.Reason = v1alpha1.ReasonSitesFailing
		if t.Spec.Cancel {
			ready.Reason = v1alpha1.ReasonCancelled
		}
		stalled, ready.Message = ready.Reason, counted(c)
		if len(t.Status.Failing) > 0 {
			ready.Message += fmt.Sprintf("; first %s: %s", t.Status.Failing[0].Site, t.Status.Failing[0].Message)
		}
		over := ready
		over.Type, over.Status = v1alpha1.ConditionFailed, metav1.ConditionTrue
		meta.SetStatusCondition(conditions, over)
	default:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionTrue, v1alpha1.ReasonComplete, counted(c)
		over := ready
		over.Type = v1alpha1.ConditionComplete
		meta.SetStatusCondition(conditions, over)
	}
	meta.SetStatusCondition(conditions, ready)
	present(conditions, v1alpha1.ConditionReconciling, reconciling, ready)
	present(conditions, v1alpha1.ConditionStalled, stalled, ready)
}

// nowhere says why there is no site.
func nowhere(p *pass) (reason, message string) {
	if p.refused > 0 {
		return v1alpha1.ReasonNotGranted, fmt.Sprintf("no SiteGrant lets namespace %s use runtime %s on any of the %d sites that placement.sites selects",
			p.ref.Namespace, p.runtime, p.refused)
	}
	message = "placement.sites selects no site: see `kubectl get sites --show-labels`"
	if p.work.App != "" {
		message = fmt.Sprintf("placement.sites selects no site at which App %s is: see `kubectl get sites --show-labels`", p.work.App)
	}
	return v1alpha1.ReasonNoSites, message
}

func counted(c v1alpha1.TaskCounts) string {
	text := fmt.Sprintf("%d of %d sites succeeded", c.Succeeded, c.Matched)
	for _, part := range []struct {
		n    int32
		what string
	}{{c.Running, "running"}, {c.Waiting, "waiting"}, {c.Away, "away"}, {c.Failed, "failed"}, {c.Missed, "missed it"}} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return text
}

// present keeps a condition only while it has a reason.
func present(conditions *[]metav1.Condition, kind, reason string, ready metav1.Condition) {
	if reason == "" {
		meta.RemoveStatusCondition(conditions, kind)
		return
	}
	meta.SetStatusCondition(conditions, metav1.Condition{
		Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: ready.Message, ObservedGeneration: ready.ObservedGeneration,
	})
}
