package apphub_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
)

// warned collects what the API server warns a person of.
type warned struct{ said []string }

// HandleWarningHeader implements rest.WarningHandler.
func (w *warned) HandleWarningHeader(_ int, _, text string) { w.said = append(w.said, text) }

// TestAdmission applies apps that a namespace may not, or may only in part, place.
func TestAdmission(t *testing.T) {
	w := newWorld(t)
	for name, labels := range map[string]map[string]string{"shop-1": {"kind": "shop"}, "shop-2": {"kind": "shop"}, "gate-1": {"kind": "gate"}} {
		w.must(w.client.Create(w.ctx, hubtest.Labelled(name, labels)))
	}
	for _, ns := range []string{"shop", "bare"} {
		w.must(w.client.Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}))
	}
	grant := &v1alpha1.SiteGrant{ObjectMeta: metav1.ObjectMeta{Name: "shops"}, Spec: v1alpha1.SiteGrantSpec{
		Namespaces: []string{"shop"}, Sites: metav1.LabelSelector{MatchLabels: map[string]string{"kind": "shop"}}, Runtimes: []string{"process"},
	}}
	w.must(w.client.Create(w.ctx, grant))
	for _, ns := range []string{"shop", "bare"} {
		w.shelf.put(ns+"/hello", "1")
	}
	var said warned
	config := rest.CopyConfig(w.config)
	config.WarningHandler = &said
	person, err := client.New(config, client.Options{Scheme: w.client.Scheme()})
	w.must(err)

	app := func(namespace, bundle string, root bool, sites metav1.LabelSelector) *v1alpha1.App {
		a := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "hello"}, Spec: v1alpha1.AppSpec{
			Source: v1alpha1.AppSource{Bundle: bundle}, Placement: v1alpha1.Placement{Sites: sites},
		}}
		if root {
			a.Spec.Process = &v1alpha1.ProcessSpec{AllowRoot: true}
		}
		return a
	}
	kind := func(k string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchLabels: map[string]string{"kind": k}}
	}
	// The API server and the hub's caches hear of a new configuration and of new objects a moment later.
	w.eventually("the first refusal", func() string {
		err := person.Create(w.ctx, app("bare", "hello:1", false, kind("shop")), client.DryRunAll)
		return unless(apierrors.IsInvalid(err) && strings.Contains(err.Error(), "namespace bare"), "nothing is refused")
	})
	w.eventually("the first that is let pass", func() string {
		err := person.Create(w.ctx, app("shop", "hello:1", false, kind("shop")), client.DryRunAll)
		return unless(err == nil, "refused")
	})
	tests := []struct {
		reason  string
		app     *v1alpha1.App
		refused string
		warning string
	}{
		{"sites that are granted", app("shop", "hello:1", false, kind("shop")), "", ""},
		{"some of them", app("shop", "hello:1", false, metav1.LabelSelector{}), "", "selects 3 sites, of which namespace shop is granted 2"},
		{"none of them", app("shop", "hello:1", false, kind("gate")), "spec.placement.sites: Forbidden: no SiteGrant lets namespace shop use runtime process on any of the 1 sites", ""},
		{"sites that are yet to come", app("shop", "hello:1", false, kind("kiosk")), "", ""},
		{"a namespace without any grant", app("bare", "hello:1", false, kind("kiosk")), "no SiteGrant lets namespace bare use runtime process on any site", ""},
		{"as root", app("shop", "hello:1", true, kind("shop")), "use runtime process as root on any site", ""},
		{"a bundle that is yet to come", app("shop", "hello:9", false, kind("shop")), "", "has no hello:9 in namespace shop"},
		{"a bundle that is yet to come, without any grant", app("bare", "hello:9", false, kind("shop")), "use any runtime on any site", "has no hello:9"},
	}
	for _, tt := range tests {
		said.said = nil
		err := person.Create(w.ctx, tt.app, client.DryRunAll)
		switch {
		case tt.refused == "" && err != nil:
			t.Errorf("%s: %v", tt.reason, err)
		case tt.refused != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.refused)):
			t.Errorf("%s: %v, want a refusal with %q", tt.reason, err, tt.refused)
		}
		if got := strings.Join(said.said, "; "); (tt.warning == "") != (got == "") || !strings.Contains(got, tt.warning) {
			t.Errorf("%s: warned of %q, want %q", tt.reason, got, tt.warning)
		}
	}

	t.Run("a grant that was applied a moment before counts", func(t *testing.T) {
		for i := range 10 {
			name := fmt.Sprintf("moment-%d", i)
			w.must(w.client.Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
			w.must(w.client.Create(w.ctx, &v1alpha1.SiteGrant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SiteGrantSpec{
				Namespaces: []string{name}, Sites: metav1.LabelSelector{}, Runtimes: []string{"process"},
			}}))
			if err := person.Create(w.ctx, app(name, "hello:1", false, kind("shop")), client.DryRunAll); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("who may no longer place an app may still label and delete it", func(t *testing.T) {
		a := app("shop", "hello:1", false, kind("shop"))
		w.must(person.Create(w.ctx, a))
		w.must(w.client.Delete(w.ctx, grant))
		w.eventually("a change is refused", func() string {
			err := person.Patch(w.ctx, a.DeepCopy(), patch(`{"spec":{"env":{"A":"b"}}}`), client.DryRunAll)
			return unless(apierrors.IsInvalid(err), "let pass")
		})
		w.must(person.Patch(w.ctx, a, patch(`{"metadata":{"labels":{"a":"b"}}}`)))
		w.must(person.Delete(w.ctx, a))
	})
	t.Run("nobody else may ask", func(t *testing.T) {
		c, err := rest.HTTPClientFor(&rest.Config{Host: w.URL, TLSClientConfig: rest.TLSClientConfig{CAData: w.CA}})
		w.must(err)
		for _, path := range []string{"/admission/v1/x/grants.apps", "/admission/v1//grants.apps"} {
			res, err := c.Post(w.URL+path, "application/json", strings.NewReader("{}"))
			w.must(err)
			res.Body.Close()
			if res.StatusCode == 200 {
				t.Errorf("%s answers somebody without the token", path)
			}
		}
	})
	t.Run("without the hub the API goes on", func(t *testing.T) {
		w.stop()
		w.must(person.Create(context.WithoutCancel(w.ctx), app("bare", "hello:1", false, kind("shop")), client.DryRunAll))
	})
}

func patch(body string) client.Patch {
	return client.RawPatch("application/merge-patch+json", []byte(body))
}
