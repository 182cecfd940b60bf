package deliveryhub

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/delivery"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

type world struct {
	t     *testing.T
	hub   *hubtest.Hub
	sites map[string]*hubtest.Site
}

func newWorld(t *testing.T) *world {
	api := kubetest.Start(t)
	bus := membus.New().Client()
	t.Cleanup(bus.Close)
	w := &world{t: t, sites: map[string]*hubtest.Site{}}
	w.hub = hubtest.Start(t, hubtest.Options{API: api.Config, Bus: bus, Store: bus, Features: []hub.Feature{New()}})
	for i := range 9 {
		name := fmt.Sprintf("s%d", i)
		w.sites[name] = hubtest.NewSite(t, w.hub.Client, bus, &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return w
}

func (w *world) change(name string, fn func(*v1alpha1.Site)) {
	w.t.Helper()
	hubtest.Eventually(w.t, "change "+name, func() string {
		var s v1alpha1.Site
		err := w.hub.Client.Get(w.t.Context(), client.ObjectKey{Name: name}, &s)
		if err == nil {
			fn(&s)
			err = w.hub.Client.Update(w.t.Context(), &s)
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

// wantTold waits until a site is told exactly this; keys are left out.
func (w *world) wantTold(reason, name string, want delivery.Section) {
	w.t.Helper()
	hubtest.Eventually(w.t, reason, func() string {
		// A section that is gone stays stored; the manifest says whether it counts.
		var body []byte
		if m, err := wire.DecodeManifest(w.sites[name].Section(wire.ManifestSection)); err == nil && m.Sections[delivery.SectionName].Size > 0 {
			body = w.sites[name].Section(delivery.SectionName)
		}
		got, err := delivery.DecodeSection(body)
		if err != nil {
			return err.Error()
		}
		for i := range got.Neighbours {
			if len(got.Neighbours[i].Keys) != 1 {
				return fmt.Sprintf("%d keys of %s", len(got.Neighbours[i].Keys), got.Neighbours[i].Site)
			}
			got.Neighbours[i].Keys = nil
		}
		return cmp.Diff(want, got)
	})
}

func named(names ...fleet.SiteName) (out []delivery.Neighbour) {
	for _, n := range names {
		out = append(out, delivery.Neighbour{Site: n})
	}
	return out
}

func TestDelivery(t *testing.T) {
	w := newWorld(t)
	bandwidth := resource.MustParse("512Ki")
	w.change("s0", func(s *v1alpha1.Site) {
		s.Spec.TimeZone = "Europe/Berlin"
		s.Spec.Downloads = &v1alpha1.SiteDownloads{Bandwidth: &bandwidth, Hours: []v1alpha1.TimeWindow{{Days: []string{"mon"}, From: "22:00", To: "05:00"}}}
	})
	w.wantTold("bounds reach the site", "s0", delivery.Section{
		BytesPerSecond: 512 << 10, TimeZone: "Europe/Berlin", Hours: []delivery.Window{{Days: []string{"mon"}, From: "22:00", To: "05:00"}},
	})
	w.change("s0", func(s *v1alpha1.Site) { s.Spec.Downloads = nil })
	w.wantTold("and are taken away", "s0", delivery.Section{})

	for i := range 3 {
		w.change(fmt.Sprintf("s%d", i), func(s *v1alpha1.Site) { s.Spec.Network = "mall" })
	}
	w.wantTold("neighbours know each other", "s0", delivery.Section{Neighbours: named("s1", "s2")})
	w.sites["s2"].ReportModule(delivery.SectionName, delivery.Report{Addresses: []string{"192.0.2.2:7444", "metadata.internal:80", "0.0.0.0:1"}})
	told := named("s1", "s2")
	told[1].Addresses = []string{"192.0.2.2:7444"}
	w.wantTold("where one listens is told to the others, if it can be an address", "s0", delivery.Section{Neighbours: told})
	w.sites["s2"].ReportModule(delivery.SectionName, delivery.Report{})
	w.wantTold("it listens no more", "s1", delivery.Section{Neighbours: named("s0", "s2")})
	w.change("s2", func(s *v1alpha1.Site) { s.Spec.RevokedMembers = []string{string(hubtest.Member)} })
	w.wantTold("a machine that may not connect is nobody's neighbour", "s0", delivery.Section{Neighbours: named("s1")})
	w.change("s2", func(s *v1alpha1.Site) { s.Spec.RevokedMembers = nil })

	for i := range 9 {
		w.change(fmt.Sprintf("s%d", i), func(s *v1alpha1.Site) { s.Spec.Network = "mall" })
	}
	w.wantTold("of many those that are near in the ring of names", "s0", delivery.Section{Neighbours: named("s1", "s2", "s3", "s6", "s7", "s8")})
	w.wantTold("both ways", "s6", delivery.Section{Neighbours: named("s0", "s3", "s4", "s5", "s7", "s8")})
	if err := w.hub.Client.Delete(t.Context(), &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "s8"}}); err != nil {
		t.Fatal(err)
	}
	w.wantTold("one that goes is nobody's", "s0", delivery.Section{Neighbours: named("s1", "s2", "s3", "s5", "s6", "s7")})
	w.change("s1", func(s *v1alpha1.Site) { s.Spec.Network = "street" })
	w.wantTold("one that moves has new ones", "s1", delivery.Section{})
	w.wantTold("and its old ones others", "s0", delivery.Section{Neighbours: named("s2", "s3", "s4", "s5", "s6", "s7")})

	low := resource.MustParse("100")
	for _, row := range []struct {
		reason string
		spec   v1alpha1.SiteSpec
		field  string
	}{
		{"too little to arrive", v1alpha1.SiteSpec{Downloads: &v1alpha1.SiteDownloads{Bandwidth: &low}}, "bandwidth"},
		{"no time of day", v1alpha1.SiteSpec{Downloads: &v1alpha1.SiteDownloads{Hours: []v1alpha1.TimeWindow{{From: "25:00", To: "05:00"}}}}, "from"},
		{"no day", v1alpha1.SiteSpec{Downloads: &v1alpha1.SiteDownloads{Hours: []v1alpha1.TimeWindow{{Days: []string{"monday"}, From: "22:00", To: "05:00"}}}}, "days"},
		{"no time at all", v1alpha1.SiteSpec{Downloads: &v1alpha1.SiteDownloads{Hours: []v1alpha1.TimeWindow{{From: "22:00", To: "22:00"}}}}, "no time at all"},
		{"no network", v1alpha1.SiteSpec{Network: "a b"}, "network"},
	} {
		err := w.hub.Client.Create(t.Context(), &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "wrong"}, Spec: row.spec}, client.DryRunAll)
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), row.field) {
			t.Errorf("%s: the API says %v, want %q", row.reason, err, row.field)
		}
	}
}
