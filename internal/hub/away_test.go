package hub_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// join makes a site of a zone with its member.
func (r *running) join(name, zone string) {
	r.t.Helper()
	site := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SiteSpec{Zone: zone}}
	if err := r.client.Create(r.t.Context(), site); err != nil {
		r.t.Fatal(err)
	}
	r.change(name, true, func(s *v1alpha1.Site) {
		s.Status.Members = []v1alpha1.SiteMember{{ID: "m-1", PublicKey: make([]byte, 32)}}
	})
}

func (r *running) alive(name fleet.SiteName, last wire.Alive) {
	r.t.Helper()
	data, err := wire.EncodeJSON("alive", last)
	if err == nil {
		err = r.bus.Publish(r.t.Context(), wire.AliveSubject(name, "m-1"), data)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// hears lets a site report what it hears of its neighbours.
func (r *running) hears(name fleet.SiteName, sequence uint64, neighbours map[fleet.SiteName]bool) {
	r.t.Helper()
	data, err := wire.Report{Site: name, Member: "m-1", Epoch: "E", Sequence: sequence, Neighbours: neighbours}.Encode()
	if err == nil {
		_, err = r.bus.Put(r.t.Context(), wire.ReportSubject(name, "m-1"), data, wire.AnyRevision)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) wantBelief(name, belief, why string) *v1alpha1.SiteAway {
	r.t.Helper()
	var away *v1alpha1.SiteAway
	r.eventually("what is believed of "+name, func() string {
		s, reason := r.reason(name)
		if away = s.Status.Away; away == nil {
			return reason + ", and no belief"
		}
		message := ""
		for _, c := range s.Status.Conditions {
			message += c.Message
		}
		if away.Belief != belief || !strings.Contains(away.Why, why) || !strings.Contains(message, why) {
			return fmt.Sprintf("%+v, message %q; want %s and %q", *away, message, belief, why)
		}
		return ""
	})
	return away
}

// zoneEvents counts the events of zones by reason.
func zoneEvents(t *testing.T, api *kubetest.Server) map[string]int {
	t.Helper()
	list, err := kubernetes.NewForConfigOrDie(api.Config).CoreV1().Events(hub.SystemNamespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, e := range list.Items {
		if e.InvolvedObject.Name == hub.InfoConfigMap && (e.Type == corev1.EventTypeWarning) == (e.Reason == "ZoneSilent") {
			counts[e.Reason]++
		}
	}
	return counts
}

func testAway(t *testing.T, api *kubetest.Server) {
	r := runHub(t, api, membus.New())
	defer r.stop()
	north := []string{"north-1", "north-2", "north-3", "north-4"}
	for _, name := range append(north, "south-1") {
		r.join(name, name[:5])
		r.speak(fleet.SiteName(name), 1, false, false)
		r.wantReason(name, "True Connected")
	}

	// One site, and what is known of it bit by bit.
	r.alive("north-1", wire.Alive{Leaving: true, Reason: fleet.LeavingReboot})
	r.wantBelief("north-1", "Restarting", "its machine restarts")
	r.hears("north-2", 2, map[fleet.SiteName]bool{"north-1": true})
	r.wantBelief("north-1", "LinkDown", "neighbour north-2 hears it")
	r.hears("north-2", 3, map[fleet.SiteName]bool{"north-1": false})
	r.wantBelief("north-1", "Restarting", "its machine restarts")
	r.clock.pass(20 * time.Second)
	for _, name := range append(north[1:], "south-1") {
		r.alive(fleet.SiteName(name), wire.Alive{})
	}
	r.alive("north-1", wire.Alive{})
	if s := r.wantReason("north-1", "True Connected"); s.Status.Away != nil {
		t.Errorf("a site that is back is %+v", s.Status.Away)
	}
	r.feature.host.Fleet.Transport("north-1", fleet.TransportOpen)
	r.clock.pass(20 * time.Second)
	for _, name := range append(north[1:], "south-1") {
		r.alive(fleet.SiteName(name), wire.Alive{})
	}
	r.clock.pass(15 * time.Second)
	since := r.wantBelief("north-1", "SiteDown", "neighbour north-2 is connected and does not hear it").Since
	if silent := r.clock.now().Sub(since.Time); silent < 30*time.Second || silent > time.Minute+patience {
		t.Errorf("it is silent since %v", since)
	}
	r.hears("north-2", 4, nil)
	r.wantBelief("north-1", "Unknown", "power or network")
	r.feature.host.Fleet.Transport("north-1", fleet.TransportClosed)
	r.wantBelief("north-1", "AgentDown", "without a word")
	if n := zoneEvents(t, api); len(n) != 0 {
		t.Errorf("one site is no zone: %v", n)
	}

	// Then all of the north, and nobody else.
	r.clock.pass(20 * time.Second)
	r.alive("south-1", wire.Alive{})
	for _, name := range north {
		away := r.wantBelief(name, "LinkDown", "sites of zone north fell silent together")
		if away.Zone != "north" {
			t.Errorf("%s is away with zone %q", name, away.Zone)
		}
	}
	r.wantReason("south-1", "True Connected")
	r.eventually("one event", func() string {
		if n := zoneEvents(t, api); n["ZoneSilent"] != 1 || n["ZoneBack"] != 0 {
			return fmt.Sprint(n)
		}
		return ""
	})
	for _, name := range north {
		r.alive(fleet.SiteName(name), wire.Alive{})
	}
	for _, name := range north {
		r.wantReason(name, "True Connected")
	}
	r.eventually("one event of its end", func() string {
		if n := zoneEvents(t, api); n["ZoneSilent"] != 1 || n["ZoneBack"] != 1 {
			return fmt.Sprint(n)
		}
		return ""
	})
}
