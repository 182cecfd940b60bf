package hub_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// patience is how long something may take to come true.
const patience = 30 * time.Second

// TestOnKubernetes runs what needs the real API server, on one.
func TestOnKubernetes(t *testing.T) {
	api := kubetest.Start(t)
	t.Run("types", func(t *testing.T) {
		for range 2 { // every start of a hub installs them
			if err := hub.InstallTypes(t.Context(), api.Config); err != nil {
				t.Fatal(err)
			}
		}
		refused := *api.Config
		refused.Host = "https://127.0.0.1:1"
		if err := hub.InstallTypes(t.Context(), &refused); err == nil {
			t.Error("types were installed where no API is")
		}
	})
	t.Run("people", func(t *testing.T) { testPeople(t, api) })
	t.Run("sites", func(t *testing.T) { testSites(t, api) })
	t.Run("away", func(t *testing.T) { testAway(t, api) })
}

// failing is a feature whose removal of a site fails until it is told otherwise.
type failing struct {
	host *hub.Host
	err  chan error
}

func (f *failing) Name() string { return "failing" }

func (f *failing) Setup(_ context.Context, h *hub.Host) error {
	f.host = h
	h.OnSiteGone(func(context.Context, *v1alpha1.Site) error {
		select {
		case err := <-f.err:
			return err
		default:
			return nil
		}
	})
	return nil
}

// running is a whole hub on the API and a bus in memory.
type running struct {
	t       *testing.T
	client  client.Client
	bus     *membus.Client
	feature *failing
	url     string
	clock   *clock
	stop    func()
}

// clock is the hub's, which a test may put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) pass(d time.Duration) { c.ahead.Add(int64(d)) }

func runHub(t *testing.T, api *kubetest.Server, broker *membus.Broker) *running {
	t.Helper()
	bus := broker.Client()
	feature := &failing{err: make(chan error, 1)}
	clock := &clock{}
	h := hubtest.Start(t, hubtest.Options{API: api.Config, Bus: bus, Store: bus, Features: []hub.Feature{feature}, Now: clock.now})
	r := &running{t: t, client: h.Client, bus: broker.Client(), feature: feature, url: h.URL, clock: clock}
	r.stop = sync.OnceFunc(func() {
		h.Stop()
		bus.Close()
		r.bus.Close()
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) eventually(what string, fn func() string) {
	r.t.Helper()
	hubtest.Eventually(r.t, what, fn)
}

// reason returns that of a site's Ready condition, or why there is none.
func (r *running) reason(name string) (*v1alpha1.Site, string) {
	var s v1alpha1.Site
	if err := r.client.Get(r.t.Context(), client.ObjectKey{Name: name}, &s); err != nil {
		return &s, err.Error()
	}
	cond := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady)
	if cond == nil {
		return &s, "no condition"
	}
	if cond.ObservedGeneration != s.Generation || s.Status.ObservedGeneration != s.Generation {
		return &s, "of another generation"
	}
	return &s, string(cond.Status) + " " + cond.Reason
}

func (r *running) wantReason(name, want string) *v1alpha1.Site {
	r.t.Helper()
	var site *v1alpha1.Site
	r.eventually("site "+name, func() string {
		s, got := r.reason(name)
		site = s
		if got != want {
			return got + ", want " + want
		}
		return ""
	})
	return site
}

// speak lets a site's member say that it is there, and report.
func (r *running) speak(name fleet.SiteName, sequence uint64, wiped, leaving bool) {
	r.t.Helper()
	report, err := wire.Report{
		Site: name, Member: "m-1", Epoch: "E", Sequence: sequence, Version: "1.2.3", Gateway: "http://127.0.0.1:8081", Wiped: wiped,
		Hardware: fleet.Hardware{Hostname: "box", OS: "linux", Arch: "arm64", Kernel: "6", CPUs: 4, MemoryBytes: 1 << 30},
	}.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	alive, err := wire.EncodeJSON("alive", wire.Alive{Sequence: sequence, Leaving: leaving})
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = r.bus.Put(r.t.Context(), wire.ReportSubject(name, "m-1"), report, wire.AnyRevision)
	if err := errors.Join(err, r.bus.Publish(r.t.Context(), wire.AliveSubject(name, "m-1"), alive)); err != nil {
		r.t.Fatal(err)
	}
}

// change updates a site's spec or status until nobody else was quicker.
func (r *running) change(name string, status bool, fn func(*v1alpha1.Site)) {
	r.t.Helper()
	r.eventually("change site "+name, func() string {
		var s v1alpha1.Site
		err := r.client.Get(r.t.Context(), client.ObjectKey{Name: name}, &s)
		if err == nil {
			fn(&s)
			if status {
				err = r.client.Status().Update(r.t.Context(), &s)
			} else {
				err = r.client.Update(r.t.Context(), &s)
			}
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

func testSites(t *testing.T, api *kubetest.Server) {
	broker := membus.New()
	r := runHub(t, api, broker)
	ctx := t.Context()
	if err := r.client.Create(ctx, &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "shop-1"}}); err != nil {
		t.Fatal(err)
	}
	r.wantReason("shop-1", "False NeverConnected")
	r.change("shop-1", true, func(s *v1alpha1.Site) {
		s.Status.Members = []v1alpha1.SiteMember{{ID: "m-1", PublicKey: make([]byte, 32)}}
	})
	r.speak("shop-1", 1, false, false)
	s := r.wantReason("shop-1", "True Connected")
	want := v1alpha1.Hardware{Hostname: "box", OS: "linux", Arch: "arm64", Kernel: "6", CPUs: 4, MemoryBytes: 1 << 30}
	if diff := cmp.Diff(want, s.Status.Hardware); diff != "" || s.Status.Version != "1.2.3" || s.Status.Gateway != "http://127.0.0.1:8081" {
		t.Errorf("status is %+v (-want +got):\n%s", s.Status, diff)
	}
	if len(s.Status.Members) != 1 {
		t.Error("writing the status lost the members, which enrolment writes")
	}

	// What did not change is not written: conditions do not flap, and nothing is written on a timer.
	version := s.ResourceVersion
	for sequence := range uint64(5) {
		r.speak("shop-1", 2+sequence, false, false)
	}
	r.change("shop-1", false, func(s *v1alpha1.Site) { s.Spec.Zone = "north" })
	s = r.wantReason("shop-1", "True Connected")
	if s.ResourceVersion == version {
		t.Error("the zone was not written")
	}
	if since := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady).LastTransitionTime; time.Since(since.Time) > patience {
		t.Errorf("in this state since %v", since)
	}

	r.speak("shop-1", 10, false, true)
	r.wantReason("shop-1", "False Away")
	r.speak("shop-1", 11, false, false)
	r.wantReason("shop-1", "True Connected")

	// A hub that starts anew knows nothing of links: what stood before stands.
	r.stop()
	r = runHub(t, api, broker)
	if _, got := r.reason("shop-1"); got != "True Connected" {
		t.Errorf("after a restart of the hub the site is %q", got)
	}
	r.speak("shop-1", 12, false, false)

	r.change("shop-1", false, func(s *v1alpha1.Site) { s.Spec.RevokedMembers = []string{"m-1"} })
	r.wantReason("shop-1", "False Revoked")

	r.eventually("a time zone that there is not is refused", func() string {
		err := r.client.Create(ctx, &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "lost"}, Spec: v1alpha1.SiteSpec{TimeZone: "Europe/Nowhere"}}, client.DryRunAll)
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.timeZone") {
			return fmt.Sprint(err)
		}
		return ""
	})
	for _, zone := range []string{"", "Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC"} {
		site := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "found"}, Spec: v1alpha1.SiteSpec{TimeZone: zone}}
		if err := r.client.Create(ctx, site, client.DryRunAll); err != nil {
			t.Errorf("time zone %q: %v", zone, err)
		}
	}
	testSiteGoes(t, r)
	testPublished(t, r, api)
}

// testSiteGoes deletes a connected site: it is asked to wipe itself, awaited, and seen off by every feature.
func testSiteGoes(t *testing.T, r *running) {
	ctx := t.Context()
	if err := r.feature.host.Desired.Set(ctx, "shop-1", "apps", []byte("x")); err != nil {
		t.Fatal(err)
	}
	r.feature.err <- errors.New("not yet")
	if err := r.client.Delete(ctx, &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "shop-1"}}); err != nil {
		t.Fatal(err)
	}
	r.eventually("wipe", func() string {
		if m := r.feature.host.Desired.Manifest("shop-1"); !m.Wipe || len(m.Sections) > 0 {
			return "the site is not asked to wipe"
		}
		return ""
	})
	if _, got := r.reason("shop-1"); strings.Contains(got, "not found") {
		t.Error("the site went before it could be told")
	}
	r.speak("shop-1", 20, true, false)
	r.eventually("site goes", func() string {
		err := r.client.Get(ctx, client.ObjectKey{Name: "shop-1"}, &v1alpha1.Site{})
		if apierrors.IsNotFound(err) {
			return ""
		}
		return "still there"
	})
	if len(r.feature.err) != 0 {
		t.Error("the feature that failed was not asked")
	}
	for _, subject := range []string{wire.DesiredSubject("shop-1", wire.ManifestSection), wire.ReportSubject("shop-1", "m-1")} {
		if _, err := r.bus.Get(ctx, subject); !errors.Is(err, wire.ErrNotFound) {
			t.Errorf("%s of a site that is gone: %v", subject, err)
		}
	}
}

// testPublished reads where the hub is, as everybody may whom the API knows, and nobody else.
func testPublished(t *testing.T, r *running, api *kubetest.Server) {
	config := person(t, api, "reader")
	path := config.Host + "/api/v1/namespaces/" + hub.SystemNamespace + "/configmaps/" + hub.InfoConfigMap
	res, body := do(t, config, path, nil)
	if res.StatusCode != http.StatusOK || !strings.Contains(body, r.url) {
		t.Errorf("a person without any right got %s %s", res.Status, body)
	}
	config.BearerToken = ""
	if res, _ := do(t, config, path, nil); res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusForbidden {
		t.Errorf("nobody got %s", res.Status)
	}
	res, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}).Get(r.url + "/nothing")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("a path that nobody registered answers %s", res.Status)
	}
}
