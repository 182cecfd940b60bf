// Package secretsite is the site half of secrets: it keeps the section "secrets" as it came, sealed, opens
// what is sealed to this member, and hands the values to the module of apps.
//
// It implements site.Module. Opened values are in this process' memory alone; the store holds what the hub
// sealed, so that a site without a network comes back with its secrets. What cannot be opened is told in the
// module's report, and the rest goes on. It must not be imported but by cmd.
package secretsite

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/secret"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
)

// sectionKey is the module's one record: the section as it came.
const sectionKey = "section"

// maxReported bounds the Secrets that a report names as closed: a report is one message.
const maxReported = 20

// Module is the site's half of secrets. Its methods are safe for concurrent use.
type Module struct {
	host   *site.Host
	member fleet.MemberID
	key    *ecdh.PrivateKey

	mu sync.Mutex
	// opened are the values by Secret and key, and closed the Secrets that could not be opened.
	opened   map[name]map[string]fleet.SecretValue
	closed   map[string]string
	watchers []func()
}

// name is that of a Secret.
type name struct{ namespace, name string }

var (
	_ site.Module = (*Module)(nil)
	_ site.Wiper  = (*Module)(nil)
)

// New returns the module of a member; key is the private half of the key that secrets are sealed to.
func New(host *site.Host, member fleet.MemberID, key *ecdh.PrivateKey) *Module {
	return &Module{host: host, member: member, key: key}
}

// Name implements site.Module.
func (m *Module) Name() string { return secret.SectionName }

// Secret returns the values of a Secret by key, false when the site has none. They must not be changed, nor
// written to a disk.
func (m *Module) Secret(namespace, secretName string) (map[string]fleet.SecretValue, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	values, ok := m.opened[name{namespace, secretName}]
	return values, ok
}

// OnChange registers fn to be called after secrets came, changed or went. fn must not block.
func (m *Module) OnChange(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers = append(m.watchers, fn)
}

// Start implements site.Module: it opens what an earlier life stored.
func (m *Module) Start(context.Context) error {
	body, err := m.host.Bucket.GetBytes(sectionKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	var section secret.Section
	if err == nil {
		section, err = secret.DecodeSection(body)
	}
	if err != nil { // it was checked before it was stored; the agent hands the section in again
		m.host.Log.Error("stored secrets cannot be read", "error", err)
		return nil
	}
	m.open(section)
	return nil
}

// Apply implements site.Module.
func (m *Module) Apply(_ context.Context, body []byte, _ fleet.Facts) error {
	var section secret.Section
	if body != nil {
		var err error
		if section, err = secret.DecodeSection(body); err != nil {
			return err
		}
	}
	err := m.host.Bucket.Update(func(w store.Writer) error {
		if body == nil {
			return w.Delete(sectionKey)
		}
		return w.PutBytes(sectionKey, body)
	})
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	m.open(section)
	m.host.Changed()
	return nil
}

// open makes what is sealed to this member what the module has.
func (m *Module) open(section secret.Section) {
	opened, closed := map[name]map[string]fleet.SecretValue{}, map[string]string{}
	for _, e := range section.Secrets {
		values, err := m.openEntry(e)
		if err != nil {
			m.host.Log.Error("a secret cannot be opened", "secret", e.Namespace+"/"+e.Name, "error", err)
			closed[e.Namespace+"/"+e.Name] = err.Error()
			continue
		}
		opened[name{e.Namespace, e.Name}] = values
	}
	m.mu.Lock()
	m.opened, m.closed = opened, closed
	watchers := m.watchers
	m.mu.Unlock()
	for _, fn := range watchers {
		fn()
	}
}

// errNotSealed means that the hub sealed nothing to this member yet.
var errNotSealed = errors.New("it is not sealed to this member")

func (m *Module) openEntry(e secret.Entry) (map[string]fleet.SecretValue, error) {
	for _, s := range e.Sealed {
		if s.Member == m.member {
			return secret.Open(m.key, e.Context(m.host.Name, m.member), s.Data)
		}
	}
	return nil, errNotSealed
}

// Report implements site.Module.
func (m *Module) Report() any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.closed) == 0 {
		return nil
	}
	closed := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(m.closed))[:min(len(m.closed), maxReported)] {
		closed[key] = m.closed[key]
	}
	return secret.Report{Closed: closed}
}

// Stop implements site.Module.
func (m *Module) Stop(context.Context) error { return nil }

// Wipe implements site.Wiper.
func (m *Module) Wipe(context.Context) error {
	if err := m.host.Bucket.Delete(sectionKey); err != nil {
		return fmt.Errorf("secrets: wipe: %w", err)
	}
	m.open(secret.Section{})
	return nil
}
