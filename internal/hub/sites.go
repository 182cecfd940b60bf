package hub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub/outage"
	"github.com/skerry-dev/skerry/internal/wire"
)

// siteFinalizer keeps a deleted Site until its apps are gone from it and its credentials are revoked.
const siteFinalizer = "skerry.dev/site"

// wipeTimeout is how long a connected site may take to remove its apps before its object goes anyway.
const wipeTimeout = 2 * time.Minute

// siteReconciler writes the status of Sites from what the fleet says, and sees deleted ones off.
//
// It reads Sites, reports and links; it writes Site.status except members, and the finalizer.
type siteReconciler struct {
	host    *Host
	changes *Notifier
	// zones finds zones that fell silent as a whole; events is where that is told.
	zones  outage.Zones
	events events.EventRecorder
}

func setupSites(h *Host) error {
	r := &siteReconciler{host: h, changes: NewNotifier(), events: h.Manager.GetEventRecorder("skerry-hub")}
	h.Fleet.OnChange(r.changes.NotifySite)
	if err := h.Metrics.Register(newZonesCollector(&r.zones)); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	Validate(h, "zone", "sites", checkTimeZone)
	err := ctrl.NewControllerManagedBy(h.Manager).Named("site").
		For(&v1alpha1.Site{}).
		WatchesRawSource(r.changes.Source()).
		WithOptions(controller.Options{MaxConcurrentReconciles: StatusWriters}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up site controller: %w", err)
	}
	return nil
}

// checkTimeZone refuses a time zone that there is not: schedules would run at another hour than is meant.
func checkTimeZone(_ context.Context, _, site *v1alpha1.Site) ([]string, field.ErrorList) {
	path := field.NewPath("spec", "timeZone")
	if _, err := time.LoadLocation(site.Spec.TimeZone); err != nil || site.Spec.TimeZone == "Local" {
		return nil, field.ErrorList{field.Invalid(path, site.Spec.TimeZone, "no time zone of the IANA database; want a name such as Europe/Berlin")}
	}
	return nil, nil
}

// Reconcile implements reconcile.Reconciler.
func (r *siteReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var site v1alpha1.Site
	if err := r.host.Client.Get(ctx, req.NamespacedName, &site); err != nil {
		if apierrors.IsNotFound(err) {
			r.announce(r.zones.Forget(fleet.SiteName(req.Name)))
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !site.DeletionTimestamp.IsZero() {
		return r.seeOff(ctx, &site)
	}
	if controllerutil.AddFinalizer(&site, siteFinalizer) {
		err := r.host.Client.Update(ctx, &site)
		if apierrors.IsConflict(err) {
			return ctrl.Result{RequeueAfter: conflictAgain}, nil
		}
		return ctrl.Result{}, err
	}
	if report, ok := r.host.Fleet.Report(fleet.SiteName(site.Name)); ok {
		if err := r.host.Desired.BeginAgain(ctx, report.Site, report.HubEpoch, report.Generation); err != nil {
			return ctrl.Result{}, err
		}
	}
	before := site.DeepCopy()
	again := r.observe(&site)
	if equality.Semantic.DeepEqual(before.Status, site.Status) {
		return ctrl.Result{RequeueAfter: again}, nil
	}
	// Optimistic: members are written by enrolment, and a merge patch of the rest must not meet an older
	// list of them.
	err := r.host.Client.Status().Patch(ctx, &site, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: conflictAgain}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("write status of site %s: %w", site.Name, err)
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// StatusWriters is how many objects a controller that writes the status of Sites writes at one moment. Each write
// waits until it is on the API's disk, where many go together: thousands of sites that join at once would else wait
// for minutes.
const StatusWriters = 16

// conflictAgain is when to try again after somebody else wrote the object first: the cache has it by then.
const conflictAgain = 50 * time.Millisecond

// observe sets the status to what is known and returns when to look again; zero: when something changes.
func (r *siteReconciler) observe(site *v1alpha1.Site) time.Duration {
	name := fleet.SiteName(site.Name)
	site.Status.ObservedGeneration = site.Generation
	if report, ok := r.host.Fleet.Report(name); ok {
		hw := report.Hardware
		site.Status.Version, site.Status.Gateway = report.Version, report.Gateway
		site.Status.Hardware = v1alpha1.Hardware{
			Hostname: hw.Hostname, OS: hw.OS, Arch: hw.Arch, Kernel: hw.Kernel, CPUs: int32(hw.CPUs), MemoryBytes: hw.MemoryBytes,
		}
		showProblems(site, report)
	}
	cond := metav1.Condition{Type: v1alpha1.ConditionReady, ObservedGeneration: site.Generation}
	var again time.Duration
	switch link := r.host.Fleet.Link(name); {
	case len(site.Status.Members) == 0:
		r.present(site)
		cond.Status, cond.Reason = metav1.ConditionFalse, v1alpha1.ReasonNeverConnected
		cond.Message = "no machine has joined yet: run `skerry site token " + site.Name + "` and give the token to one"
	case allRevoked(site):
		r.present(site)
		cond.Status, cond.Reason = metav1.ConditionFalse, v1alpha1.ReasonRevoked
		cond.Message = "every member is revoked: run `skerry site token " + site.Name + "` to let a machine join"
	case link == fleet.LinkConnected:
		r.present(site)
		cond.Status, cond.Reason, cond.Message = metav1.ConditionTrue, v1alpha1.ReasonConnected, "the site is connected"
	case link == fleet.LinkUnknown:
		again = awayAfter
		// This hub started moments ago: what was known before it stands.
		if meta.FindStatusCondition(site.Status.Conditions, v1alpha1.ConditionReady) != nil {
			return again
		}
		cond.Status, cond.Reason, cond.Message = metav1.ConditionUnknown, v1alpha1.ReasonProgressing, "nothing was heard of the site yet"
	default:
		again = r.judge(site)
		cond.Status, cond.Reason = metav1.ConditionFalse, v1alpha1.ReasonAway
		cond.Message = awayMessage(site.Status.Away)
	}
	meta.SetStatusCondition(&site.Status.Conditions, cond)
	return again
}

func allRevoked(site *v1alpha1.Site) bool {
	for _, m := range site.Status.Members {
		if !Revoked(site, m.ID) {
			return false
		}
	}
	return true
}

// Revoked reports whether a member of site may not connect any more.
func Revoked(site *v1alpha1.Site, member string) bool {
	for _, id := range site.Spec.RevokedMembers {
		if id == member {
			return true
		}
	}
	return false
}

// seeOff removes everything of a deleted site, asking the site itself first when it is there.
func (r *siteReconciler) seeOff(ctx context.Context, site *v1alpha1.Site) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(site, siteFinalizer) {
		return ctrl.Result{}, nil
	}
	name := fleet.SiteName(site.Name)
	if err := r.host.Desired.Wipe(ctx, name); err != nil {
		return ctrl.Result{}, err
	}
	if wait := r.wipeWait(site, name); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	for _, gone := range r.host.gone {
		if err := gone(ctx, site); err != nil {
			return ctrl.Result{}, fmt.Errorf("see off site %s: %w", site.Name, err)
		}
	}
	err := errors.Join(r.host.Desired.Forget(ctx, name), r.host.Fleet.Forget(ctx, name))
	if err != nil {
		return ctrl.Result{}, err
	}
	controllerutil.RemoveFinalizer(site, siteFinalizer)
	if err := r.host.Client.Update(ctx, site); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	r.host.Log.Info("site is gone", "site", site.Name)
	return ctrl.Result{}, nil
}

// wipeWait returns how long to wait at most for the site to say that it removed everything; zero when it
// did, or cannot be asked.
func (r *siteReconciler) wipeWait(site *v1alpha1.Site, name fleet.SiteName) time.Duration {
	report, reported := r.host.Fleet.Report(name)
	if !reported || report.Wiped {
		return 0
	}
	left := wipeTimeout - r.host.Now().Sub(site.DeletionTimestamp.Time)
	switch r.host.Fleet.Link(name) {
	case fleet.LinkAway:
		return 0
	case fleet.LinkUnknown:
		return min(max(left, 0), wire.AliveSeconds*time.Second)
	}
	return max(left, 0)
}

// maxProblems bounds the text of a site's problems in its status, in bytes.
const maxProblems = 1024

// showProblems says in the site's status what its agent reports to be wrong with itself or its machine, such
// as a disk that is full. The condition goes when the agent says that all is well.
func showProblems(site *v1alpha1.Site, report wire.Report) {
	if len(report.Problems) == 0 {
		meta.RemoveStatusCondition(&site.Status.Conditions, v1alpha1.ConditionDegraded)
		return
	}
	var said []string
	for _, part := range slices.Sorted(maps.Keys(report.Problems)) {
		said = append(said, part+": "+report.Problems[part])
	}
	text := strings.ToValidUTF8(strings.Join(said, "; "), "?")
	if len(text) > maxProblems {
		text = strings.ToValidUTF8(text[:maxProblems], "") + "…"
	}
	meta.SetStatusCondition(&site.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionDegraded, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAgentProblems,
		Message: text, ObservedGeneration: site.Generation,
	})
}
