package eventhub

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/event"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// world is a hub that collects events, and sites that the test speaks for.
type world struct {
	t      *testing.T
	api    *kubetest.Server
	broker *membus.Broker
	bus    *membus.Client
	sites  *membus.Client
	hub    *hubtest.Hub
	next   map[fleet.SiteName]uint64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, api: kubetest.Start(t), broker: membus.New(), next: map[fleet.SiteName]uint64{}}
	w.sites = w.broker.Client()
	t.Cleanup(w.sites.Close)
	w.start()
	return w
}

func (w *world) start() {
	w.bus = w.broker.Client()
	bus := w.bus
	w.t.Cleanup(bus.Close)
	w.hub = hubtest.Start(w.t, hubtest.Options{API: w.api.Config, Bus: bus, Store: bus, Features: []hub.Feature{New(bus)}})
}

// happen stores a batch of a site; skip numbers are left out before it.
func (w *world) happen(site fleet.SiteName, skip uint64, events ...fleet.Event) {
	w.t.Helper()
	b := wire.EventBatch{Site: site, Member: "m", Epoch: "E"}
	w.next[site] += skip
	for _, e := range events {
		w.next[site]++
		b.Records = append(b.Records, wire.EventRecord{Sequence: w.next[site], Event: e})
	}
	data, err := b.Encode()
	if err == nil {
		_, err = w.sites.Put(w.t.Context(), wire.EventsSubject(site, "m"), data, wire.AnyRevision)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// person makes a service account with a rule in a namespace, or in all of them, and returns its token.
func (w *world) person(name, namespace string, rules ...rbacv1.PolicyRule) string {
	w.t.Helper()
	ctx, clients := w.t.Context(), kubernetes.NewForConfigOrDie(w.api.Config)
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	_, err := clients.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(err)
	meta := metav1.ObjectMeta{Name: name}
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: "default"}}
	_, err = clients.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	must(err)
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	if namespace == "" {
		_, err = clients.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: ref}, metav1.CreateOptions{})
	} else {
		_, err = clients.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: ref}, metav1.CreateOptions{})
	}
	must(err)
	token, err := clients.CoreV1().ServiceAccounts("default").CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(err)
	return token.Status.Token
}

func list(resource string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{"list"}, APIGroups: []string{v1alpha1.Group}, Resources: []string{resource}}
}

func (w *world) ask(ctx context.Context, token, query string) *http.Response {
	w.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.hub.CA)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.hub.URL+event.Path+"?"+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// see returns what a person is answered, as "site reason" each, or the status when that is not 200.
func (w *world) see(token, query string) []string {
	w.t.Helper()
	res := w.ask(w.t.Context(), token, query)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		return []string{fmt.Sprint(res.StatusCode)}
	}
	var out []string
	for line := range strings.Lines(string(body)) {
		out = append(out, w.entry(line))
	}
	return out
}

func (w *world) entry(line string) string {
	w.t.Helper()
	var e event.Entry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		w.t.Fatalf("%v: %s", err, line)
	}
	return fmt.Sprintf("%s %s", e.Site, e.Reason)
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	of := func(reason, namespace string) fleet.Event {
		e := fleet.Event{Class: fleet.ClassEvent, Reason: reason}
		if namespace != "" {
			e.App = fleet.AppKey{Namespace: namespace, Name: "till"}
		}
		return e
	}
	sample := fleet.Event{Class: fleet.ClassSample, Reason: "Traffic", App: fleet.AppKey{Namespace: "default", Name: "till"}}
	w.happen("shop-1", 0, of("LinkUp", ""), of("AppRunning", "default"))
	w.happen("shop-2", 0, of("AppFailed", "kube-public"), sample)
	w.happen("shop-1", 3, of("LinkDown", ""))
	boss := w.person("boss", "", list("sites"), list("apps"))
	ana := w.person("ana", "default", list("apps"))
	guard := w.person("guard", "", list("sites"))
	all := []string{"shop-1 LinkUp", "shop-1 AppRunning", "shop-2 AppFailed", "shop-1 EventsLost", "shop-1 LinkDown"}
	hubtest.Eventually(t, "the hub has them", func() string {
		return cmp.Diff(all, w.see(boss, ""))
	})
	for _, row := range []struct {
		reason, who, query string
		want               []string
	}{
		{"one site's, from the stream", boss, "site=shop-1", []string{"shop-1 LinkUp", "shop-1 AppRunning", "shop-1 EventsLost", "shop-1 LinkDown"}},
		{"samples when asked for", boss, "class=sample&class=alarm", []string{"shop-2 Traffic"}},
		{"the newest two", boss, "limit=2", all[3:]},
		{"one namespace's apps", boss, "namespace=kube-public", []string{"shop-2 AppFailed"}},
		{"a person of one namespace sees its apps", ana, "namespace=default", []string{"shop-1 AppRunning"}},
		{"not another's", ana, "namespace=kube-public", []string{"403"}},
		{"not the sites'", ana, "", []string{"403"}},
		{"also not by naming a site", ana, "site=shop-1", []string{"403"}},
		{"a site by name, of the own namespace", ana, "namespace=default&site=shop-1", []string{"shop-1 AppRunning"}},
		{"who may see sites and no apps sees none of apps", guard, "", []string{"shop-1 LinkUp", "shop-1 EventsLost", "shop-1 LinkDown"}},
		{"nobody", "wrong", "", []string{"401"}},
		{"an app without its namespace", boss, "app=till", []string{"400"}},
		{"an app", boss, "app=till&namespace=default", []string{"shop-1 AppRunning"}},
		{"a site that cannot be", boss, "site=%3E", []string{"400"}},
		{"a class that is none", boss, "class=x", []string{"400"}},
		{"more than is given", boss, "limit=100000", []string{"400"}},
	} {
		if diff := cmp.Diff(row.want, w.see(row.who, row.query)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.reason, diff)
		}
	}

	for _, query := range []string{"follow=true", "follow=true&site=shop-1", "follow=true&namespace=default"} {
		ctx, cancel := context.WithCancel(t.Context())
		res := w.ask(ctx, boss, query+"&limit=1")
		in := bufio.NewReader(res.Body)
		next := func() string {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			return w.entry(line)
		}
		first := next()
		w.happen("shop-2", 0, of("Elsewhere", "kube-public"))
		w.happen("shop-1", 0, of("Followed", "default"))
		for second := next(); second != "shop-1 Followed"; second = next() {
			if second != "shop-2 Elsewhere" || query != "follow=true" {
				t.Errorf("%s: after %s came %s", query, first, second)
			}
		}
		cancel()
		res.Body.Close()
	}

	// A batch that says it is of another site is a fault or a lie.
	data, err := wire.EventBatch{Site: "shop-9", Member: "m", Epoch: "E", Records: []wire.EventRecord{{Sequence: 1, Event: of("Lie", "")}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.sites.Put(t.Context(), wire.EventsSubject("shop-2", "m"), data, wire.AnyRevision); err != nil {
		t.Fatal(err)
	}
	before := w.see(boss, "")
	w.happen("shop-1", 0, of("Truth", ""))
	after := append(before, "shop-1 Truth")
	hubtest.Eventually(t, "the truth comes, the lie does not", func() string { return cmp.Diff(after, w.see(boss, "")) })

	// Another hub on the same bus, or the same one later, says the same.
	w.hub.Stop()
	w.start()
	if diff := cmp.Diff(after, w.see(boss, "")); diff != "" {
		t.Errorf("a hub that was started again (-before +after):\n%s", diff)
	}
}

func TestTrim(t *testing.T) {
	broker := membus.New()
	bus := broker.Client()
	defer bus.Close()
	w := &world{t: t, sites: bus, next: map[fleet.SiteName]uint64{}}
	long := fleet.Event{Class: fleet.ClassEvent, Reason: "Long", Message: strings.Repeat("x", 1000)}
	for range 100 {
		w.happen("loud", 0, long)
	}
	w.happen("quiet", 0, long)
	f := New(bus)
	f.log = discard()
	if err := f.trim(t.Context(), 30_000); err != nil {
		t.Fatal(err)
	}
	usage, err := bus.Usage(t.Context(), wire.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	loud, quiet := usage.Values[wire.EventsSubject("loud", "m")], usage.Values[wire.EventsSubject("quiet", "m")]
	if usage.Bytes > 30_000 || loud < 10 || quiet != 1 {
		t.Errorf("%d bytes are left, of the loud site %d batches, of the quiet one %d", usage.Bytes, loud, quiet)
	}
	if err := f.trim(t.Context(), 10); err == nil {
		t.Error("that the marks alone are too large is not said")
	}
	for _, site := range []fleet.SiteName{"loud", "quiet"} {
		m, err := bus.Get(t.Context(), wire.EventsSubject(site, "m"))
		if err != nil {
			t.Fatalf("the mark of %s is gone: %v", site, err)
		}
		if b, err := wire.DecodeEventBatch(m.Data); err != nil || b.Last() != w.next[site] {
			t.Errorf("the mark of %s is %d, %v; want %d", site, b.Last(), err, w.next[site])
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
