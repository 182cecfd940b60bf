package apphub_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// TestApp walks one app through its life at three sites: starting a hub takes seconds, so the steps share
// one.
func TestApp(t *testing.T) {
	w := newWorld(t)
	shop := map[string]string{"kind": "shop"}
	sites := []*siteMember{w.site("shop-1", shop), w.site("shop-2", shop), w.site("shop-3", shop)}
	w.site("depot", map[string]string{"kind": "depot"})
	w.grant()
	a := w.app("hello", "hello:1.0.0", shop)

	w.expect(a, v1alpha1.ReasonBundleNotFound, v1alpha1.SiteCounts{})
	w.must(w.client.DeleteAllOf(w.ctx, &v1alpha1.SiteGrant{}))
	w.shelf.put("default/hello", "1.0.0")
	w.expect(a, v1alpha1.ReasonNotGranted, v1alpha1.SiteCounts{})
	w.grant()
	w.expect(a, v1alpha1.ReasonProgressing, v1alpha1.SiteCounts{Placed: 3, Updated: 3, Progressing: 3})
	for _, s := range sites {
		s.runs(fleet.PhaseRunning)
	}
	w.expect(a, v1alpha1.ReasonReady, v1alpha1.SiteCounts{Placed: 3, Updated: 3, Healthy: 3})
	if got := len(a.Status.Conditions); got != 1 {
		t.Errorf("a ready app has %d conditions, want Ready alone: %+v", got, a.Status.Conditions)
	}

	t.Run("an update reaches one site at a time", func(t *testing.T) { updateOneByOne(t, w, a, sites) })
	t.Run("a restart of the hub is no news", func(t *testing.T) { quietRestart(t, w, a, sites) })
	t.Run("a release that fails stops at the first site", func(t *testing.T) { failingRelease(t, w, a, sites) })
	t.Run("another hub goes on where this one was", func(t *testing.T) {
		w.stop()
		w.start()
		for _, s := range sites {
			s.Alive(false)
		}
		w.shelf.put("default/hello", "4.0.0")
		setBundle(w, a, "hello:4.0.0")
		w.eventually("4.0.0 everywhere", func() string {
			for _, s := range sites {
				s.runs(fleet.PhaseRunning)
				if v := s.told()["hello"].Version; v != "4.0.0" {
					return string(s.Name) + " is told " + v
				}
			}
			return ""
		})
	})
	t.Run("a lost section is made anew as a whole", func(t *testing.T) { lostSection(t, w, sites) })
	t.Run("a site that leaves is waited for, not failed", func(t *testing.T) {
		sites[2].Alive(true)
		w.expect(a, v1alpha1.ReasonReady, v1alpha1.SiteCounts{Placed: 3, Updated: 3, Healthy: 2, Waiting: 1})
		sites[2].Alive(false)
	})
	t.Run("a site that loses the label loses the app", func(t *testing.T) {
		var s v1alpha1.Site
		w.must(w.client.Get(w.ctx, client.ObjectKey{Name: "shop-3"}, &s))
		w.must(w.client.Patch(w.ctx, &s, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":null}}`))))
		w.eventually("shop-3", func() string { return unless(len(sites[2].told()) == 0, "still told of the app") })
	})
	t.Run("the view says where it stands, to those who may know", func(t *testing.T) { views(t, w) })
	t.Run("a deleted app leaves every site, and its releases go", func(t *testing.T) {
		w.must(w.client.Delete(w.ctx, a))
		w.eventually("sites", func() string {
			return unless(len(sites[0].told()) == 0 && len(sites[1].told()) == 0, "still told of the app")
		})
		w.eventually("releases", func() string {
			var list v1alpha1.ReleaseList
			w.must(w.client.List(w.ctx, &list))
			return unless(len(list.Items) == 0, fmt.Sprintf("%d are left", len(list.Items)))
		})
	})
	t.Run("a deleted site is asked to wipe itself and then goes", func(t *testing.T) { deleteSite(t, w, sites[0]) })
}

func unless(ok bool, wrong string) string {
	if ok {
		return ""
	}
	return wrong
}

func setBundle(w *world, a *v1alpha1.App, bundle string) {
	w.t.Helper()
	w.must(w.client.Patch(w.ctx, a, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"source":{"bundle":"`+bundle+`"}}}`))))
}

func updateOneByOne(t *testing.T, w *world, a *v1alpha1.App, sites []*siteMember) {
	w.shelf.put("default/hello", "2.0.0")
	setBundle(w, a, "hello:2.0.0")
	for n := range sites {
		w.expect(a, v1alpha1.ReasonProgressing, v1alpha1.SiteCounts{Placed: 3, Updated: int32(n + 1), Healthy: int32(n), Progressing: int32(3 - n)})
		sites[n].runs(fleet.PhaseStarting)
		for i, s := range sites {
			want := "1.0.0"
			if i <= n {
				want = "2.0.0"
			}
			if got := s.told()["hello"].Version; got != want {
				t.Fatalf("with %d sites updated %s is told %s, want %s", n, s.Name, got, want)
			}
		}
		sites[n].runs(fleet.PhaseRunning)
	}
	w.expect(a, v1alpha1.ReasonReady, v1alpha1.SiteCounts{Placed: 3, Updated: 3, Healthy: 3})
}

// quietRestart starts another hub and checks that the app's condition did not change on the way.
func quietRestart(t *testing.T, w *world, a *v1alpha1.App, sites []*siteMember) {
	before := *meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
	w.stop()
	w.start()
	// Whatever the new hub reads first, it begins with no site heard of.
	w.must(w.client.Patch(w.ctx, a, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"touched":"yes"}}}`))))
	for _, s := range sites {
		s.Alive(false)
		s.runs(fleet.PhaseRunning)
	}
	w.expect(a, v1alpha1.ReasonReady, v1alpha1.SiteCounts{Placed: 3, Updated: 3, Healthy: 3})
	after := *meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the condition changed because the hub was restarted (-before +after):\n%s", diff)
	}
}

// lostSection loses what is stored for a site while no hub runs. The next one must not tell the site of one
// app before the other: the site would remove what it is not told of.
func lostSection(t *testing.T, w *world, sites []*siteMember) {
	w.shelf.put("default/other", "1.0.0")
	other := w.app("other", "other:1.0.0", map[string]string{"kind": "shop"})
	w.eventually("the second app at shop-1", func() string { return unless(len(sites[0].told()) == 2, "not told") })
	w.eventually("the second app's release", func() string {
		w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(other), other))
		return unless(other.Status.Release != "", "not in its status")
	})
	w.stop()
	// What cannot be resolved when the section is made anew runs on all the same.
	w.shelf.mu.Lock()
	delete(w.shelf.bundles, "default/other:1.0.0")
	w.shelf.mu.Unlock()
	bus := w.broker.Client()
	w.must(bus.Purge(w.ctx, wire.DesiredPattern(sites[0].Name)))
	w.start()
	for _, s := range sites {
		s.Alive(false)
	}
	w.eventually("both apps at shop-1", func() string { return unless(len(sites[0].told()) == 2, "not told") })
	msg, err := bus.Get(w.ctx, wire.DesiredSubject(sites[0].Name, wire.ManifestSection))
	w.must(err)
	manifest, err := wire.DecodeManifest(msg.Data)
	w.must(err)
	if manifest.Generation != 1 {
		t.Errorf("both apps came with generation %d: on the way the site was told of one alone", manifest.Generation)
	}
	w.must(w.client.Delete(w.ctx, other))
	w.eventually("one app at shop-1", func() string { return unless(len(sites[0].told()) == 1, "still told of both") })
	for _, s := range sites {
		s.runs(fleet.PhaseRunning)
	}
}

func failingRelease(t *testing.T, w *world, a *v1alpha1.App, sites []*siteMember) {
	w.shelf.put("default/hello", "3.0.0")
	setBundle(w, a, "hello:3.0.0")
	w.eventually("shop-1", func() string { return unless(sites[0].told()["hello"].Version == "3.0.0", "not told") })
	sites[0].runs(fleet.PhaseFailed)
	w.expect(a, v1alpha1.ReasonSitesFailing, v1alpha1.SiteCounts{Placed: 3, Updated: 1, Failed: 1, Progressing: 2})
	if got := sites[1].told()["hello"].Version; got != "2.0.0" {
		t.Errorf("after a failure at shop-1 shop-2 is told %s, want 2.0.0", got)
	}
	if len(a.Status.Failing) != 1 || a.Status.Failing[0].Site != "shop-1" || a.Status.Failing[0].Message != "because of the test" {
		t.Errorf("failing sites are %+v", a.Status.Failing)
	}
}

func views(t *testing.T, w *world) {
	config := rest.CopyConfig(w.config)
	config.Host = w.URL
	var info struct {
		Data map[string]string `json:"data"`
	}
	raw, err := restGet(w, w.config, "/api/v1/namespaces/skerry-system/configmaps/skerry-hub")
	w.must(err)
	w.must(json.Unmarshal(raw, &info))
	config.CAFile, config.CAData = "", []byte(info.Data["ca"])
	raw, err = restGet(w, config, "/view/v1/namespaces/default/apps/hello/status")
	w.must(err)
	var view app.StatusView
	w.must(json.Unmarshal(raw, &view))
	if len(view.Sites) != 2 || !view.Sites[0].Healthy || view.Sites[0].Desired.Version != "4.0.0" {
		t.Errorf("view is %+v", view)
	}
	nobody := rest.AnonymousClientConfig(config)
	if _, err := restGet(w, nobody, "/view/v1/namespaces/default/apps/hello/status"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("an anonymous caller got %v, want 401", err)
	}
	if _, err := restGet(w, config, "/view/v1/namespaces/default/apps/nothing/status"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an app that is not there got %v, want 404", err)
	}
}

func restGet(w *world, config *rest.Config, path string) ([]byte, error) {
	c, err := rest.HTTPClientFor(config)
	w.must(err)
	res, err := c.Get(config.Host + path)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, data)
	}
	return data, err
}

func deleteSite(t *testing.T, w *world, s *siteMember) {
	var site v1alpha1.Site
	key := client.ObjectKey{Name: string(s.Name)}
	w.must(w.client.Get(w.ctx, key, &site))
	w.must(w.client.Delete(w.ctx, &site))
	w.eventually("manifest", func() string {
		m, err := w.sites.Get(w.ctx, wire.DesiredSubject(s.Name, wire.ManifestSection))
		if err != nil {
			return err.Error()
		}
		manifest, err := wire.DecodeManifest(m.Data)
		w.must(err)
		return unless(manifest.Wipe, "does not ask to wipe")
	})
	if err := w.client.Get(w.ctx, key, &site); err != nil {
		t.Fatalf("the site went before it said that it is wiped: %v", err)
	}
	s.Report(wire.Report{Wiped: true})
	w.eventually("site", func() string { return unless(apierrors.IsNotFound(w.client.Get(w.ctx, key, &site)), "still there") })
	if _, err := w.sites.Get(w.ctx, wire.DesiredSubject(s.Name, wire.ManifestSection)); err == nil {
		t.Error("the manifest of a site that is gone is still stored")
	}
}
