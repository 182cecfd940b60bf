package enrollhub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
)

// ErrCutOff is wrapped when a step of a rotation would cut sites off.
var ErrCutOff = errors.New("sites would be cut off")

// namesInError bounds the names in one sentence; all of them are in the list.
const namesInError = 10

// rotation takes the steps by which one authority takes the place of another, one at a time.
type rotation struct {
	f  *Feature
	mu sync.Mutex
	// nudges are under way; Wait before the feature ends.
	nudges sync.WaitGroup
}

// authorities serves GET enroll.PathAuthorities.
func (r *rotation) authorities(w http.ResponseWriter, req *http.Request) {
	if _, err := r.f.host.People.Check(req, hub.Right{Verb: "get", Path: enroll.PathAuthorities}); err != nil {
		hub.Fail(w, err)
		return
	}
	list, err := r.list(req.Context())
	if err != nil {
		hub.Fail(w, err)
		return
	}
	hub.Answer(w, http.StatusOK, enroll.AuthoritiesAnswer{Authorities: list})
}

// step serves POST enroll.PathAuthorities.
func (r *rotation) step(w http.ResponseWriter, req *http.Request) {
	user, err := r.f.host.People.Check(req, hub.Right{Verb: "update", Path: enroll.PathAuthorities})
	if err != nil {
		hub.Fail(w, err)
		return
	}
	var step enroll.AuthorityStep
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(body, &step)
	}
	if err != nil {
		hub.Fail(w, fmt.Errorf("read request: %w: %w", err, hub.ErrBadRequest))
		return
	}
	cut, err := r.take(req.Context(), step)
	log := r.f.host.Log.With("component", "enroll", "user", user.GetName(), "step", step.Step, "force", step.Force)
	if err != nil {
		log.Warn("audit", "audit", "authority", "error", err)
		if errors.Is(err, ErrCutOff) || errors.Is(err, ErrAuthority) {
			err = fmt.Errorf("%w: %w", err, hub.ErrBadRequest)
		}
		hub.Fail(w, err)
		return
	}
	log.Info("audit", "audit", "authority", "cut off", cut)
	list, err := r.list(req.Context())
	if err != nil {
		hub.Fail(w, err)
		return
	}
	hub.Answer(w, http.StatusOK, enroll.AuthoritiesAnswer{Authorities: list, CutOff: cut})
}

// take takes one step and returns the sites that it cut off, which are none unless it is forced. What people and the
// API server trust follows: before a new authority is used, after an old one is dropped.
func (r *rotation) take(ctx context.Context, step enroll.AuthorityStep) (cut []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	a := r.f.o.Authority
	switch step.Step {
	case enroll.StepAdd:
		err = a.Add()
	case enroll.StepUse:
		// Again, since what add published may have been lost with the hub.
		if err := r.f.host.PublishCA(ctx, a.Bundle()); err != nil {
			return nil, err
		}
		for _, one := range list {
			if one.State == enroll.AuthorityNext {
				cut = one.Unknown
			}
		}
		if err = refuseCut(step, cut, "do not know the next authority yet: wait until they have renewed their credentials"); err == nil {
			err = a.Use()
		}
	case enroll.StepDrop:
		cut = stillOn(list)
		if err = refuseCut(step, cut, "show a certificate of the previous authority, or do not say which: wait until they have renewed it"); err == nil {
			err = a.Drop()
		}
	default:
		err = fmt.Errorf("step %q: want add, use or drop: %w", step.Step, hub.ErrBadRequest)
	}
	if err != nil {
		return nil, err
	}
	if err := r.f.host.PublishCA(ctx, a.Bundle()); err != nil {
		return cut, fmt.Errorf("the step is taken; start the hub again to have it published: %w", err)
	}
	r.nudge()
	return cut, nil
}

func refuseCut(step enroll.AuthorityStep, names []string, why string) error {
	if len(names) == 0 || step.Force {
		return nil
	}
	shown := strings.Join(names[:min(len(names), namesInError)], ", ")
	if more := len(names) - namesInError; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("%d sites (%s) %s, revoke them, or force it: they would have to join anew: %w", len(names), shown, why, ErrCutOff)
}

// stillOn returns the sites whose certificate may be of the previous authority; none when it is the next that would be
// dropped.
func stillOn(list []enroll.Authority) []string {
	i := slices.IndexFunc(list, func(a enroll.Authority) bool { return a.State == enroll.AuthorityPrevious })
	if i < 0 {
		return nil
	}
	current := list[0]
	all := append(slices.Clone(current.Known), current.Unknown...)
	out := slices.DeleteFunc(all, func(name string) bool { return slices.Contains(current.Signed, name) })
	slices.Sort(out)
	return out
}

// list says which sites know which authority, by what their machine reports. A site without a machine, or whose
// machines are all revoked, has nothing to lose and is not named.
func (r *rotation) list(ctx context.Context) ([]enroll.Authority, error) {
	var sites v1alpha1.SiteList
	if err := r.f.host.Manager.GetAPIReader().List(ctx, &sites); err != nil {
		return nil, fmt.Errorf("list sites: %w", err)
	}
	list := r.f.o.Authority.List()
	for i := range sites.Items {
		site := &sites.Items[i]
		member := seatOf(site).Taken
		if member == "" || !site.DeletionTimestamp.IsZero() {
			continue
		}
		trust, ok := r.f.trust(fleet.SiteName(site.Name), member)
		for j := range list {
			one := &list[j]
			if ok && slices.Contains(trust.Authorities, one.Digest) {
				one.Known = append(one.Known, site.Name)
			} else {
				one.Unknown = append(one.Unknown, site.Name)
			}
			if ok && trust.Authority == one.Digest {
				one.Signed = append(one.Signed, site.Name)
			}
		}
	}
	return list, nil
}

// trust returns what a member says of the authorities that it trusts; false when it says nothing that can be used.
func (f *Feature) trust(site fleet.SiteName, member fleet.MemberID) (enroll.Report, bool) {
	report, ok := f.host.Fleet.Report(site)
	if !ok || report.Member != member {
		return enroll.Report{}, false
	}
	var out enroll.Report
	if err := json.Unmarshal(report.Modules[enroll.SectionName], &out); err != nil || len(out.Authorities) > wire.MaxAuthorities {
		return enroll.Report{}, false
	}
	return out, true
}

// trustStatus writes Site.status.authorities and authority.
type trustStatus struct{ f *Feature }

// Reconcile implements reconcile.Reconciler.
func (t trustStatus) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var site v1alpha1.Site
	if err := t.f.host.Client.Get(ctx, req.NamespacedName, &site); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	said, ok := t.f.trust(fleet.SiteName(site.Name), seatOf(&site).Taken)
	if !ok || slices.Equal(site.Status.Authorities, said.Authorities) && site.Status.Authority == said.Authority {
		return ctrl.Result{}, nil
	}
	before := site.DeepCopy()
	site.Status.Authorities, site.Status.Authority = said.Authorities, said.Authority
	err := t.f.host.Client.Status().Patch(ctx, &site, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: conflictAgain}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("write status of site %s: %w", site.Name, err)
	}
	return ctrl.Result{}, nil
}

// conflictAgain is when to try again after somebody else wrote the object first: the cache has it by then.
const conflictAgain = 50 * time.Millisecond

// nudgesAtOnce bounds the sites that are asked at one moment to renew.
const nudgesAtOnce = 8

// nudge asks the sites that are there to renew now and not within eight hours. Who is away, or is older than this
// call, renews in its own time.
func (r *rotation) nudge() {
	ctx := r.f.ctx
	r.nudges.Go(func() {
		var sites v1alpha1.SiteList
		if err := r.f.host.Client.List(ctx, &sites, &client.ListOptions{}); err != nil {
			r.f.host.Log.Warn("sites are not asked to renew their credentials now", "error", err)
			return
		}
		slots := make(chan struct{}, nudgesAtOnce)
		var wg sync.WaitGroup
		defer wg.Wait()
		for i := range sites.Items {
			name := fleet.SiteName(sites.Items[i].Name)
			if r.f.host.Fleet.Link(name) != fleet.LinkConnected {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case slots <- struct{}{}:
			}
			wg.Go(func() {
				defer func() { <-slots }()
				if err := r.f.host.Caller.Call(ctx, name, enroll.MethodRenew, struct{}{}, nil); err != nil {
					r.f.host.Log.Debug("a site renews its credentials in its own time", "site", name, "error", err)
				}
			})
		}
	})
}
