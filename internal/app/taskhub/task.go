package taskhub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
)

// reconcileTask brings one Task to its sites, and to its end.
func (r *reconciler) reconcileTask(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ref := task.Ref{Kind: task.KindTask, Namespace: req.Namespace, Name: req.Name}
	var t v1alpha1.Task
	err := r.host.Client.Get(ctx, req.NamespacedName, &t)
	if apierrors.IsNotFound(err) || err == nil && !t.DeletionTimestamp.IsZero() {
		r.forget(ref)
		return ctrl.Result{}, r.book.withdraw(ctx, ref)
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read %s: %w", ref, err)
	}
	if t.Status.FinishedAt != nil { // its results stand
		return r.expire(ctx, &t)
	}
	p := r.taskPass(ref, &t)
	var stop *problem
	for _, step := range []func(context.Context, *pass) error{r.resolve, r.place, r.leave, func(ctx context.Context, p *pass) error { return r.tell(ctx, p, &t) }} {
		if err = step(ctx, p); err != nil {
			break
		}
	}
	if err != nil && !errors.As(err, &stop) {
		return ctrl.Result{}, err
	}
	again, err := r.writeTaskStatus(ctx, p, &t, stop)
	if stop != nil && stop.again > 0 {
		again = sooner(again, stop.again)
	}
	return ctrl.Result{RequeueAfter: again}, err
}

func (r *reconciler) taskPass(ref task.Ref, t *v1alpha1.Task) *pass {
	return &pass{
		ref: ref, uid: string(t.UID), generation: t.Generation, work: &t.Spec.Work, placement: &t.Spec.Placement, pinned: t.Status.Bundle,
		complete: func(e *task.Entry) {
			e.Cancel = t.Spec.Cancel
			if t.Spec.StartBy != nil {
				e.StartBy = t.Spec.StartBy.Unix()
			}
		},
	}
}

// expire deletes a task whose time is over, or says when that will be.
func (r *reconciler) expire(ctx context.Context, t *v1alpha1.Task) (ctrl.Result, error) {
	if t.Spec.TTLAfterFinished == nil {
		return ctrl.Result{}, nil
	}
	left := t.Status.FinishedAt.Add(t.Spec.TTLAfterFinished.Duration).Sub(r.host.Now())
	if left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	err := r.host.Client.Delete(ctx, t, client.Preconditions{UID: &t.UID})
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// tell gathers where each site stands, and tells those whose turn it is.
func (r *reconciler) tell(ctx context.Context, p *pass, t *v1alpha1.Task) error {
	var startBy time.Time
	if t.Spec.StartBy != nil {
		startBy = t.Spec.StartBy.Time
	}
	blocked := map[fleet.SiteName]string{}
	for found := -1; found < len(blocked); { // what cannot be told to one site makes room for another
		found = len(blocked)
		p.states = p.states[:0]
		for _, name := range slices.Sorted(maps.Keys(p.sites)) {
			e, told := r.book.told(name, p.ref)
			p.states = append(p.states, task.SiteState{
				Site: name, Link: r.host.Fleet.Link(name), Told: told && e.UID == p.uid, Blocked: blocked[name],
				State: stateOf(r.host.Fleet, name, p.ref, p.uid), Cancel: t.Spec.Cancel, StartBy: startBy, Now: r.host.Now(),
			})
		}
		for _, name := range task.Next(p.states, int(t.Spec.Parallelism)) {
			if err := r.tellOne(ctx, p, name, blocked); err != nil {
				return err
			}
		}
	}
	for i := range p.states {
		s := &p.states[i]
		e, told := r.book.told(s.Site, p.ref)
		done := s.Run().Phase.Final()
		if s.Told = told && e.UID == p.uid; !s.Told || e.Cancel == t.Spec.Cancel && e.Done == done {
			continue
		}
		e.Cancel, e.Done = t.Spec.Cancel, e.Done || done
		if err := r.book.tell(ctx, appapi.Facts(p.sites[s.Site]), p.ref, &e); err != nil {
			return fmt.Errorf("%s: %w", p.ref, err)
		}
	}
	return nil
}

// tellOne tells one site, or notes why it cannot be told.
func (r *reconciler) tellOne(ctx context.Context, p *pass, name fleet.SiteName, blocked map[fleet.SiteName]string) error {
	facts := appapi.Facts(p.sites[name])
	e, err := p.entry(facts)
	if err != nil {
		blocked[name] = err.Error()
		return nil
	}
	err = r.book.tell(ctx, facts, p.ref, &e)
	if errors.Is(err, wire.ErrTooLarge) {
		blocked[name] = fmt.Sprintf("the site cannot be told of more tasks: delete some that are finished: %v", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.ref, err)
	}
	return nil
}

// stateOf returns what a site said last of a task; nil when nothing, or of an earlier object of that name.
func stateOf(f *hub.Fleet, site fleet.SiteName, ref task.Ref, uid string) *task.State {
	report, ok := f.Report(site)
	if !ok {
		return nil
	}
	var r task.Report
	if err := json.Unmarshal(report.Modules[task.SectionName], &r); err != nil {
		return nil
	}
	for i := range r.Tasks {
		if r.Tasks[i].Ref == ref && r.Tasks[i].UID == uid {
			return &r.Tasks[i]
		}
	}
	return nil
}

func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

func (r *reconciler) forget(ref task.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.written, ref)
}

// unknownAgain is when to look once more after a hub that just started knew too little of some site.
const unknownAgain = 5 * time.Second

// countTask fills the counts and names the failing sites. It returns when to look again.
func (r *reconciler) countTask(p *pass, t *v1alpha1.Task) time.Duration {
	if p.sites == nil {
		return 0
	}
	c := v1alpha1.TaskCounts{Matched: int32(len(p.sites))}
	var failing []v1alpha1.FailingSite
	var again time.Duration
	for _, s := range p.states {
		standing := s.Standing()
		switch standing {
		case task.StandingAway:
			c.Away++
		case task.Standing(task.PhaseRunning):
			c.Running++
		case task.Standing(task.PhaseSucceeded):
			c.Succeeded++
		case task.Standing(task.PhaseMissed):
			c.Missed++
		case task.Standing(task.PhaseFailed), task.Standing(task.PhaseCancelled):
			c.Failed++
		case task.StandingWaiting:
			c.Waiting++
		}
		if standing.Final() && standing != task.Standing(task.PhaseSucceeded) && len(failing) < maxFailing {
			failing = append(failing, v1alpha1.FailingSite{Site: string(s.Site), Message: reasonOf(s)})
		}
		if s.Link == fleet.LinkUnknown && !standing.Final() {
			again = unknownAgain
		}
	}
	t.Status.Sites, t.Status.Failing = c, failing
	if t.Spec.StartBy != nil && again == 0 {
		if left := t.Spec.StartBy.Sub(r.host.Now()) + 31*time.Second; left > 0 {
			again = left
		}
	}
	return again
}

// maxFailing is how many failing sites a status names.
const maxFailing = 10

// reasonOf says in words why a site did not succeed.
func reasonOf(s task.SiteState) string {
	run := s.Run()
	switch {
	case s.Blocked != "":
		return s.Blocked
	case run.Message != "":
		return run.Message
	}
	switch s.Standing() {
	case task.Standing(task.PhaseMissed):
		return "the site was away, or its turn did not come, until startBy"
	case task.Standing(task.PhaseCancelled):
		return "the task was cancelled"
	}
	return string(run.Phase)
}

// finished reports whether no site is awaited any more. A cancelled task that no site was told of is over too.
func (r *reconciler) finished(p *pass, t *v1alpha1.Task, stop *problem) bool {
	if t.Spec.Cancel && len(r.book.sitesOf(p.ref)) == 0 {
		return true
	}
	c := t.Status.Sites
	return stop == nil && c.Matched > 0 && c.Waiting+c.Away+c.Running == 0
}

// finishedAt is the hub's time in the form of a status.
func (r *reconciler) finishedAt() *metav1.Time {
	now := metav1.NewTime(r.host.Now().Truncate(time.Second))
	return &now
}
