package apphub_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// TestRoutes lets apps want one route at two sites. The one that came first keeps it, whatever the names.
func TestRoutes(t *testing.T) {
	w := newWorld(t)
	w.grant()
	sites := []*siteMember{w.site("shop-1", map[string]string{"kind": "shop"}), w.site("shop-2", map[string]string{"kind": "shop", "big": "yes"})}
	settle := func() {
		for _, s := range sites {
			s.runs(fleet.PhaseRunning)
		}
	}
	w.shelf.put("default/hello", "1.0.0")
	w.shelf.put("default/hello", "2.0.0")
	first := w.app("second", "hello:1.0.0", map[string]string{"big": "yes"})
	w.route(first, `{"path":"/pay"}`)
	w.eventually("the first app", func() string { return unless(sites[1].told()["second"].Route != nil, "is not told") })
	settle()
	w.expect(first, v1alpha1.ReasonReady, v1alpha1.SiteCounts{Placed: 1, Updated: 1, Healthy: 1})

	late := w.app("first", "hello:1.0.0", map[string]string{"kind": "shop"})
	w.eventually("the late app without a route", func() string {
		return unless(len(sites[0].told()) == 1 && len(sites[1].told()) == 2, "is not told everywhere")
	})
	w.route(late, `{"path":"/pay"}`)
	for range 2 { // one site at a time
		w.eventually("the late app with its route at shop-1", func() string {
			r := sites[0].told()["first"].Route
			return unless(r != nil && r.Path == "/pay", "is not told")
		})
		settle()
	}
	w.expect(late, v1alpha1.ReasonSitesFailing, v1alpha1.SiteCounts{Placed: 2, Updated: 1, Healthy: 1, Failed: 1})
	if f := late.Status.Failing; len(f) != 1 || f[0].Site != "shop-2" || !strings.Contains(f[0].Message, "/pay belongs to app default/second") {
		t.Errorf("failing sites are %+v", f)
	}
	if r := sites[1].told()["first"].Route; r != nil {
		t.Errorf("shop-2 is told of two apps with route %+v", r)
	}

	w.must(w.client.Patch(w.ctx, first, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"source":{"bundle":"hello:2.0.0"}}}`))))
	w.eventually("an update of the app that has the route", func() string {
		v := sites[1].told()["second"].Version
		return unless(v == "2.0.0", "shop-2 is told "+v)
	})
	settle()
	w.must(w.client.Delete(w.ctx, first))
	w.eventually("the late app gets the route once it is free", func() string {
		settle()
		told := sites[1].told()
		return unless(len(told) == 1 && told["first"].Route != nil, fmt.Sprintf("shop-2 is told %+v", told))
	})
	settle()
	w.expect(late, v1alpha1.ReasonReady, v1alpha1.SiteCounts{Placed: 2, Updated: 2, Healthy: 2})
}

// route sets the app's route, given in JSON.
func (w *world) route(a *v1alpha1.App, route string) {
	w.t.Helper()
	w.must(w.client.Patch(w.ctx, a, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"route":`+route+`}}`))))
}

// TestAway places an app where nobody is, and releases more versions than are kept.
func TestAway(t *testing.T) {
	w := newWorld(t)
	w.grant()
	w.shelf.put("default/hello", "1")
	site := w.site("shop-1", map[string]string{"kind": "shop"})
	site.Alive(true)
	a := w.app("hello", "hello:1", map[string]string{"kind": "shop"})
	w.expect(a, v1alpha1.ReasonSitesAway, v1alpha1.SiteCounts{Placed: 1, Updated: 1, Waiting: 1})
	for _, c := range a.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady && c.Status != "Unknown" {
			t.Errorf("an app of which nothing is known is Ready=%s", c.Status)
		}
	}
	site.Alive(false)
	site.runs(fleet.PhaseRunning)
	w.expect(a, v1alpha1.ReasonReady, v1alpha1.SiteCounts{Placed: 1, Updated: 1, Healthy: 1})

	t.Run("old releases go, what a site is told to run stays", func(t *testing.T) {
		var versions []string
		for n := 2; n <= 14; n++ {
			version := fmt.Sprint(n)
			w.shelf.put("default/hello", version)
			setBundle(w, a, "hello:"+version)
			w.eventually("release of "+version, func() string {
				w.must(w.client.Get(w.ctx, client.ObjectKeyFromObject(a), a))
				return unless(a.Status.Version == version, "status says "+a.Status.Version)
			})
		}
		w.eventually("releases", func() string {
			var list v1alpha1.ReleaseList
			w.must(w.client.List(w.ctx, &list))
			versions = versions[:0]
			for _, r := range list.Items {
				versions = append(versions, r.Spec.Bundle.Version)
			}
			return unless(len(list.Items) <= 12, fmt.Sprintf("%d are left", len(list.Items)))
		})
		kept := strings.Join(versions, " ") + " "
		for _, want := range []string{site.told()["hello"].Version, "14"} {
			if !strings.Contains(kept, want+" ") {
				t.Errorf("release %s is gone, left are %s", want, kept)
			}
		}
		if len(versions) < 11 {
			t.Errorf("only %d releases are left, 10 should be kept beside the newest", len(versions))
		}
	})
}
