// Package upkeephub is the hub half of the agents' own upgrades: it tells sites which agent to run, a few at a time, as
// Site.spec.agent asks, and writes what they say into Site.status.agent.
//
// It is the one writer of the section "agent" of every site. Only cmd imports it.
package upkeephub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/upkeep"
)

// ErrNotFound is wrapped when no agent of a version was pushed, ErrInvalid when what was pushed is none.
var (
	ErrNotFound = errors.New("no agent of this version was pushed")
	ErrInvalid  = errors.New("what was pushed is no agent")
)

// Agent is one version in the registry.
type Agent struct {
	// Digest is that of the index.
	Digest   fleet.Digest
	Binaries []upkeep.Binary
}

// Agents finds agents.
type Agents interface {
	// Resolve returns the agent of a version, or by the digest of its index.
	Resolve(ctx context.Context, reference string) (Agent, error)
	// OnPush registers fn to be called after something was pushed to a repository.
	OnPush(fn func(repository string))
}

// Feature is the hub half.
type Feature struct {
	agents Agents
	host   *hub.Host
	passes *hub.Notifier
	pace   hub.Pace

	mu sync.Mutex
	// seen is what each site said last of its agent, and its link: a pass is worth its while when it changes.
	seen map[fleet.SiteName]string
	// content is what each site may fetch.
	content map[fleet.SiteName]fleet.Digest
}

// New returns the feature.
func New(agents Agents) *Feature {
	return &Feature{agents: agents, passes: hub.NewNotifier(), seen: map[fleet.SiteName]string{}, content: map[fleet.SiteName]fleet.Digest{}}
}

// Name implements hub.Feature.
func (f *Feature) Name() string { return "agent" }

// onePass is the one key of the queue: a pass looks at all sites, since they share what may be unavailable.
const onePass = "all"

// Setup implements hub.Feature.
func (f *Feature) Setup(_ context.Context, h *hub.Host) error {
	f.host = h
	f.agents.OnPush(func(repository string) {
		if repository == upkeep.Repository {
			f.passes.NotifySite(onePass)
		}
	})
	h.Fleet.OnChange(func(site fleet.SiteName) {
		if f.changed(site) {
			f.passes.NotifySite(onePass)
		}
	})
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: onePass}}}
	})
	err := ctrl.NewControllerManagedBy(h.Manager).Named("agent").Watches(&v1alpha1.Site{}, all).WatchesRawSource(f.passes.Source()).Complete(f)
	if err != nil {
		return fmt.Errorf("set up agent controller: %w", err)
	}
	return nil
}

// changed reports whether a site says something new of its agent, or has another link.
func (f *Feature) changed(site fleet.SiteName) bool {
	report, _ := f.host.Fleet.Report(site)
	now := string(f.host.Fleet.Link(site)) + string(report.Modules[upkeep.SectionName])
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[site] == now {
		return false
	}
	f.seen[site] = now
	return true
}

// Content returns the digest of the index that a site may fetch an agent of; empty when none.
func (f *Feature) Content(site fleet.SiteName) fleet.Digest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.content[site]
}

// Live returns the digests of all indexes that sites are to run.
func (f *Feature) Live() []fleet.Digest {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.Digest
	for _, d := range f.content {
		out = append(out, d)
	}
	return out
}

// passEvery bounds how often passes follow each other.
const passEvery = 200 * time.Millisecond

// site is what a pass knows of one.
type site struct {
	obj    *v1alpha1.Site
	name   fleet.SiteName
	wanted *upkeep.Section // nil: nothing is asked for, or it cannot be found
	told   upkeep.Section  // zero: nothing
	report upkeep.Report
	link   fleet.Link
	// blocked is why wanted is nil although something is asked for.
	blocked string
}

// Reconcile makes one pass over all sites.
func (f *Feature) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	began := f.host.Now()
	if wait := f.pace.Wait(onePass, began); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	defer func() { f.pace.Done(onePass, began, f.host.Now()) }()
	var list v1alpha1.SiteList
	// The cache's own objects: write copies the one that it changes.
	if err := f.host.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list sites: %w", err)
	}
	sites, err := f.look(ctx, list.Items)
	if err != nil {
		return ctrl.Result{}, err
	}
	var failed []error
	for _, s := range next(sites) {
		body, err := s.wanted.Encode()
		if err == nil {
			err = f.host.Desired.Set(ctx, s.name, upkeep.SectionName, body)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("site %s: %w", s.name, err))
			continue
		}
		s.told = *s.wanted
	}
	again := time.Duration(0)
	for _, s := range sites {
		conflict, err := f.write(ctx, s)
		if conflict {
			again = passEvery
		}
		failed = append(failed, err)
	}
	return ctrl.Result{RequeueAfter: again}, errors.Join(failed...)
}

// look gathers what a pass needs, and what sites may fetch from now on.
func (f *Feature) look(ctx context.Context, objects []v1alpha1.Site) ([]*site, error) {
	found := map[string]Agent{}
	content := map[fleet.SiteName]fleet.Digest{}
	var sites []*site
	for i := range objects {
		obj := &objects[i]
		s := &site{obj: obj, name: fleet.SiteName(obj.Name)}
		s.link = f.host.Fleet.Link(s.name)
		if report, ok := f.host.Fleet.Report(s.name); ok {
			s.report = upkeep.ReportOf(report)
		}
		if body := f.host.Desired.Section(s.name, upkeep.SectionName); body != nil {
			if told, err := upkeep.DecodeSection(body); err == nil {
				s.told = told
			}
		}
		sites = append(sites, s)
		spec := obj.Spec.Agent
		if spec == nil || !obj.DeletionTimestamp.IsZero() {
			continue
		}
		reference := spec.Version
		if spec.Digest != "" {
			reference = spec.Digest
		}
		agent, ok := found[reference]
		if !ok {
			var err error
			agent, err = f.agents.Resolve(ctx, reference)
			if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInvalid) {
				return nil, err
			}
			if err != nil {
				s.blocked = err.Error()
				continue
			}
			found[reference] = agent
		}
		content[s.name] = agent.Digest
		s.wanted = &upkeep.Section{
			ID: fmt.Sprintf("%s/%d", agent.Digest, spec.Attempt), Version: spec.Version, Repository: upkeep.Repository,
			Binaries: agent.Binaries, DeadlineSeconds: int(spec.DeadlineSeconds),
		}
		if s.wanted.DeadlineSeconds == 0 {
			s.wanted.DeadlineSeconds = upkeep.DefaultDeadline
		}
	}
	f.mu.Lock()
	f.content = content
	f.mu.Unlock()
	return sites, nil
}

// next returns the sites to tell now, in order of their names. Of those that are to run the same, as many may be without
// proof that they do as the least of their maxUnavailable says; one that failed takes room, so that a bad agent stops by
// itself. A site that is away is told when it is back: it runs its apps, and loses nothing by waiting.
func next(sites []*site) []*site {
	groups := map[string][]*site{}
	for _, s := range sites {
		if s.wanted != nil {
			groups[s.wanted.ID] = append(groups[s.wanted.ID], s)
		}
	}
	var out []*site
	for id, group := range groups {
		room := 0
		for i, s := range group {
			limit := max(1, int(s.obj.Spec.Agent.MaxUnavailable))
			if i == 0 || limit < room {
				room = limit
			}
		}
		sort.Slice(group, func(i, j int) bool { return group[i].name < group[j].name })
		var waiting []*site
		for _, s := range group {
			switch {
			case same(s.told, *s.wanted):
				if !(s.report.ID == id && s.report.Phase == upkeep.PhaseRunning) && s.report.Phase != upkeep.PhaseUnsupported {
					room--
				}
			case s.link == fleet.LinkConnected:
				waiting = append(waiting, s)
			}
		}
		out = append(out, waiting[:max(0, min(room, len(waiting)))]...)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out
}

func same(a, b upkeep.Section) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// write writes Site.status.agent; conflict reports that somebody else wrote the Site first.
func (f *Feature) write(ctx context.Context, s *site) (conflict bool, err error) {
	now := status(s)
	if equality.Semantic.DeepEqual(s.obj.Status.Agent, now) {
		return false, nil
	}
	after := s.obj.DeepCopy()
	after.Status.Agent = now
	err = f.host.Client.Status().Patch(ctx, after, client.MergeFromWithOptions(s.obj, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) {
		return true, nil
	}
	if err = client.IgnoreNotFound(err); err != nil {
		return false, fmt.Errorf("write status of site %s: %w", s.name, err)
	}
	return false, nil
}

// status is what is known of the agent of a site; nil while nothing is.
func status(s *site) *v1alpha1.SiteAgentStatus {
	out := &v1alpha1.SiteAgentStatus{Version: s.report.Version, Digest: string(s.report.Digest)}
	switch {
	case s.obj.Spec.Agent == nil && s.report.Version == "":
		return nil
	case s.obj.Spec.Agent == nil:
	case s.blocked != "":
		out.Phase, out.Message = v1alpha1.AgentFailed, s.blocked
	case s.wanted == nil || !same(s.told, *s.wanted):
		out.Phase, out.Message = v1alpha1.AgentWaiting, "it waits for its turn"
		if s.link != fleet.LinkConnected {
			out.Message = "the site is away"
		}
	case s.report.ID != s.wanted.ID:
		out.Phase, out.Message = v1alpha1.AgentWaiting, "the site was told"
	default:
		out.Phase, out.Message = s.report.Phase, s.report.Message
	}
	const longest = 1024
	out.Message = out.Message[:min(len(out.Message), longest)]
	return out
}
