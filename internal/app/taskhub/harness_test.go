package taskhub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/apphub"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/app/taskhub"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// shelf is a registry's content, by repository and tag or digest.
type shelf struct {
	mu      sync.Mutex
	bundles map[string]appapi.Resolved
	pushed  []func(string)
}

func (s *shelf) put(repository, tag string) {
	s.mu.Lock()
	r := appapi.Resolved{
		Bundle:  app.Bundle{Repository: repository, Digest: fleet.DigestOf([]byte(repository + tag)), Size: 100},
		Version: tag, Config: app.BundleConfig{Runtime: app.RuntimeProcess},
	}
	s.bundles[repository+":"+tag], s.bundles[repository+":"+string(r.Bundle.Digest)] = r, r
	tell := s.pushed
	s.mu.Unlock()
	for _, fn := range tell {
		fn(repository)
	}
}

func (s *shelf) OnPush(fn func(string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushed = append(s.pushed, fn)
}

func (s *shelf) Resolve(_ context.Context, repository, reference string) (appapi.Resolved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.bundles[repository+":"+reference]
	if !ok {
		return r, appapi.ErrBundleNotFound
	}
	return r, nil
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
	w := &world{t: t, ctx: t.Context(), broker: membus.New(), config: api.Config, shelf: &shelf{bundles: map[string]appapi.Resolved{}}}
	w.client, w.sites = hubtest.Client(t, api.Config), w.broker.Client()
	t.Cleanup(w.sites.Close)
	w.start()
	t.Cleanup(func() { w.stop() })
	w.shelf.put("default/clean", "1")
	w.must(w.client.Create(w.ctx, &v1alpha1.SiteGrant{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: v1alpha1.SiteGrantSpec{
		Namespaces: []string{"default"}, Runtimes: []string{"process"},
	}}))
	return w
}

// start starts a hub on the API and the broker that are there.
func (w *world) start() {
	w.t.Helper()
	bus := w.broker.Client()
	w.shelf.pushed = nil
	w.Hub = hubtest.Start(w.t, hubtest.Options{API: w.config, Bus: bus, Store: bus, Features: []hub.Feature{apphub.New(w.shelf), taskhub.New(w.shelf)}})
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

func (w *world) eventually(what string, fn func() string) {
	w.t.Helper()
	hubtest.Eventually(w.t, what, fn)
}

func unless(ok bool, wrong string) string {
	if ok {
		return ""
	}
	return wrong
}

// member is one site that the test speaks for, over the bus alone.
type member struct {
	*hubtest.Site
	w *world
	// says are its states, by reference.
	says map[task.Ref]task.State
}

func (w *world) site(name string, labels map[string]string) *member {
	w.t.Helper()
	return &member{hubtest.NewSite(w.t, w.client, w.sites, hubtest.Labelled(name, labels)), w, map[task.Ref]task.State{}}
}

// told returns what the site is told of a task, nil when nothing.
func (m *member) told(ref task.Ref) *task.Entry {
	m.w.t.Helper()
	body := m.Section(task.SectionName)
	if body == nil {
		return nil
	}
	section, err := task.DecodeSection(body)
	m.w.must(err)
	for i := range section.Tasks {
		if section.Tasks[i].Ref == ref {
			return &section.Tasks[i]
		}
	}
	return nil
}

func (m *member) awaitTold(ref task.Ref) task.Entry {
	m.w.t.Helper()
	var e *task.Entry
	m.w.eventually(fmt.Sprintf("site %s is told of %s", m.Name, ref), func() string {
		e = m.told(ref)
		return unless(e != nil, "it is not")
	})
	return *e
}

// says makes the site report a run of what it is told.
func (m *member) reports(ref task.Ref, run task.Run) {
	m.w.t.Helper()
	e := m.awaitTold(ref)
	d, err := e.Digest()
	m.w.must(err)
	m.says[ref] = task.State{Ref: ref, UID: e.UID, Runs: []task.Run{run}, Digest: string(d)}
	m.send()
}

func (m *member) send() {
	m.w.t.Helper()
	var r task.Report
	for _, s := range m.says {
		r.Tasks = append(r.Tasks, s)
	}
	m.ReportModule(task.SectionName, r)
}

func ofTask(name string) task.Ref {
	return task.Ref{Kind: task.KindTask, Namespace: "default", Name: name}
}

func ofCron(name string) task.Ref {
	return task.Ref{Kind: task.KindCronTask, Namespace: "default", Name: name}
}

func work() v1alpha1.TaskWork {
	return v1alpha1.TaskWork{Source: &v1alpha1.AppSource{Bundle: "clean:1"}}
}

// task makes a Task at the sites with these labels.
func (w *world) task(name string, sites map[string]string, edit func(*v1alpha1.Task)) *v1alpha1.Task {
	w.t.Helper()
	t := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1alpha1.TaskSpec{
		Work: work(), Placement: v1alpha1.Placement{Sites: metav1.LabelSelector{MatchLabels: sites}},
	}}
	if edit != nil {
		edit(t)
	}
	w.must(w.client.Create(w.ctx, t))
	return t
}

// expect waits until the task's Ready condition has the reason and the counts are as given.
func (w *world) expect(t *v1alpha1.Task, reason string, counts v1alpha1.TaskCounts) {
	w.t.Helper()
	w.eventually("status of task "+t.Name, func() string {
		w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(t), t))
		c := meta.FindStatusCondition(t.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil || c.Reason != reason || t.Status.ObservedGeneration != t.Generation {
			return fmt.Sprintf("want reason %s, status is %+v", reason, t.Status)
		}
		return cmp.Diff(counts, t.Status.Sites)
	})
}

func ended(phase task.Phase, exit int, message string) task.Run {
	return task.Run{Phase: phase, Attempt: 1, ExitCode: exit, Message: message, Started: time.Now().Unix(), Finished: time.Now().Unix(), Tail: "said\n"}
}
