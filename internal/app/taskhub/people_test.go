package taskhub_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/task"
)

// warned collects what the API server warns a person of.
type warned struct{ said []string }

// HandleWarningHeader implements rest.WarningHandler.
func (w *warned) HandleWarningHeader(_ int, _, text string) { w.said = append(w.said, text) }

// TestPeople has people ask for what they may, and may not, place and see.
func TestPeople(t *testing.T) {
	w := newWorld(t)
	shop := w.site("shop-1", map[string]string{"kind": "shop"})
	w.site("gate-1", map[string]string{"kind": "gate"})
	for _, ns := range []string{"shop", "bare"} {
		w.must(w.client.Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}))
		w.shelf.put(ns+"/clean", "1")
	}
	w.must(w.client.Create(w.ctx, &v1alpha1.SiteGrant{ObjectMeta: metav1.ObjectMeta{Name: "shops"}, Spec: v1alpha1.SiteGrantSpec{
		Namespaces: []string{"shop"}, Sites: metav1.LabelSelector{MatchLabels: map[string]string{"kind": "shop"}}, Runtimes: []string{"process"},
	}}))
	t.Run("what may not be placed is refused", func(t *testing.T) { w.t = t; refused(t, w) })
	t.Run("results and output are for who may see them", func(t *testing.T) { w.t = t; views(t, w, shop) })
}

func refused(t *testing.T, w *world) {
	var said warned
	config := rest.CopyConfig(w.config)
	config.WarningHandler = &said
	person, err := client.New(config, client.Options{Scheme: w.client.Scheme()})
	w.must(err)
	of := func(ns, kind string, edit func(*v1alpha1.TaskWork)) *v1alpha1.Task {
		x := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "x"}, Spec: v1alpha1.TaskSpec{
			Work: work(), Placement: v1alpha1.Placement{Sites: metav1.LabelSelector{MatchLabels: map[string]string{"kind": kind}}},
		}}
		if kind == "" {
			x.Spec.Placement.Sites = metav1.LabelSelector{}
		}
		if edit != nil {
			edit(&x.Spec.Work)
		}
		return x
	}
	// The API server and the hub's caches hear of a new configuration and of new objects a moment later.
	w.eventually("the first refusal", func() string {
		return unless(apierrors.IsInvalid(person.Create(w.ctx, of("bare", "shop", nil), client.DryRunAll)), "nothing is refused")
	})
	w.eventually("the first that is let pass", func() string {
		return unless(person.Create(w.ctx, of("shop", "shop", nil), client.DryRunAll) == nil, "refused")
	})
	for name, row := range map[string]struct {
		reason           string
		task             *v1alpha1.Task
		refused, warning string
	}{
		"granted": {"sites that the namespace may use", of("shop", "shop", nil), "", ""},
		"some":    {"it runs at those that it may use", of("shop", "", nil), "", "selects 2 sites, of which namespace shop is granted 1"},
		"none":    {"nobody else's sites", of("shop", "gate", nil), "use runtime process on any of the 1 sites", ""},
		"bare":    {"a namespace without any grant", of("bare", "shop", nil), "no SiteGrant lets namespace bare use runtime process on any site", ""},
		"root": {"the host is not granted", of("shop", "shop", func(w *v1alpha1.TaskWork) {
			w.Process = &v1alpha1.ProcessSpec{AllowRoot: true}
		}), "runtime process as root on any site", ""},
		"later":   {"sites may come", of("shop", "kiosk", nil), "", "selects no site now"},
		"no app":  {"so may an app", of("shop", "shop", func(w *v1alpha1.TaskWork) { *w = v1alpha1.TaskWork{App: "till"} }), "", "there is no App till"},
		"nothing": {"there is nothing to run", of("shop", "shop", func(w *v1alpha1.TaskWork) { *w = v1alpha1.TaskWork{} }), "set one of source and app", ""},
		"a way out": {"a program of the machine", of("shop", "shop", func(w *v1alpha1.TaskWork) {
			w.Command = []v1alpha1.TaskArg{"../../bin/sh"}
		}), "a path inside the bundle", ""},
		"the agent's": {"a variable that only the agent sets", of("shop", "shop", func(w *v1alpha1.TaskWork) {
			w.Env = map[string]v1alpha1.EnvValue{"SKERRY_SITE": "x"}
		}), "set by the agent", ""},
	} {
		said.said = nil
		err := person.Create(w.ctx, row.task, client.DryRunAll)
		switch {
		case row.refused == "" && err != nil, row.refused != "" && (err == nil || !strings.Contains(err.Error(), row.refused)):
			t.Errorf("%s: %s: error %v, want %q", name, row.reason, err, row.refused)
		}
		if warnings := strings.Join(said.said, "; "); !strings.Contains(warnings, row.warning) || row.warning == "" && warnings != "" {
			t.Errorf("%s: %s: warnings %q, want %q", name, row.reason, warnings, row.warning)
		}
	}
}

// token makes a service account with the role of viewers in a namespace.
func (w *world) token(name, namespace string) string {
	w.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	w.must(w.client.Create(w.ctx, account))
	w.must(w.client.Create(w.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "skerry-viewer"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: name}},
	}))
	request := &authenticationv1.TokenRequest{}
	w.must(w.client.SubResource("token").Create(w.ctx, account, request))
	return request.Status.Token
}

func (w *world) ask(token, path string) (int, string) {
	w.t.Helper()
	config := rest.AnonymousClientConfig(w.config)
	config.Host, config.BearerToken = w.URL, token
	config.CAFile, config.CAData = "", w.CA
	c, err := rest.HTTPClientFor(config)
	w.must(err)
	res, err := c.Get(config.Host + path)
	w.must(err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	w.must(err)
	return res.StatusCode, string(data)
}

func views(t *testing.T, w *world, shop *member) {
	x := w.task("seen", map[string]string{"kind": "shop"}, nil)
	shop.reports(ofTask("seen"), ended(task.PhaseSucceeded, 0, ""))
	w.expect(x, v1alpha1.ReasonComplete, v1alpha1.TaskCounts{Matched: 1, Succeeded: 1})
	ours, others := w.token("ana", "default"), w.token("bob", "shop")
	const results = "/view/v1/namespaces/default/tasks/seen/results"
	var body string
	w.eventually("a viewer sees results", func() string {
		code, text := w.ask(ours, results)
		body = text
		return unless(code == http.StatusOK, fmt.Sprint(code, text))
	})
	var r task.Results
	w.must(json.Unmarshal([]byte(body), &r))
	if !r.Finished || len(r.Sites) != 1 || r.Sites[0].Standing != "Succeeded" || len(r.Sites[0].Runs) != 1 || r.Sites[0].Runs[0].Tail != "said\n" {
		t.Errorf("results %+v", r)
	}
	const output = "/view/v1/namespaces/default/tasks/seen/output?site=shop-1"
	for name, row := range map[string]struct {
		reason, token, path string
		want                int
	}{
		"results of others":    {"a viewer of another namespace", others, results, http.StatusForbidden},
		"output of others":     {"who may not see results may not see output", others, output, http.StatusForbidden},
		"anonymous":            {"nobody", "", results, http.StatusUnauthorized},
		"no such task":         {"it is not there", ours, "/view/v1/namespaces/default/tasks/other/results", http.StatusNotFound},
		"no such kind":         {"nor is that kind", ours, "/view/v1/namespaces/default/jobs/seen/results", http.StatusNotFound},
		"output of a site":     {"the site does not answer: the test does not for it", ours, output, http.StatusServiceUnavailable},
		"output of a stranger": {"a right to a task is none to ask any site", ours, "/view/v1/namespaces/default/tasks/seen/output?site=gate-1", http.StatusNotFound},
		"a bad run":            {"runs are counted from the newest", ours, output + "&run=-1", http.StatusBadRequest},
	} {
		if code, text := w.ask(row.token, row.path); code != row.want {
			t.Errorf("%s: %s: %d, want %d: %s", name, row.reason, code, row.want, text)
		}
	}
}
