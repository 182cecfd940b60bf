package apitest

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	skerryapp "github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/apphub"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// kstatus asks the library by which Flux, Helm and kpt wait for objects.
func kstatus(u *unstructured.Unstructured) string {
	result, err := status.Compute(u)
	if err != nil {
		return err.Error()
	}
	return string(result.Status)
}

// argoOf is what Argo CD should show where kstatus says the key; it does not ask of what is deleted.
var argoOf = map[string]string{"Current": "Healthy", "InProgress": "Progressing", "Failed": "Degraded"}

// shelf is a registry that has every bundle that is asked for.
type shelf struct{}

func (shelf) OnPush(func(string)) {}

func (shelf) Resolve(_ context.Context, repository, reference string) (appapi.Resolved, error) {
	return appapi.Resolved{
		Bundle:  skerryapp.Bundle{Repository: repository, Digest: fleet.DigestOf([]byte(reference)), Size: 10},
		Version: reference, Config: skerryapp.BundleConfig{Runtime: skerryapp.RuntimeProcess},
	}, nil
}

// startHub runs a hub with apps until the test ends.
func (s *server) startHub(t *testing.T, broker *membus.Broker) {
	t.Helper()
	bus := broker.Client()
	t.Cleanup(bus.Close)
	hubtest.Start(t, hubtest.Options{API: s.config, Bus: bus, Store: bus, Features: []hub.Feature{apphub.New(shelf{})}})
}

// wantHealth waits until an object is as generic tools should see it.
func (s *server) wantHealth(t *testing.T, u *unstructured.Unstructured, want, reason string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(u), u); err != nil {
			t.Fatal(err)
		}
		if got = kstatus(u); got == want {
			if argo, message := argoHealth(t, u); argoOf[want] != "" && argo != argoOf[want] {
				t.Errorf("Argo CD shows %s %s as %s (%s), want %s: %s", u.GetKind(), u.GetName(), argo, message, argoOf[want], reason)
			}
			return
		}
	}
	t.Errorf("%s %s is %s, want %s: %s\n%v", u.GetKind(), u.GetName(), got, want, reason, u.Object["status"])
}

// change sets a field of an object's spec, and checks that its old status is not taken for the new one's.
func (s *server) change(t *testing.T, u *unstructured.Unstructured, value string, path ...string) {
	t.Helper()
	if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(u), u); err != nil {
		t.Fatal(err)
	}
	patch := client.MergeFrom(u.DeepCopy())
	if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
		t.Fatal(err)
	}
	if err := s.client.Patch(t.Context(), u, patch); err != nil {
		t.Fatal(err)
	}
	if got := kstatus(u); got != "InProgress" {
		t.Errorf("%s %s is %s right after it was changed", u.GetKind(), u.GetName(), got)
	}
}

// speaker is one site that the test speaks for.
type speaker struct {
	t        *testing.T
	bus      *membus.Client
	sequence uint64
}

// says waits until the site is told of an app's version, and reports it in a phase.
func (s *speaker) says(version string, phase fleet.Phase) {
	s.t.Helper()
	var section skerryapp.Section
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		m, err := s.bus.Get(s.t.Context(), wire.DesiredSubject("shop-1", skerryapp.SectionName))
		if err == nil {
			if section, err = skerryapp.DecodeSection(m.Data); err != nil {
				s.t.Fatal(err)
			}
		}
		if len(section.Apps) == 1 && section.Apps[0].Version == version {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the site was never told of %s: %+v", version, section)
		}
	}
	p := section.Apps[0]
	ref := skerryapp.ReleaseRef{Release: p.Release, Version: p.Version, Digest: p.Digest}
	r := skerryapp.AppReport{App: p.App, Desired: ref, Phase: phase, Message: "exit status 1"}
	if phase.Healthy() {
		r.Running, r.Message = ref, ""
	}
	s.report(skerryapp.Report{Apps: []skerryapp.AppReport{r}})
}

func (s *speaker) report(apps skerryapp.Report) {
	s.t.Helper()
	body, err := json.Marshal(apps)
	if err != nil {
		s.t.Fatal(err)
	}
	s.sequence++
	data, err := wire.Report{
		Site: "shop-1", Member: "m-1", Epoch: "E", Sequence: s.sequence, Modules: map[string]json.RawMessage{skerryapp.SectionName: body},
	}.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	alive, err := wire.EncodeJSON("alive", wire.Alive{Sequence: s.sequence})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.bus.Put(s.t.Context(), wire.ReportSubject("shop-1", "m-1"), data, wire.AnyRevision); err != nil {
		s.t.Fatal(err)
	}
	if err := s.bus.Publish(s.t.Context(), wire.AliveSubject("shop-1", "m-1"), alive); err != nil {
		s.t.Fatal(err)
	}
}

// testHealth takes an app and a site through their lives, and asks at each turn what a generic tool shows.
func (s *server) testHealth(t *testing.T) {
	hello := object(t, "kind: App\nmetadata: {name: hello}\nspec: {source: {bundle: 'hello:1.0.0'}, placement: {sites: {matchLabels: {kind: shop}}}}")
	shop := object(t, "kind: Site\nmetadata: {name: shop-1, labels: {kind: shop}}")
	s.create(t, hello)
	s.create(t, shop)
	for _, u := range []*unstructured.Unstructured{hello, shop} {
		if got := kstatus(u); got != "InProgress" {
			t.Errorf("a new %s that no hub has seen is %s: who waits for it would go on at once", u.GetKind(), got)
		}
	}
	broker := membus.New()
	s.startHub(t, broker)
	site := &speaker{t: t, bus: broker.Client()}
	defer site.bus.Close()
	s.wantHealth(t, hello, "Failed", "nothing will change until somebody grants the namespace a site")
	s.wantHealth(t, shop, "InProgress", "no machine has joined yet")
	s.enrol(t, shop)
	site.report(skerryapp.Report{})
	s.create(t, object(t, "kind: SiteGrant\nmetadata: {name: g}\nspec: {namespaces: [default], sites: {}, runtimes: [process]}"))
	s.wantHealth(t, hello, "InProgress", "the site is told and has not answered")
	site.says("1.0.0", fleet.PhaseStarting)
	s.wantHealth(t, shop, "Current", "the site is connected")
	s.wantHealth(t, hello, "InProgress", "the program starts")
	site.says("1.0.0", fleet.PhaseRunning)
	s.wantHealth(t, hello, "Current", "it serves")

	s.change(t, hello, "hello:2.0.0", "spec", "source", "bundle")
	site.says("2.0.0", fleet.PhaseBackOff)
	s.wantHealth(t, hello, "InProgress", "it tries again by itself")
	site.says("2.0.0", fleet.PhaseFailed)
	s.wantHealth(t, hello, "Failed", "it cannot run")
	s.change(t, hello, "hello:1.0.0", "spec", "source", "bundle")
	site.says("1.0.0", fleet.PhaseRunning)
	s.wantHealth(t, hello, "Current", "it was rolled back")

	if err := s.client.Delete(t.Context(), shop); err != nil {
		t.Fatal(err)
	}
	s.wantHealth(t, shop, "Terminating", "the site is asked to remove its apps")
}

// enrol writes what enrolment writes: a member.
func (s *server) enrol(t *testing.T, shop *unstructured.Unstructured) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := s.client.Get(t.Context(), client.ObjectKeyFromObject(shop), shop)
		if err == nil {
			member := map[string]any{"id": "m-1", "publicKey": "AAAA"}
			_ = unstructured.SetNestedSlice(shop.Object, []any{member}, "status", "members")
			err = s.client.Status().Update(t.Context(), shop)
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
