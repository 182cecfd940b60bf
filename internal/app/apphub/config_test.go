package apphub_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
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
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
)

// settings is a bundle's part of the configuration.
func settings() *app.Defaults {
	return &app.Defaults{
		Values: json.RawMessage(`{"port":80,"tls":{"on":false},"greeting":"hello"}`),
		Schema: json.RawMessage(`{"required":["greeting"],"properties":{"port":{"type":"integer"},"tls":{"type":"object","properties":{"on":{"type":"boolean"}}}}}`),
		Files:  map[string]string{"app.conf": "listen ${values.port}\ntier ${site.labels.tier:-none}\n"},
	}
}

// change sets fields of the App's spec. It is no merge patch, which would take null for its own.
func (w *world) change(a *v1alpha1.App, spec string) {
	w.t.Helper()
	w.eventually("change of app "+a.Name, func() string {
		next := w.changed(a, spec)
		if err := w.client.Update(w.ctx, next); !apierrors.IsConflict(err) {
			w.must(err)
			next.DeepCopyInto(a)
			return ""
		}
		return "conflict"
	})
}

// changed reads the App and returns it with fields of its spec set.
func (w *world) changed(a *v1alpha1.App, spec string) *v1alpha1.App {
	w.t.Helper()
	var now v1alpha1.App
	w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(a), &now))
	var fields map[string]json.RawMessage
	before, err := json.Marshal(now.Spec)
	w.must(err)
	w.must(json.Unmarshal(before, &fields))
	w.must(json.Unmarshal([]byte(spec), &fields))
	after, err := json.Marshal(fields)
	w.must(err)
	now.Spec = v1alpha1.AppSpec{}
	w.must(json.Unmarshal(after, &now.Spec))
	return &now
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
		w.change(a, `{"values":{"port":8080,"extra":1,"greeting":"hi","tls":{"on":true}},"env":{"LISTEN":"${site.name}:${values.port}"},
			"overrides":[{"site":"shop-2","values":{"port":1}},{"sites":{"matchLabels":{"tier":"large"}},"values":{"port":2,"wide":true,"extra":null}}]}`)
		w.told(`{"extra":1,"greeting":"hi","port":8080,"tls":{"on":true}}`, one)
		at := w.told(`{"greeting":"hi","port":1,"tls":{"on":true},"wide":true}`, two)
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
	t.Run("what is wrong is refused while it is applied", func(t *testing.T) { refusedValues(t, w, a) })
	t.Run("what is wrong reaches no site", func(t *testing.T) { wrongValues(t, w, a, one, two) })
	t.Run("a site that changes so that its values are wrong stands alone", func(t *testing.T) { wrongSite(t, w, a, one, two) })
	t.Run("an app whose values are wrong still leaves", func(t *testing.T) {
		w.change(a, `{"files":null,"values":{"port":"x"},"placement":{"sites":{"matchLabels":{"kind":"shop","tier":"huge"}}}}`)
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

// wrong are specs that cannot be used, each with the reason of the condition, the words of the condition, and
// those of the refusal where they differ.
var wrong = []struct{ spec, reason, says, refusal, why string }{
	{`{"values":{"port":"x"}}`, v1alpha1.ReasonValuesInvalid, "spec.values.port: got string, want integer (at site shop-1)",
		`spec.values.port: Invalid value: "x": got string, want integer (at site shop-1)`, "a value of another type"},
	{`{"values":{"port":1},"overrides":[{"site":"nobody","values":{"port":"x"}},{"sites":{},"values":{"tls":{"on":"yes"}}}]}`,
		v1alpha1.ReasonValuesInvalid, "spec.overrides[1].values.tls.on: got string, want boolean",
		`spec.overrides[1].values.tls.on: Invalid value: "yes": got string`, "the override is named, and one for no site does not count"},
	{`{"values":{"port":1},"overrides":[{"site":"shop-2","values":{"port":"x"}}]}`,
		v1alpha1.ReasonValuesInvalid, "spec.overrides[0].values.port: got string, want integer (at site shop-2)",
		`spec.overrides[0].values.port: Invalid value: "x"`, "one wrong site stops the release everywhere"},
	{`{"values":{"port":1},"overrides":[{"site":"shop-2","values":{"greeting":null}}]}`, v1alpha1.ReasonValuesInvalid, `spec.overrides[0].values: "greeting" is missing (at site shop-2)`,
		`spec.overrides[0].values: Required value: "greeting" is missing`, "an override that removes what is required"},
	{`{"values":{},"overrides":[{"sites":{"matchExpressions":[{"key":"a","operator":"Like"}]},"values":{}}]}`, v1alpha1.ReasonValuesInvalid,
		`spec.overrides[0].sites: "Like"`, `spec.overrides[0].sites: Invalid value: "Like"`, "a selector that cannot be read"},
	{`{"overrides":null,"env":{"A":"${values.nobody}"}}`, v1alpha1.ReasonConfigInvalid, "spec.env[A]: ${values.nobody}: there is no values.nobody",
		"spec.env[A]: Invalid value: ${values.nobody}", "a reference that leads nowhere"},
	{`{"env":{"A":"${site.labels.tier"}}`, v1alpha1.ReasonConfigInvalid, "spec.env[A]", "", "a reference without an end"},
	{`{"env":null,"files":[{"path":"a/b","content":"x"},{"path":"a","content":"x"}]}`, v1alpha1.ReasonConfigInvalid, "spec.files", "", "a file where a directory must be"},
	{`{"files":[{"path":"big","content":"` + strings.Repeat("x", 65536) + `"}]}`, v1alpha1.ReasonConfigInvalid, "at most 65536 are allowed", "", "more than a site is told of one app"},
}

// refusedValues applies what is wrong while the hub is asked.
func refusedValues(t *testing.T, w *world, a *v1alpha1.App) {
	for _, tt := range wrong {
		err := w.client.Update(w.ctx, w.changed(a, tt.spec), client.DryRunAll)
		if tt.refusal == "" {
			tt.refusal = tt.says
		}
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.refusal) {
			t.Errorf("%s: %v, want a refusal with %q", tt.why, err, tt.refusal)
		}
	}
	for why, spec := range map[string]string{
		"values that are right":                       `{"values":{"port":5}}`,
		"a ConfigMap that is yet to come":             `{"valuesFrom":[{"configMapRef":{"name":"later"}}]}`,
		"a bundle that is yet to come":                `{"source":{"bundle":"hello:9"},"values":{"port":"x"}}`,
		"sites that are yet to come may say the rest": `{"placement":{"sites":{"matchLabels":{"kind":"later"}}},"values":{"greeting":null},"env":{"A":"${site.labels.new}"}}`,
		"an override for a site that is yet to come":  `{"overrides":[{"site":"shop-9","values":{"port":"x"}}]}`,
	} {
		if err := w.client.Update(w.ctx, w.changed(a, spec), client.DryRunAll); err != nil {
			t.Errorf("%s: %v", why, err)
		}
	}
	err := w.client.Update(w.ctx, w.changed(a, `{"placement":{"sites":{"matchLabels":{"kind":"later"}}},"values":{"port":"x"}}`), client.DryRunAll)
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.values.port") {
		t.Errorf("values that are wrong at any site, of an app that has none: %v", err)
	}
}

// wrongValues gives the app what is wrong while the API server does not ask the hub.
func wrongValues(t *testing.T, w *world, a *v1alpha1.App, one, two *siteMember) {
	w.must(w.client.Delete(w.ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: hub.InfoConfigMap}}))
	w.eventually("the API server asks nobody", func() string {
		err := w.client.Update(w.ctx, w.changed(a, wrong[0].spec), client.DryRunAll)
		return unless(err == nil, fmt.Sprint(err))
	})
	sections := func() string { return string(one.Section(app.SectionName)) + string(two.Section(app.SectionName)) }
	before := sections()
	for _, tt := range wrong {
		w.change(a, tt.spec)
		w.stopped(a, tt.reason, tt.says)
		if sections() != before {
			t.Errorf("%s: a site was told of something else", tt.why)
			before = sections()
		}
	}
	var releases v1alpha1.ReleaseList
	w.must(w.client.List(w.ctx, &releases))
	for _, r := range releases.Items {
		if c := r.Spec.Config; c != nil && c.Values != nil && strings.Contains(string(c.Values.Raw), `"x"`) {
			t.Errorf("release %s holds what was never told: %s", r.Name, c.Values.Raw)
		}
	}
	w.change(a, `{"files":null,"overrides":null,"env":null,"values":{"port":3}}`)
	w.told(`{"greeting":"hello","port":3,"tls":{"on":false}}`, one, two)
}

// wrongSite gives a site a label by which it gets what the schema does not allow.
func wrongSite(t *testing.T, w *world, a *v1alpha1.App, one, two *siteMember) {
	w.change(a, `{"overrides":[{"sites":{"matchLabels":{"tier":"odd"}},"values":{"port":"x"}}]}`)
	w.eventually("the release with the override", func() string {
		one.runs(fleet.PhaseRunning)
		two.runs(fleet.PhaseRunning)
		w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(a), a))
		return unless(a.Status.Sites == v1alpha1.SiteCounts{Placed: 2, Updated: 2, Healthy: 2} && a.Status.ObservedGeneration == a.Generation, fmt.Sprintf("%+v", a.Status))
	})
	before := two.told()["hello"]
	label := func(tier string) {
		w.must(w.client.Patch(w.ctx, hubtest.Labelled("shop-2", nil), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"tier":"`+tier+`"}}}`))))
	}
	label("odd")
	w.expect(a, v1alpha1.ReasonSitesFailing, v1alpha1.SiteCounts{Placed: 2, Updated: 1, Healthy: 1, Failed: 1})
	if f := a.Status.Failing; len(f) != 1 || f[0].Site != "shop-2" || !strings.Contains(f[0].Message, "spec.overrides[0].values.port: got string") {
		t.Errorf("failing sites are %+v", f)
	}
	if now := two.told()["hello"]; now.Digest != before.Digest {
		t.Error("shop-2 is told of something else")
	}
	label("medium")
	w.eventually("shop-2 is well again", func() string {
		two.runs(fleet.PhaseRunning)
		w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(a), a))
		return unless(a.Status.Sites.Healthy == 2, fmt.Sprintf("%+v", a.Status))
	})
	w.change(a, `{"overrides":null}`)
	w.told(`{"greeting":"hello","port":3,"tls":{"on":false}}`, one, two)
}

// TestSectionTooLarge gives one site more configuration than it can be told, and another one less.
func TestSectionTooLarge(t *testing.T) {
	w := newWorld(t)
	w.grant()
	crowded, free := w.site("shop-1", map[string]string{"kind": "shop", "crowded": "yes"}), w.site("shop-2", map[string]string{"kind": "shop"})
	w.shelf.put("default/hello", "1.0.0")
	content := strings.Repeat("x", 60<<10)
	for n := range 4 {
		a := w.app(fmt.Sprintf("large-%d", n), "hello:1.0.0", map[string]string{"crowded": "yes"})
		w.change(a, `{"files":[{"path":"a","content":"`+content+`"}]}`)
		w.eventually(a.Name, func() string { return unless(crowded.told()[a.Name].Config != nil, "is not told") })
	}
	a := w.app("last", "hello:1.0.0", map[string]string{"kind": "shop"})
	w.eventually("the last app", func() string {
		return unless(len(crowded.told()) == 5 && len(free.told()) == 1, "is not told")
	})
	crowded.runs(fleet.PhaseRunning)
	free.runs(fleet.PhaseRunning)
	before := crowded.told()["last"]
	w.change(a, `{"values":{"a":"`+content+`"},"update":{"maxUnavailable":2}}`)
	w.stopped(a, v1alpha1.ReasonSectionTooLarge, "site shop-1 cannot be told of more", "262144")
	w.eventually("the site that has room", func() string { return unless(free.told()["last"].Config != nil, "is not told") })
	if now := crowded.told()["last"]; now.Digest != before.Digest || len(crowded.told()) != 5 {
		t.Errorf("shop-1 is told of %s, before of %s, and of %d apps", now.Release, before.Release, len(crowded.told()))
	}
	var gone v1alpha1.App
	w.must(w.client.Get(w.ctx, types.NamespacedName{Namespace: "default", Name: "large-0"}, &gone))
	w.must(w.client.Delete(w.ctx, &gone))
	w.eventually("the site that has room again", func() string { return unless(crowded.told()["last"].Config != nil, "is not told") })
}
