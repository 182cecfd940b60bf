package secretsite_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/secret"
	"github.com/skerry-dev/skerry/internal/secret/secretsite"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/wire"
)

// plain is a value that must not be found anywhere but in memory.
const plain = "plain-value-of-a-secret"

// member is a site's machine: its key, and the module in its newest life on one disk.
type member struct {
	t       *testing.T
	file    string
	key     *ecdh.PrivateKey
	store   *store.Store
	log     bytes.Buffer
	module  *secretsite.Module
	changes int
}

func newMember(t *testing.T) *member {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, file: filepath.Join(t.TempDir(), "store.db"), key: key}
	m.begin()
	return m
}

func (m *member) begin() {
	m.t.Helper()
	st, err := store.Open(m.file)
	if err != nil {
		m.t.Fatal(err)
	}
	bucket, err := st.Bucket("module/secrets")
	if err != nil {
		m.t.Fatal(err)
	}
	m.store = st
	m.module = secretsite.New(&site.Host{
		Name: "shop-1", Bucket: bucket, Changed: func() {}, Log: slog.New(slog.NewTextHandler(&m.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, "m-1", m.key)
	m.module.OnChange(func() { m.changes++ })
	if err := m.module.Start(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) end() {
	m.t.Helper()
	if err := errors.Join(m.module.Stop(m.t.Context()), m.store.Close()); err != nil {
		m.t.Fatal(err)
	}
}

// entry is a Secret that is sealed to the member.
func (m *member) entry(namespace, name string) secret.Entry {
	m.t.Helper()
	e := secret.Entry{Namespace: namespace, Name: name, UID: "u", Version: "1", Uses: []secret.Use{{App: "hello"}}}
	public := m.key.PublicKey().Bytes()
	data, err := secret.Seal(public, e.Context("shop-1", "m-1"), map[string]fleet.SecretValue{"password": fleet.SecretValue(plain + namespace + name)})
	if err != nil {
		m.t.Fatal(err)
	}
	e.Sealed = []secret.Sealed{{Member: "m-1", Key: public, Data: data}}
	return e
}

func (m *member) apply(entries ...secret.Entry) {
	m.t.Helper()
	body, err := secret.Section{Secrets: entries}.Encode()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.module.Apply(m.t.Context(), body, fleet.Facts{}); err != nil {
		m.t.Fatal(err)
	}
}

// has compares a Secret's values; nil for none.
func (m *member) has(namespace, name string, want map[string]string) {
	m.t.Helper()
	values, ok := m.module.Secret(namespace, name)
	if ok != (want != nil) {
		m.t.Errorf("%s/%s is there: %v", namespace, name, ok)
	}
	got := map[string]string{}
	for k, v := range values {
		got[k] = string(v)
	}
	if want == nil {
		want = map[string]string{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		m.t.Errorf("%s/%s (-want +got):\n%s", namespace, name, diff)
	}
}

func TestModule(t *testing.T) {
	m := newMember(t)
	db := map[string]string{"password": plain + "defaultdb"}
	m.has("default", "db", nil)
	m.apply(m.entry("default", "db"), m.entry("other", "db"))
	m.has("default", "db", db)
	m.has("other", "db", map[string]string{"password": plain + "otherdb"})
	if m.changes != 1 || m.module.Report() != nil {
		t.Errorf("%d changes were told, report is %v", m.changes, m.module.Report())
	}

	m.end()
	m.begin()
	m.has("default", "db", db)

	m.apply(m.entry("default", "db"))
	m.has("other", "db", nil)
	if err := m.module.Apply(t.Context(), []byte(`{"secrets":[{}]}`), fleet.Facts{}); !errors.Is(err, wire.ErrMessage) {
		t.Errorf("half a section was answered with %v", err)
	}
	m.has("default", "db", db)
	m.onDisk()
	if err := m.module.Apply(t.Context(), nil, fleet.Facts{}); err != nil {
		t.Fatal(err)
	}
	m.has("default", "db", nil)
	m.end()
	m.begin()
	m.has("default", "db", nil)

	m.apply(m.entry("default", "db"))
	if err := m.module.Wipe(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.has("default", "db", nil)
	m.onDisk()
	m.end()
}

// onDisk looks for the value in what is stored and was logged.
func (m *member) onDisk() {
	m.t.Helper()
	data, err := os.ReadFile(m.file)
	if err != nil {
		m.t.Fatal(err)
	}
	if bytes.Contains(data, []byte(plain)) || strings.Contains(m.log.String(), plain) {
		m.t.Error("a value is in the store or the log")
	}
	if !bytes.Contains(data, []byte("hello")) {
		m.t.Error("the section was not found in the store: this test looks in the wrong place")
	}
}

// TestWhatCannotBeOpened is told by name, and takes nothing else with it.
func TestWhatCannotBeOpened(t *testing.T) {
	m := newMember(t)
	defer m.end()
	stranger := newMember(t)
	defer stranger.end()
	moved := m.entry("default", "moved")
	moved.Name = "target" // what was sealed for one Secret, offered as another
	replayed := m.entry("default", "replayed")
	replayed.Version = "2" // an older value, offered as the newest
	foreign := stranger.entry("default", "foreign")
	unsealed := m.entry("default", "unsealed")
	unsealed.Sealed = nil
	empty := m.entry("default", "empty")
	empty.Sealed[0].Data = nil
	m.apply(moved, replayed, foreign, unsealed, empty, m.entry("default", "good"))
	m.has("default", "good", map[string]string{"password": plain + "defaultgood"})
	report, ok := m.module.Report().(secret.Report)
	if !ok {
		t.Fatalf("report is %v", m.module.Report())
	}
	for _, name := range []string{"target", "replayed", "foreign", "unsealed", "empty"} {
		m.has("default", name, nil)
		if report.Closed["default/"+name] == "" {
			t.Errorf("nothing is said of %s", name)
		}
	}
	data, err := json.Marshal(report)
	if err != nil || bytes.Contains(data, []byte(plain)) || strings.Contains(m.log.String(), plain) || len(report.Closed) != 5 {
		t.Errorf("report is %s, %v", data, err)
	}
}

func TestDamagedStoreIsNoEnd(t *testing.T) {
	m := newMember(t)
	m.apply(m.entry("default", "db"))
	bucket, err := m.store.Bucket("module/secrets")
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Update(func(w store.Writer) error { return w.PutBytes("section", []byte("{")) }); err != nil {
		t.Fatal(err)
	}
	m.end()
	m.begin() // the agent has the section too, and hands it in after
	m.has("default", "db", nil)
	m.apply(m.entry("default", "db"))
	m.has("default", "db", map[string]string{"password": plain + "defaultdb"})
	m.end()
}
