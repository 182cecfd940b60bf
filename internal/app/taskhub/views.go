package taskhub

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
)

func (f *Feature) registerViews(h *hub.Host) {
	h.Public.HandleFunc("GET "+task.PathResults, f.results)
	h.Public.HandleFunc("GET "+task.PathOutput, f.output)
}

// refOf reads which task a request is for.
func refOf(r *http.Request) (task.Ref, error) {
	ref := task.Ref{Namespace: r.PathValue("namespace"), Name: r.PathValue("task")}
	for _, kind := range []task.Kind{task.KindTask, task.KindCronTask} {
		if kind.Resource() == r.PathValue("kind") {
			ref.Kind = kind
			return ref, nil
		}
	}
	return ref, fmt.Errorf("%q: want tasks or crontasks: %w", r.PathValue("kind"), hub.ErrNotFound)
}

// checkView reads which task a request is for, and whether who makes it has a right to a subresource of it.
func (f *Feature) checkView(r *http.Request, subresource string) (task.Ref, error) {
	ref, err := refOf(r)
	if err != nil {
		return ref, err
	}
	_, err = f.host.People.Check(r, hub.Right{
		Verb: "get", Resource: ref.Kind.Resource(), Subresource: subresource, Namespace: ref.Namespace, Name: ref.Name,
	})
	return ref, err
}

func (f *Feature) results(w http.ResponseWriter, r *http.Request) {
	ref, err := f.checkView(r, "status")
	if err != nil {
		hub.Fail(w, err)
		return
	}
	view, err := f.view(r.Context(), ref)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	hub.Answer(w, http.StatusOK, view)
}

// object reads what is needed of either kind.
func (f *Feature) object(ctx context.Context, ref task.Ref) (obj client.Object, conditions []metav1.Condition, err error) {
	var t v1alpha1.Task
	var c v1alpha1.CronTask
	if obj = &t; ref.Kind == task.KindCronTask {
		obj = &c
	}
	err = f.host.Client.Get(ctx, objectKey(ref), obj)
	if apierrors.IsNotFound(err) {
		return nil, nil, fmt.Errorf("%s: %w", ref, hub.ErrNotFound)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", ref, err)
	}
	if ref.Kind == task.KindCronTask {
		return obj, c.Status.Conditions, nil
	}
	return obj, t.Status.Conditions, nil
}

// view joins who was told with what each site said of it.
func (f *Feature) view(ctx context.Context, ref task.Ref) (task.Results, error) {
	view := task.Results{Ref: ref, Sites: []task.SiteResult{}}
	obj, conditions, err := f.object(ctx, ref)
	if err != nil {
		return view, err
	}
	if ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady); ready != nil {
		view.Reason, view.Message = ready.Reason, ready.Message
	}
	view.Stalled = meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled)
	r := &reconciler{host: f.host, bundles: f.bundles, book: f.book}
	var p *pass
	switch o := obj.(type) {
	case *v1alpha1.Task:
		p = r.taskPass(ref, o)
		view.Finished = o.Status.FinishedAt != nil
	case *v1alpha1.CronTask:
		p = &pass{ref: ref, work: &o.Spec.Work, placement: &o.Spec.Placement}
	}
	names := f.book.sitesOf(ref)
	// Sites whose turn has not come are told of too, where it can be said which they are.
	if !view.Finished && r.resolve(ctx, p) == nil && r.place(ctx, p) == nil {
		for name := range p.sites {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
	}
	for _, name := range names {
		view.Sites = append(view.Sites, f.line(name, ref, obj))
	}
	return view, nil
}

func (f *Feature) line(site fleet.SiteName, ref task.Ref, obj client.Object) task.SiteResult {
	_, told := f.book.told(site, ref)
	s := task.SiteState{
		Site: site, Link: f.host.Fleet.Link(site), Told: told, State: stateOf(f.host.Fleet, site, ref, string(obj.GetUID())), Now: f.host.Now(),
	}
	if t, ok := obj.(*v1alpha1.Task); ok {
		if s.Cancel = t.Spec.Cancel; t.Spec.StartBy != nil {
			s.StartBy = t.Spec.StartBy.Time
		}
		if i := slices.IndexFunc(t.Status.Failing, func(x v1alpha1.FailingSite) bool { return x.Site == string(site) }); i >= 0 && !told {
			s.Blocked = t.Status.Failing[i].Message
		}
	}
	out := task.SiteResult{Site: site, Link: s.Link, Standing: s.Standing(), Message: s.Blocked}
	if s.State != nil {
		out.Runs, out.Next, out.Skipped, out.Missed = s.State.Runs, s.State.Next, s.State.Skipped, s.State.Missed
		if out.Message == "" {
			out.Message = s.State.Message
		}
	}
	if run := s.Run(); out.Message == "" {
		out.Message = run.Message
	}
	if out.Message == "" && out.Standing.Final() && out.Standing != task.Standing(task.PhaseSucceeded) {
		out.Message = reasonOf(s)
	}
	return out
}

func (f *Feature) output(w http.ResponseWriter, r *http.Request) {
	ref, err := f.checkView(r, "log")
	if err != nil {
		hub.Fail(w, err)
		return
	}
	site, request, err := f.outputRequest(r, ref)
	if err != nil {
		hub.Fail(w, err)
		return
	}
	out := http.NewResponseController(w)
	started := false
	begin := func() {
		if !started {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Trailer", hub.TrailerError)
			started = true
		}
	}
	err = f.host.Caller.Stream(r.Context(), site, task.MethodOutput, request, func(part []byte) error {
		begin()
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("write to the caller: %w", err)
		}
		return out.Flush()
	})
	switch {
	case err != nil && !started:
		hub.Fail(w, err)
	case err != nil:
		w.Header().Set(hub.TrailerError, err.Error())
	default:
		begin()
	}
}

// outputRequest reads and checks the query of a request for output. The site must have been told of the task:
// the right to a task's output is not one to ask any site.
func (f *Feature) outputRequest(r *http.Request, ref task.Ref) (fleet.SiteName, task.OutputRequest, error) {
	q := r.URL.Query()
	site := fleet.SiteName(q.Get("site"))
	request := task.OutputRequest{Ref: ref}
	if text := q.Get("run"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n >= task.MaxHistory {
			return site, request, fmt.Errorf("run: %q, want 0 to %d, the newest first: %w", text, task.MaxHistory-1, hub.ErrBadRequest)
		}
		request.Run = n
	}
	obj, _, err := f.object(r.Context(), ref)
	if err != nil {
		return site, request, err
	}
	request.UID = string(obj.GetUID())
	if _, told := f.book.told(site, ref); !told {
		return site, request, fmt.Errorf("%s is not told to site %q: %w", ref, site, hub.ErrNotFound)
	}
	return site, request, nil
}
