package secrethub_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appapi"
	"github.com/skerry-dev/skerry/internal/app/apphub"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/hub/hubtest"
	"github.com/skerry-dev/skerry/internal/kubetest"
	"github.com/skerry-dev/skerry/internal/secret"
	"github.com/skerry-dev/skerry/internal/secret/secrethub"
	"github.com/skerry-dev/skerry/internal/wire"
	"github.com/skerry-dev/skerry/internal/wire/membus"
)

// everything is a registry that has every bundle.
type everything struct{}

func (everything) OnPush(func(string)) {}

func (everything) Resolve(_ context.Context, repository, reference string) (appapi.Resolved, error) {
	return appapi.Resolved{
		Bundle:  app.Bundle{Repository: repository, Digest: fleet.DigestOf([]byte(repository + reference)), Size: 100},
		Version: reference, Config: app.BundleConfig{Runtime: app.RuntimeProcess},
	}, nil
}

// world is a hub of apps and secrets with its API, a bus in memory, and sites that this test speaks for.
type world struct {
	t      *testing.T
	ctx    context.Context
	client client.Client
	broker *membus.Broker
	config *rest.Config
	stop   func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	api := kubetest.Start(t)
	w := &world{t: t, ctx: t.Context(), broker: membus.New(), config: api.Config, client: hubtest.Client(t, api.Config)}
	w.start()
	return w
}

// start starts a hub on the API and the broker that are there.
func (w *world) start() {
	w.t.Helper()
	bus := w.broker.Client()
	apps := apphub.New(everything{})
	secrets := secrethub.New(apps)
	apps.UseSecrets(secrets)
	h := hubtest.Start(w.t, hubtest.Options{API: w.config, Bus: bus, Store: bus, Features: []hub.Feature{apps, secrets}})
	w.stop = func() {
		h.Stop()
		bus.Close()
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// eventually waits until fn returns nothing wrong.
func (w *world) eventually(what string, fn func() string) {
	w.t.Helper()
	hubtest.Eventually(w.t, what, fn)
}

// machine is the one member of a site that the test speaks for, over the bus alone.
type machine struct {
	w        *world
	site     fleet.SiteName
	member   fleet.MemberID
	key      *ecdh.PrivateKey
	bus      *membus.Client
	sequence uint64
}

func (w *world) site(name string, labels map[string]string) *machine {
	w.t.Helper()
	w.must(w.client.Create(w.ctx, hubtest.Labelled(name, labels)))
	m := &machine{w: w, site: fleet.SiteName(name), bus: w.broker.Client()}
	m.join("m-1")
	return m
}

// join makes a new machine the site's member, and revokes the one before, as enrolment does.
func (m *machine) join(id fleet.MemberID) {
	m.w.t.Helper()
	old := m.member
	m.member, m.sequence = id, 0
	var err error
	m.key, err = ecdh.X25519().GenerateKey(rand.Reader)
	m.w.must(err)
	m.w.eventually("member of "+string(m.site), func() string { // the site controller writes the same object
		var s v1alpha1.Site
		m.w.must(m.w.client.Get(m.w.ctx, client.ObjectKey{Name: string(m.site)}, &s))
		if old != "" && len(s.Spec.RevokedMembers) == 0 {
			s.Spec.RevokedMembers = []string{string(old)}
			if err := m.w.client.Update(m.w.ctx, &s); err != nil {
				return err.Error()
			}
		}
		s.Status.Members = append(s.Status.Members, v1alpha1.SiteMember{ID: string(id), PublicKey: make([]byte, 32), SealKey: m.key.PublicKey().Bytes()})
		if err := m.w.client.Status().Update(m.w.ctx, &s); err != nil {
			return err.Error()
		}
		return ""
	})
	m.alive()
}

func (m *machine) alive() {
	m.w.t.Helper()
	data, err := wire.EncodeJSON("alive", wire.Alive{Sequence: m.sequence})
	m.w.must(err)
	m.w.must(m.bus.Publish(m.w.ctx, wire.AliveSubject(m.site, m.member), data))
}

func (m *machine) manifest() wire.Manifest {
	m.w.t.Helper()
	msg, err := m.bus.Get(m.w.ctx, wire.DesiredSubject(m.site, wire.ManifestSection))
	if err != nil {
		return wire.Manifest{}
	}
	manifest, err := wire.DecodeManifest(msg.Data)
	m.w.must(err)
	return manifest
}

// section returns the body that the manifest names, nil when it names none.
func (m *machine) section(name string) []byte {
	m.w.t.Helper()
	if _, ok := m.manifest().Sections[name]; !ok {
		return nil
	}
	msg, err := m.bus.Get(m.w.ctx, wire.DesiredSubject(m.site, name))
	m.w.must(err)
	return msg.Data
}

// told returns what the site is told to run, by app name.
func (m *machine) told() map[string]app.Placement {
	m.w.t.Helper()
	out := map[string]app.Placement{}
	if body := m.section(app.SectionName); body != nil {
		section, err := app.DecodeSection(body)
		m.w.must(err)
		for _, p := range section.Apps {
			out[p.App.Name] = p
		}
	}
	return out
}

// opens returns all values that the machine can open, as "namespace/name/key".
func (m *machine) opens() map[string]string {
	m.w.t.Helper()
	out := map[string]string{}
	body := m.section(secret.SectionName)
	if body == nil {
		return out
	}
	section, err := secret.DecodeSection(body)
	m.w.must(err)
	for _, e := range section.Secrets {
		for _, s := range e.Sealed {
			if s.Member != m.member {
				m.w.t.Errorf("site %s: %s is sealed to %s", m.site, e.Name, s.Member)
				continue
			}
			values, err := secret.Open(m.key, e.Context(m.site, m.member), s.Data)
			m.w.must(err)
			for key, value := range values {
				out[e.Namespace+"/"+e.Name+"/"+key] = string(value)
			}
		}
	}
	return out
}

// runs makes the site report that it runs what it is told.
func (m *machine) runs() {
	m.w.t.Helper()
	m.reports(secret.Report{})
}

// reports makes the site report that it runs what it is told, and what it says of secrets.
func (m *machine) reports(secrets secret.Report) {
	m.w.t.Helper()
	var apps app.Report
	for _, p := range m.told() {
		ref := app.ReleaseRef{Release: p.Release, Version: p.Version, Digest: p.Digest}
		apps.Apps = append(apps.Apps, app.AppReport{App: p.App, Desired: ref, Running: ref, Phase: fleet.PhaseRunning})
	}
	modules := map[string]json.RawMessage{}
	for name, part := range map[string]any{app.SectionName: apps, secret.SectionName: secrets} {
		body, err := json.Marshal(part)
		m.w.must(err)
		modules[name] = body
	}
	m.sequence++
	manifest := m.manifest()
	data, err := wire.Report{
		Site: m.site, Member: m.member, Epoch: "e1", Sequence: m.sequence, Modules: modules,
		HubEpoch: manifest.HubEpoch, Generation: manifest.Generation,
	}.Encode()
	m.w.must(err)
	_, err = m.bus.Put(m.w.ctx, wire.ReportSubject(m.site, m.member), data, wire.AnyRevision)
	m.w.must(err)
}
