package apphub_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// settings is a bundle's part of the configuration.
func settings() *app.Defaults {
	return &app.Defaults{
		Values: json.RawMessage(`{"port":80,"tls":{"on":false},"greeting":"hello"}`),
		Schema: json.RawMessage(`{"properties":{"port":{"type":"integer"},"tls":{"type":"object","properties":{"on":{"type":"boolean"}}}}}`),
		Files:  map[string]string{"app.conf": "listen ${values.port}\ntier ${site.labels.tier:-none}\n"},
	}
}

// change sets fields of the App's spec. It is no merge patch, which would take null for its own.
func (w *world) change(a *v1alpha1.App, spec string) {
	w.t.Helper()
	w.eventually("change of app "+a.Name, func() string {
		w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(a), a))
		var fields map[string]json.RawMessage
		before, err := json.Marshal(a.Spec)
		w.must(err)
		w.must(json.Unmarshal(before, &fields))
		w.must(json.Unmarshal([]byte(spec), &fields))
		after, err := json.Marshal(fields)
		w.must(err)
		a.Spec = v1alpha1.AppSpec{}
		w.must(json.Unmarshal(after, &a.Spec))
		if err := w.client.Update(w.ctx, a); !apierrors.IsConflict(err) {
			w.must(err)
			return ""
		}
		return "conflict"
	})
}

// told waits until what every one of these sites is told of app hello has these values, as JSON, and
// returns the placements.
func (w *world) told(want string, sites ...*siteMember) []app.Placement {
	w.t.Helper()
	var out []app.Placement
	for _, s := range sites {
		w.eventually("configuration of "+string(s.Name), func() string {
			p := s.told()["hello"]
			s.runs(fleet.PhaseRunning) // or no further site is told
			if p.Config == nil {
				return "none is told"
			}
			return cmp.Diff(want, string(p.Config.Values))
		})
		out = append(out, s.told()["hello"])
	}
	return out
}

// stopped waits until the App is Stalled for a reason, with a message that has these parts.
func (w *world) stopped(a *v1alpha1.App, reason string, parts ...string) {
	w.t.Helper()
	w.eventually("status of app "+a.Name, func() string {
		w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(a), a))
		c := meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionStalled)
		if c == nil || c.Reason != reason || a.Status.ObservedGeneration != a.Generation {
			return fmt.Sprintf("want reason %s, status is %+v", reason, a.Status)
		}
		for _, part := range parts {
			if !strings.Contains(c.Message, part) {
				return fmt.Sprintf("message %q does not say %q", c.Message, part)
			}
		}
		return ""
	})
}

// TestConfig changes each input of an app's configuration; the steps share a hub, whose start takes seconds.
func TestConfig(t *testing.T) {
	w := newWorld(t)
	w.grant()
	one, two := w.site("shop-1", map[string]string{"kind": "shop", "tier": "small"}), w.site("shop-2", map[string]string{"kind": "shop", "tier": "large"})
	w.shelf.defaults["default/hello:1.0.0"] = settings()
	w.shelf.put("default/hello", "1.0.0")
	a := w.app("hello", "hello:1.0.0", map[string]string{"kind": "shop"})

	p := w.told(`{"greeting":"hello","port":80,"tls":{"on":false}}`, one, two)
	if got := p[1].Config.Files["app.conf"]; got != "listen 80\ntier large\n" {
		t.Errorf("file at shop-2: %q", got)
	}

	t.Run("values and overrides", func(t *testing.T) {
		w.change(a, `{"values":{"port":8080,"greeting":null,"tls":{"on":true}},"env":{"LISTEN":"${site.name}:${values.port}"},
			"overrides":[{"site":"shop-2","values":{"port":1}},{"sites":{"matchLabels":{"tier":"large"}},"values":{"port":2,"wide":true}}]}`)
		w.told(`{"port":8080,"tls":{"on":true}}`, one)
		at := w.told(`{"port":1,"tls":{"on":true},"wide":true}`, two)
		if got := at[0].Env["LISTEN"]; got != "shop-2:1" {
			t.Errorf("variable at shop-2: %q", got)
		}
	})
	t.Run("what the hub told is what anyone renders from the stored release", func(t *testing.T) {
		var release v1alpha1.Release
		w.must(w.client.Get(w.ctx, types.NamespacedName{Namespace: "default", Name: two.told()["hello"].Release}, &release))
		again, err := appapi.Render(&release, fleet.Facts{Name: "shop-2", Labels: map[string]string{"kind": "shop", "tier": "large"}})
		if diff := cmp.Diff(two.told()["hello"], again); err != nil || diff != "" {
			t.Errorf("render: %v (-told +rendered):\n%s", err, diff)
		}
		release.Spec.Config.Values.Raw = []byte(`{"port":6}`)
		if err := w.client.Update(w.ctx, &release); !apierrors.IsInvalid(err) {
			t.Errorf("a release's values were changed: %v", err)
		}
	})
	t.Run("a ConfigMap", func(t *testing.T) { configMapValues(t, w, a, one, two) })
	t.Run("a changed label", func(t *testing.T) { relabelled(t, w, one, two) })
	t.Run("what is wrong reaches no site", func(t *testing.T) { wrongValues(t, w, a, one, two) })
	t.Run("an app whose values are wrong still leaves", func(t *testing.T) {
		w.change(a, `{"values":{"port":"x"},"placement":{"sites":{"matchLabels":{"kind":"shop","tier":"huge"}}}}`)
		w.eventually("shop-2", func() string { return unless(len(two.told()) == 0, "still told of the app") })
	})
}

// configMapValues lets the app take values from ConfigMaps that are missing, made, changed and removed.
func configMapValues(t *testing.T, w *world, a *v1alpha1.App, one, two *siteMember) {
	before := one.told()["hello"]
	w.change(a, `{"overrides":null,"values":{"tls":{"on":true}},"valuesFrom":[
		{"configMapRef":{"name":"flat","optional":true}},{"configMapRef":{"name":"shops","key":"values.yaml"}}]}`)
	w.stopped(a, v1alpha1.ReasonConfigMapNotFound, "spec.valuesFrom[1].configMapRef", `"shops"`)
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shops"}, Data: map[string]string{"other": "x"}}
	w.must(w.client.Create(w.ctx, m))
	w.stopped(a, v1alpha1.ReasonConfigMapNotFound, `"shops"`, `no key "values.yaml"`)
	if now := one.told()["hello"]; now.Digest != before.Digest {
		t.Error("shop-1 was told of something else meanwhile")
	}
	m.Data["values.yaml"] = "port: 9\nlist: [1, 2.0]\n"
	w.must(w.client.Update(w.ctx, m))
	first := w.told(`{"greeting":"hello","list":[1,2],"port":9,"tls":{"on":true}}`, one, two)
	m.Data["values.yaml"] = "port: 10\n"
	w.must(w.client.Update(w.ctx, m))
	second := w.told(`{"greeting":"hello","port":10,"tls":{"on":true}}`, one, two)
	if first[0].Release == second[0].Release {
		t.Error("a changed ConfigMap makes no new release")
	}
	w.must(w.client.Create(w.ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "flat"}, Data: map[string]string{"greeting": "moin", "port": "7"},
	}))
	w.told(`{"greeting":"moin","port":10,"tls":{"on":true}}`, one, two)
	m.Data["values.yaml"] = "- port\n"
	w.must(w.client.Update(w.ctx, m))
	w.stopped(a, v1alpha1.ReasonValuesInvalid, "spec.valuesFrom[1].configMapRef", "ConfigMap shops, key values.yaml", "want an object")
	w.must(w.client.Delete(w.ctx, m))
	w.stopped(a, v1alpha1.ReasonConfigMapNotFound, `"shops"`)
	w.told(`{"greeting":"moin","port":10,"tls":{"on":true}}`, one, two)
	w.change(a, `{"valuesFrom":null}`)
	w.told(`{"greeting":"hello","port":80,"tls":{"on":true}}`, one, two)
}

// relabelled changes a fact of one site: the same release is rendered anew there alone.
func relabelled(t *testing.T, w *world, one, two *siteMember) {
	before := [...]app.Placement{one.told()["hello"], two.told()["hello"]}
	untouched := one.Section(app.SectionName)
	var s v1alpha1.Site
	w.must(w.client.Get(w.ctx, client.ObjectKey{Name: "shop-2"}, &s))
	w.must(w.client.Patch(w.ctx, &s, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"tier":"medium"}}}`))))
	w.eventually("shop-2", func() string {
		return unless(two.told()["hello"].Config.Files["app.conf"] == "listen 80\ntier medium\n", "does not know its tier")
	})
	after := two.told()["hello"]
	if after.Release != before[1].Release || after.Digest == before[1].Digest {
		t.Errorf("shop-2 ran %s (%s) and is told %s (%s)", before[1].Release, before[1].Digest, after.Release, after.Digest)
	}
	if diff := cmp.Diff(string(untouched), string(one.Section(app.SectionName))); diff != "" {
		t.Errorf("shop-1's section changed:\n%s", diff)
	}
	two.runs(fleet.PhaseRunning)
}

// wrongValues gives the app values and references that cannot be used.
func wrongValues(t *testing.T, w *world, a *v1alpha1.App, one, two *siteMember) {
	sections := func() string { return string(one.Section(app.SectionName)) + string(two.Section(app.SectionName)) }
	before := sections()
	for _, tt := range []struct{ spec, reason, says, why string }{
		{`{"values":{"port":"x"}}`, v1alpha1.ReasonValuesInvalid, "spec.values.port: got string, want integer", "a value of another type"},
		{`{"values":{"port":1},"overrides":[{"site":"nobody","values":{"port":"x"}},{"sites":{},"values":{"tls":{"on":"yes"}}}]}`,
			v1alpha1.ReasonValuesInvalid, "spec.overrides[1].values.tls.on: got string, want boolean", "the override is named, and one for no site does not count"},
		{`{"values":{"port":1},"overrides":[{"site":"shop-2","values":{"port":"x"}}]}`,
			v1alpha1.ReasonValuesInvalid, "spec.overrides[0].values.port: got string, want integer (at site shop-2)", "one wrong site stops the release everywhere"},
		{`{"overrides":[{"sites":{"matchExpressions":[{"key":"a","operator":"Like"}]},"values":{}}]}`, v1alpha1.ReasonValuesInvalid, "spec.overrides[0]", "a selector that cannot be read"},
		{`{"overrides":null,"env":{"A":"${values.nobody}"}}`, v1alpha1.ReasonConfigInvalid, "spec.env[A]: ${values.nobody}: there is no values.nobody", "a reference that leads nowhere"},
		{`{"env":{"A":"${site.labels.tier"}}`, v1alpha1.ReasonConfigInvalid, "spec.env[A]", "a reference without an end"},
		{`{"env":null,"files":[{"path":"a/b","content":"x"},{"path":"a","content":"x"}]}`, v1alpha1.ReasonConfigInvalid, "spec.files", "a file where a directory must be"},
		{`{"files":[{"path":"big","content":"` + strings.Repeat("x", 65536) + `"}]}`, v1alpha1.ReasonConfigInvalid, "at most 65536 are allowed", "more than a site is told of one app"},
	} {
		w.change(a, tt.spec)
		w.stopped(a, tt.reason, tt.says)
		if sections() != before {
			t.Errorf("%s: a site was told of something else", tt.why)
			before = sections()
		}
	}
	w.change(a, `{"files":null,"overrides":null,"env":null,"values":{"port":3}}`)
	w.told(`{"greeting":"hello","port":3,"tls":{"on":false}}`, one, two)
}
