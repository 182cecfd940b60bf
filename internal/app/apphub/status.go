package apphub

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

// statusEvery is how long two writes of one App's status are apart at least.
const statusEvery = time.Second

// maxFailing is how many failing sites a status names.
const maxFailing = 10

// writeMark is when an App's status was last written by this hub, and for which generation.
type writeMark struct {
	at         time.Time
	generation int64
}

// writeStatus writes where the app stands, at most once a second, and returns when to come back; zero
// when only a change matters.
func (r *reconciler) writeStatus(ctx context.Context, p *pass, stop *problem) (time.Duration, error) {
	before := p.app.DeepCopy()
	p.app.Status.ObservedGeneration = p.app.Generation
	unknown := r.count(p)
	setConditions(p, stop)
	if unknown > 0 && stop == nil && onlyHubChanged(before.Status, p.app.Status) {
		return unknown, nil
	}
	if equality.Semantic.DeepEqual(before.Status, p.app.Status) {
		return unknown, nil
	}
	r.mu.Lock()
	mark, now := r.written[p.key], r.host.Now()
	early := mark.generation == p.app.Generation && now.Sub(mark.at) < statusEvery
	if !early {
		r.written[p.key] = writeMark{at: now, generation: p.app.Generation}
	}
	r.mu.Unlock()
	if early {
		return statusEvery - now.Sub(mark.at), nil
	}
	if err := r.host.Client.Status().Patch(ctx, p.app, client.MergeFrom(before)); err != nil {
		return 0, client.IgnoreNotFound(fmt.Errorf("write status of app %s: %w", p.key, err))
	}
	return unknown, nil
}

// onlyHubChanged reports whether two statuses differ at most in what sites say. A hub that just started does
// not know yet who is there; what an earlier one said of the same release at as many sites stands until it
// does, since a restart of the hub is no news of the app.
func onlyHubChanged(before, after v1alpha1.AppStatus) bool {
	return before.ObservedGeneration == after.ObservedGeneration && before.Release == after.Release &&
		before.Sites.Placed == after.Sites.Placed && before.Sites.Updated == after.Sites.Updated
}

// count fills the counts and names the failing sites. It returns when to look again because the state of
// some site is not known yet.
func (r *reconciler) count(p *pass) time.Duration {
	if p.release != nil {
		p.app.Status.Release, p.app.Status.Version = p.release.Name, p.release.Spec.Bundle.Version
	}
	if p.states == nil {
		return 0
	}
	var c v1alpha1.SiteCounts
	var failing []v1alpha1.FailingSite
	var again time.Duration
	sort.Slice(p.states, func(i, j int) bool { return p.states[i].Site < p.states[j].Site })
	for _, s := range p.states {
		c.Placed++
		if s.Told == s.Target && s.Target != "" {
			c.Updated++
		}
		switch s.Standing() {
		case app.StandingHealthy:
			c.Healthy++
		case app.StandingWaiting:
			c.Waiting++
		case app.StandingFailed:
			c.Failed++
			if len(failing) < maxFailing {
				failing = append(failing, v1alpha1.FailingSite{Site: string(s.Site), Message: s.Failure()})
			}
		case app.StandingProgressing:
			c.Progressing++
		}
		if s.Link == fleet.LinkUnknown {
			again = unknownAgain
		}
	}
	p.app.Status.Sites, p.app.Status.Failing = c, failing
	return again
}

// unknownAgain is when to look once more after a hub that just started knew too little of some site.
const unknownAgain = 5 * time.Second

// setConditions says what the counts and the problem mean, in the words that generic tools read.
func setConditions(p *pass, stop *problem) {
	c := p.app.Status.Sites
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, ObservedGeneration: p.app.Generation, Status: metav1.ConditionFalse}
	reconciling, stalled := "", ""
	switch {
	case stop != nil:
		ready.Reason, ready.Message = stop.reason, stop.message
		stalled = stop.reason
	case c.Placed == 0 && p.refused > 0:
		ready.Reason, stalled = v1alpha1.ReasonNotGranted, v1alpha1.ReasonNotGranted
		ready.Message = fmt.Sprintf("no SiteGrant lets namespace %s use runtime %s on any of the %d sites that placement.sites selects",
			p.app.Namespace, p.release.Spec.Runtime, p.refused)
	case c.Placed == 0:
		ready.Reason, stalled = v1alpha1.ReasonNoSites, v1alpha1.ReasonNoSites
		ready.Message = "placement.sites selects no site: see `kubectl get sites --show-labels`"
	case c.Failed > 0:
		ready.Reason = v1alpha1.ReasonSitesFailing
		ready.Message = fmt.Sprintf("%d of %d sites cannot run %s; first %s: %s", c.Failed, c.Placed, name(p), p.app.Status.Failing[0].Site, p.app.Status.Failing[0].Message)
		if c.Progressing == 0 {
			stalled = v1alpha1.ReasonSitesFailing
		} else {
			reconciling = v1alpha1.ReasonProgressing
		}
	case c.Progressing > 0:
		ready.Reason, reconciling = v1alpha1.ReasonProgressing, v1alpha1.ReasonProgressing
		ready.Message = fmt.Sprintf("%d of %d sites serve %s, %d on their way%s", c.Healthy, c.Placed, name(p), c.Progressing, waiting(c))
	case c.Healthy == 0:
		ready.Status, ready.Reason, reconciling = metav1.ConditionUnknown, v1alpha1.ReasonSitesAway, v1alpha1.ReasonSitesAway
		ready.Message = fmt.Sprintf("none of the %d sites is connected: %s runs there once they take it", c.Placed, name(p))
	default:
		ready.Status, ready.Reason = metav1.ConditionTrue, v1alpha1.ReasonReady
		ready.Message = fmt.Sprintf("%d of %d sites serve %s%s", c.Healthy, c.Placed, name(p), waiting(c))
		if p.refused > 0 {
			ready.Message += fmt.Sprintf("; %d more are selected but not granted", p.refused)
		}
	}
	conditions := &p.app.Status.Conditions
	meta.SetStatusCondition(conditions, ready)
	present(conditions, v1alpha1.ConditionReconciling, reconciling, ready)
	present(conditions, v1alpha1.ConditionStalled, stalled, ready)
	setSecretMissing(conditions, p)
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

func name(p *pass) string {
	if v := p.release.Spec.Bundle.Version; v != "" {
		return v
	}
	return p.release.Name
}

func waiting(c v1alpha1.SiteCounts) string {
	if c.Waiting == 0 {
		return ""
	}
	return fmt.Sprintf(", %d away", c.Waiting)
}

// siteApps returns what a site said of its apps last.
func siteApps(f *hub.Fleet, site fleet.SiteName) []app.AppReport {
	report, ok := f.Report(site)
	if !ok {
		return nil
	}
	var r app.Report
	if err := json.Unmarshal(report.Modules[app.SectionName], &r); err != nil {
		return nil
	}
	return r.Apps
}
