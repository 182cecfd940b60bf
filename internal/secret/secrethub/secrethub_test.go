package secrethub_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
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
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/secret"
	"github.com/skerry-dev/skerry/internal/wire"
)

// needs is an App of a namespace that runs where the label shop is "yes".
func (w *world) needs(namespace, name string, refs ...v1alpha1.SecretRef) *v1alpha1.App {
	w.t.Helper()
	a := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.AppSpec{
		Source:     v1alpha1.AppSource{Bundle: name + ":1"},
		Placement:  v1alpha1.Placement{Sites: metav1.LabelSelector{MatchLabels: map[string]string{"shop": "yes"}}},
		SecretRefs: refs,
	}}
	w.must(w.client.Create(w.ctx, a))
	return a
}

func key(name, k string) v1alpha1.SecretRef {
	return v1alpha1.SecretRef{Name: name, Env: []v1alpha1.SecretEnv{{Name: "DB_PASSWORD", Key: v1alpha1.SecretKey(k)}}}
}

// put makes or changes a Secret.
func (w *world) put(namespace, name string, values map[string]string) {
	w.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	err := w.client.Get(w.ctx, client.ObjectKeyFromObject(s), s)
	missing := client.IgnoreNotFound(err) == nil && err != nil
	s.Data = map[string][]byte{}
	for k, v := range values {
		s.Data[k] = []byte(v)
	}
	if missing {
		w.must(w.client.Create(w.ctx, s))
		return
	}
	w.must(err)
	w.must(w.client.Update(w.ctx, s))
}

func (w *world) remove(namespace, name string) {
	w.t.Helper()
	w.must(w.client.Delete(w.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}))
}

// says waits until a condition of the app has the reason and its message holds text. No reason: it is absent.
func (w *world) says(a *v1alpha1.App, kind, reason, text string) {
	w.t.Helper()
	w.eventually("condition "+kind+" of "+a.Name, func() string {
		w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(a), a))
		c := meta.FindStatusCondition(a.Status.Conditions, kind)
		switch {
		case reason == "" && c != nil, reason != "" && (c == nil || c.Reason != reason || !strings.Contains(c.Message, text)):
			return fmt.Sprintf("want %q %q, it is %+v", reason, text, c)
		}
		return ""
	})
}

// gets waits until the machine can open just these values.
func (m *machine) gets(what string, want map[string]string) {
	m.w.t.Helper()
	m.w.eventually(what, func() string { return cmp.Diff(want, m.opens()) })
}

func (w *world) patch(obj client.Object, patch string) {
	w.t.Helper()
	w.must(w.client.Patch(w.ctx, obj, client.RawPatch(types.MergePatchType, []byte(patch))))
}

func none() map[string]string { return map[string]string{} }

// TestSecrets walks Secrets through their life at two sites: starting a hub takes seconds, so the steps share
// one.
func TestSecrets(t *testing.T) {
	w := newWorld(t)
	w.must(w.client.Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}}))
	w.must(w.client.Create(w.ctx, &v1alpha1.SiteGrant{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: v1alpha1.SiteGrantSpec{
		Namespaces: []string{"*"}, Runtimes: []string{"process"},
	}}))
	shop := w.site("shop-1", map[string]string{"shop": "yes"})
	depot := w.site("depot", nil)

	w.put("other", "db", map[string]string{"password": "plain-of-another-namespace"})
	a := w.needs("default", "till", key("db", "password"))
	w.says(a, "Ready", v1alpha1.ReasonSecretNotFound, "there is no Secret db in namespace default")
	w.says(a, "Stalled", v1alpha1.ReasonSecretNotFound, "")
	w.put("default", "db", map[string]string{"user": "plain-ana"})
	w.says(a, "Ready", v1alpha1.ReasonSecretNotFound, `Secret db in namespace default has no key "password"`)
	if told := shop.told(); len(told) != 0 {
		t.Errorf("the site was told of an app that has to wait: %v", told)
	}
	w.put("default", "db", map[string]string{"user": "plain-ana", "password": "plain-one"})
	one := map[string]string{"default/db/password": "plain-one"}
	shop.gets("the key that is named, and no other", one)
	shop.runs()
	w.says(a, "Ready", v1alpha1.ReasonReady, "")
	w.says(a, v1alpha1.ConditionSecretMissing, "", "")
	if m := depot.manifest(); m.Generation != 0 {
		t.Errorf("a site that does not run the app was told %+v", m)
	}

	t.Run("a restart of the hub writes nothing", func(t *testing.T) {
		before := shop.manifest()
		w.stop()
		w.start()
		shop.alive()
		shop.runs()
		w.says(a, "Ready", v1alpha1.ReasonReady, "")
		// Another app comes after the first one's secrets were looked at; it needs none.
		b := w.needs("default", "plain")
		w.eventually("the second app", func() string {
			if len(shop.told()) != 2 {
				return "not told"
			}
			return ""
		})
		after := shop.manifest()
		if after.Generation != before.Generation+1 || after.Sections[secret.SectionName] != before.Sections[secret.SectionName] {
			t.Errorf("manifest was %+v and is %+v: want another section of apps alone", before, after)
		}
		w.must(w.client.Delete(w.ctx, b))
	})
	t.Run("a changed value is the same release", func(t *testing.T) {
		release := shop.told()["till"].Digest
		w.put("default", "db", map[string]string{"password": "plain-two"})
		shop.gets("the new value", map[string]string{"default/db/password": "plain-two"})
		if now := shop.told()["till"].Digest; now != release {
			t.Errorf("release was %s and is %s", release, now)
		}
	})
	t.Run("an app gets the Secrets of its own namespace alone", func(t *testing.T) {
		b := w.needs("other", "till", key("db", "password"))
		shop.gets("both, each its own", map[string]string{"default/db/password": "plain-two", "other/db/password": "plain-of-another-namespace"})
		w.must(w.client.Delete(w.ctx, b))
		shop.gets("withdrawn with the app", map[string]string{"default/db/password": "plain-two"})
	})
	t.Run("a new machine gets everything sealed to its own key", func(t *testing.T) {
		shop.join("m-2")
		shop.gets("sealed to the new member alone", map[string]string{"default/db/password": "plain-two"})
		shop.runs()
	})
	t.Run("a machine without a key is said, once", func(t *testing.T) {
		bus := w.broker.Client()
		defer bus.Close()
		blank := hubtest.NewSite(t, w.client, bus, hubtest.Labelled("blank", map[string]string{"shop": "yes"}))
		w.says(a, "Ready", v1alpha1.ReasonSecretsUndelivered, "site blank: Secret db: it cannot be sealed to member m1")
		before := blank.Section(wire.ManifestSection)
		site := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "blank"}}
		w.patch(site, `{"metadata":{"annotations":{"looked":"at again"}}}`)
		w.put("default", "unrelated", nil)
		w.patch(site, `{"metadata":{"labels":{"shop":null}}}`)
		w.says(a, "Ready", v1alpha1.ReasonReady, "")
		if after := blank.Section(wire.ManifestSection); bytes.Equal(before, after) || !bytes.Contains(after, []byte(`"generation":4`)) {
			t.Errorf("app and secret came and went, which is four manifests; the last is %s", after)
		}
		w.must(w.client.Delete(w.ctx, site))
	})
	t.Run("a deleted Secret stays where it is, and goes nowhere else", func(t *testing.T) { deleted(t, w, a, shop, depot) })
	t.Run("an earlier release's secrets stay until the next one runs", func(t *testing.T) { settling(t, w, a, shop) })
	t.Run("what a site cannot open is said", func(t *testing.T) {
		shop.reports(secret.Report{Closed: map[string]string{"default/db": "because of the test", "other/x": "of no concern"}})
		w.says(a, "Ready", v1alpha1.ReasonSecretsUndelivered, "site shop-1: Secret db: the site cannot open it: because of the test")
		shop.runs()
		w.says(a, "Ready", v1alpha1.ReasonReady, "")
	})
	t.Run("what cannot be used is refused when it is applied", func(t *testing.T) {
		b := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "twice"}, Spec: v1alpha1.AppSpec{
			Source: v1alpha1.AppSource{Bundle: "twice:1"}, Placement: v1alpha1.Placement{Sites: metav1.LabelSelector{}},
			SecretRefs: []v1alpha1.SecretRef{key("db", "password"), key("dc", "password")},
		}}
		err := w.client.Create(w.ctx, b)
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), `spec.secretRefs[1]: Invalid value: "dc": env[0]: variable "DB_PASSWORD" is set twice`) {
			t.Errorf("one variable of two Secrets was answered with %v", err)
		}
	})
	t.Run("what does not fit is said", func(t *testing.T) { tooLarge(t, w, a, shop) })
	t.Run("a lost store is made anew, apps first", func(t *testing.T) { lost(t, w, a, shop) })
	t.Run("the bus never holds a value", func(t *testing.T) { grep(t, w) })
	t.Run("secrets leave with the app", func(t *testing.T) {
		w.must(w.client.Delete(w.ctx, a))
		shop.gets("nothing", none())
		w.eventually("the section", func() string {
			if _, ok := shop.manifest().Sections[secret.SectionName]; ok {
				return "it is still there"
			}
			return ""
		})
	})
}

func deleted(t *testing.T, w *world, a *v1alpha1.App, shop, depot *machine) {
	before := shop.manifest()
	w.remove("default", "db")
	w.says(a, v1alpha1.ConditionSecretMissing, v1alpha1.ReasonSecretNotFound, "there is no Secret db in namespace default")
	w.says(a, "Ready", v1alpha1.ReasonReady, "") // every site has a copy
	w.patch(&v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "depot"}}, `{"metadata":{"labels":{"shop":"yes"}}}`)
	w.says(a, "Ready", v1alpha1.ReasonSecretNotFound, "there is no Secret db")
	if len(depot.told()) != 0 || len(depot.opens()) != 0 {
		t.Errorf("a new site was told %v and can open %v", depot.told(), depot.opens())
	}
	if diff := cmp.Diff(before.Sections, shop.manifest().Sections); diff != "" {
		t.Errorf("what the site had changed (-before +after):\n%s", diff)
	}
	w.put("default", "db", map[string]string{"password": "plain-three"})
	for _, m := range []*machine{shop, depot} {
		m.gets("the new Secret of the old name", map[string]string{"default/db/password": "plain-three"})
		m.runs()
	}
	w.says(a, v1alpha1.ConditionSecretMissing, "", "")
	w.patch(&v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "depot"}}, `{"metadata":{"labels":null}}`)
	depot.gets("a site that does not run the app any more", none())

	optional := w.needs("default", "maybe", v1alpha1.SecretRef{Name: "extra", Optional: true})
	w.eventually("an app whose Secret is optional", func() string {
		if _, ok := shop.told()["maybe"]; !ok {
			return "not told"
		}
		return ""
	})
	three := map[string]string{"default/db/password": "plain-three"}
	w.put("default", "extra", map[string]string{"a": "plain-a", "b": "plain-b"})
	shop.gets("every key", map[string]string{"default/db/password": "plain-three", "default/extra/a": "plain-a", "default/extra/b": "plain-b"})
	w.remove("default", "extra")
	shop.gets("an optional Secret goes when it is deleted", three)
	w.must(w.client.Delete(w.ctx, optional))
}

func settling(t *testing.T, w *world, a *v1alpha1.App, shop *machine) {
	shop.runs()
	w.put("default", "next", map[string]string{"token": "plain-token"})
	three := map[string]string{"default/db/password": "plain-three"}
	w.patch(a, `{"spec":{"secretRefs":[{"name":"next"}]}}`)
	both := map[string]string{"default/db/password": "plain-three", "default/next/token": "plain-token"}
	shop.gets("both while the site runs the release before", both)
	w.stop()
	w.start() // it knows from the section what the release before needed
	shop.alive()
	if diff := cmp.Diff(both, shop.opens()); diff != "" {
		t.Errorf("after a restart of the hub (-want +got):\n%s", diff)
	}
	shop.runs()
	shop.gets("the new release's alone once it runs", map[string]string{"default/next/token": "plain-token"})
	w.patch(a, `{"spec":{"secretRefs":[{"name":"db","env":[{"name":"DB_PASSWORD","key":"password"}]}]}}`)
	w.eventually("the release", func() string { shop.runs(); return cmp.Diff(three, shop.opens()) })
}

func tooLarge(t *testing.T, w *world, a *v1alpha1.App, shop *machine) {
	big := strings.Repeat("x", 150<<10)
	w.put("default", "db", map[string]string{"password": big})
	shop.gets("what just fits", map[string]string{"default/db/password": big})
	w.put("default", "db", map[string]string{"password": strings.Repeat("y", 250<<10)})
	w.says(a, "Ready", v1alpha1.ReasonSecretsUndelivered, "site shop-1: Secret db: the secrets of a site's apps may take 256 KiB")
	shop.gets("the one before stays", map[string]string{"default/db/password": big})
	w.put("default", "big", map[string]string{"password": big})
	b := w.needs("default", "second", key("big", "password"))
	w.says(b, "Ready", v1alpha1.ReasonSecretsUndelivered, "Secret big")
	if diff := cmp.Diff(map[string]string{"default/db/password": big}, shop.opens()); diff != "" {
		t.Error("a new Secret pushed out what the site has")
	}
	w.put("default", "db", map[string]string{"password": "plain-four"})
	shop.gets("both, since the first became small", map[string]string{"default/db/password": "plain-four", "default/big/password": big})
	shop.runs()
	w.says(a, "Ready", v1alpha1.ReasonReady, "")
	w.says(b, "Ready", v1alpha1.ReasonReady, "")
	w.must(w.client.Delete(w.ctx, b))
	shop.gets("the first alone", map[string]string{"default/db/password": "plain-four"})
}

// lost loses what is stored for a site while no hub runs. A manifest with secrets and no apps would make the
// site remove its apps.
func lost(t *testing.T, w *world, a *v1alpha1.App, shop *machine) {
	w.stop()
	bus := w.broker.Client()
	defer bus.Close()
	w.must(bus.Purge(w.ctx, wire.DesiredPattern(shop.site)))
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		_ = bus.Watch(ctx, wire.DesiredSubject(shop.site, wire.ManifestSection), func(m wire.Message) {
			if m.Subject == "" {
				return
			}
			manifest, err := wire.DecodeManifest(m.Data)
			if err != nil {
				t.Error(err)
			}
			if _, ok := manifest.Sections["apps"]; !ok {
				t.Errorf("manifest %d names no apps: %+v", manifest.Generation, manifest.Sections)
			}
		})
	}()
	w.start()
	shop.alive()
	shop.gets("all of it is back", map[string]string{"default/db/password": "plain-four"})
	cancel()
	<-watched
	shop.runs()
	w.says(a, "Ready", v1alpha1.ReasonReady, "")
}

// grep looks for the values in everything that is stored for sites now.
func grep(t *testing.T, w *world) {
	bus := w.broker.Client()
	defer bus.Close()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	names := 0
	_ = bus.Watch(ctx, wire.AllDesired, func(m wire.Message) {
		if m.Subject == "" {
			cancel()
			return
		}
		names += bytes.Count(m.Data, []byte(`"password"`))
		for _, form := range []string{"plain-", hex.EncodeToString([]byte("plain-")), base64.RawStdEncoding.EncodeToString([]byte("plain-"))} {
			if bytes.Contains(m.Data, []byte(form)) {
				t.Errorf("%s holds a value: %s", m.Subject, m.Data)
			}
		}
	})
	if names == 0 {
		t.Error("the names of keys were not found: this test looks in the wrong place")
	}
}
