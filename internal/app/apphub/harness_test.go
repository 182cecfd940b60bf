package apphub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/apphub"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// shelf is a registry's content: by repository and tag.
type shelf struct {
	mu      sync.Mutex
	bundles map[string]string
	// defaults of bundles that have any, by repository and tag.
	defaults map[string]*app.Defaults
	pushed   func(string)
}

func (s *shelf) put(repository, tag string) {
	s.mu.Lock()
	s.bundles[repository+":"+tag] = tag
	fn := s.pushed
	s.mu.Unlock()
	if fn != nil {
		fn(repository)
	}
}

func (s *shelf) OnPush(fn func(string)) { s.pushed = fn }

func (s *shelf) Resolve(_ context.Context, repository, reference string) (appapi.Resolved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.bundles[repository+":"+reference]; !ok {
		return appapi.Resolved{}, apphub.ErrBundleNotFound
	}
	return appapi.Resolved{
		Bundle:  app.Bundle{Repository: repository, Digest: fleet.DigestOf([]byte(repository + reference)), Size: 100},
		Version: reference,
		Config:  app.BundleConfig{Runtime: app.RuntimeProcess, Defaults: s.defaults[repository+":"+reference]},
	}, nil
}

// world is a hub with its API, a bus in memory, and sites that this test speaks for.
type world struct {
	*hubtest.Hub
	t      *testing.T
	ctx    context.Context
	client client.Client
	broker *membus.Broker
	sites  *membus.Client
	shelf  *shelf
	config *rest.Config
	stop   func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	api := kubetest.Start(t)
	w := &world{t: t, ctx: t.Context(), broker: membus.New(), config: api.Config, shelf: &shelf{bundles: map[string]string{}, defaults: map[string]*app.Defaults{}}}
	w.client, w.sites = hubtest.Client(t, api.Config), w.broker.Client()
	t.Cleanup(w.sites.Close)
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// start starts a hub on the API and the broker that are there.
func (w *world) start() {
	w.t.Helper()
	bus := w.broker.Client()
	w.Hub = hubtest.Start(w.t, hubtest.Options{API: w.config, Bus: bus, Store: bus, Features: []hub.Feature{apphub.New(w.shelf)}})
	stop := w.Hub.Stop
	w.stop = sync.OnceFunc(func() {
		stop()
		bus.Close()
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// eventually waits until fn returns nothing wrong.
func (w *world) eventually(what string, fn func() string) {
	w.t.Helper()
	hubtest.Eventually(w.t, what, fn)
}

// siteMember is one site that the test speaks for, over the bus alone.
type siteMember struct {
	*hubtest.Site
	w *world
}

func (w *world) site(name string, labels map[string]string) *siteMember {
	w.t.Helper()
	return &siteMember{hubtest.NewSite(w.t, w.client, w.sites, hubtest.Labelled(name, labels)), w}
}

// told returns what the site is told to run, by app name.
func (m *siteMember) told() map[string]app.Placement {
	m.w.t.Helper()
	out := map[string]app.Placement{}
	body := m.Section(app.SectionName)
	if body == nil {
		return out
	}
	section, err := app.DecodeSection(body)
	m.w.must(err)
	for _, p := range section.Apps {
		out[p.App.Name] = p
	}
	return out
}

// runs makes the site report that it runs what it is told, in the phase that is given.
func (m *siteMember) runs(phase fleet.Phase) {
	m.w.t.Helper()
	var apps app.Report
	for _, p := range m.told() {
		ref := app.ReleaseRef{Release: p.Release, Version: p.Version, Digest: p.Digest}
		r := app.AppReport{App: p.App, Desired: ref, Phase: phase, Message: "because of the test"}
		if phase == fleet.PhaseRunning {
			r.Running, r.Message = ref, ""
		}
		apps.Apps = append(apps.Apps, r)
	}
	m.ReportModule(app.SectionName, apps)
}

func (w *world) app(name, bundle string, sites map[string]string) *v1alpha1.App {
	w.t.Helper()
	one := intstr.FromInt32(1)
	a := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1alpha1.AppSpec{
		Source:    v1alpha1.AppSource{Bundle: bundle},
		Placement: v1alpha1.Placement{Sites: metav1.LabelSelector{MatchLabels: sites}},
		Update:    v1alpha1.UpdatePolicy{MaxUnavailable: &one},
	}}
	w.must(w.client.Create(w.ctx, a))
	return a
}

func (w *world) grant() {
	w.t.Helper()
	w.must(w.client.Create(w.ctx, &v1alpha1.SiteGrant{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: v1alpha1.SiteGrantSpec{
		Namespaces: []string{"default"}, Runtimes: []string{"process"},
	}}))
}

// expect waits until the app's Ready condition has the reason and the counts are as given.
func (w *world) expect(a *v1alpha1.App, reason string, counts v1alpha1.SiteCounts) {
	w.t.Helper()
	w.eventually("status of app "+a.Name, func() string {
		w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(a), a))
		c := meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil || c.Reason != reason || a.Status.ObservedGeneration != a.Generation {
			return fmt.Sprintf("want reason %s, status is %+v", reason, a.Status)
		}
		return cmp.Diff(counts, a.Status.Sites)
	})
}
