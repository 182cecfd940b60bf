package enrollsite

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// pins returns what the state trusts: the authorities that the hub named last, else the one of the token.
func (s state) pins() ([]pin, error) {
	if len(s.Pin) != sha256.Size {
		return nil, fmt.Errorf("fingerprint of the hub has %d bytes, want %d", len(s.Pin), sha256.Size)
	}
	certs, err := parseCertificates([]byte(s.Authorities))
	if err != nil {
		return nil, fmt.Errorf("authorities of the hub: %w", err)
	}
	pins := []pin{pin(s.Pin)}
	for _, c := range certs {
		if p := sha256.Sum256(c.Raw); !slices.Contains(pins, p) {
			pins = append(pins, p)
		}
	}
	return pins, nil
}

// signedBy returns the authority whose signature leaf has; empty when it is none that the state trusts.
func (s state) signedBy(leaf *x509.Certificate) string {
	certs, err := parseCertificates([]byte(s.CA + s.Authorities))
	if err != nil {
		return ""
	}
	for _, c := range certs {
		if leaf.CheckSignatureFrom(c) == nil {
			d := sha256.Sum256(c.Raw)
			return hex.EncodeToString(d[:])
		}
	}
	return ""
}

// Report says which of the hub's authorities this member trusts, and which signed its certificate.
func (i *Identity) Report() enroll.Report {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := enroll.Report{Authority: i.state.signedBy(i.certificate.Leaf)}
	for _, p := range i.trusted {
		r.Authorities = append(r.Authorities, hex.EncodeToString(p[:]))
	}
	slices.Sort(r.Authorities)
	return r
}

// module is enrolment's part of an agent: it reports which authorities are trusted, and renews when the hub asks.
type module struct {
	identity *Identity
	host     *site.Host
	done     chan struct{}
	stop     context.CancelFunc
}

var _ site.Module = (*module)(nil)

// NewModule returns the agent's module for an identity.
func NewModule(h *site.Host, identity *Identity) site.Module {
	m := &module{identity: identity, host: h, done: make(chan struct{}), stop: func() {}}
	h.Calls.Handle(enroll.MethodRenew, func(context.Context, json.RawMessage) (any, error) {
		identity.RenewSoon()
		return struct{}{}, nil
	})
	return m
}

// Name implements site.Module.
func (m *module) Name() string { return enroll.SectionName }

// Start implements site.Module.
func (m *module) Start(ctx context.Context) error {
	ctx, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(m.done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-m.identity.renewed:
				m.host.Changed()
			}
		}
	}()
	return nil
}

// errNoSection means that a hub names a section which none writes.
var errNoSection = errors.New("there is no such section: upgrade the agent")

// Apply implements site.Module. No hub writes a section of this name.
func (m *module) Apply(_ context.Context, body []byte, _ fleet.Facts) error {
	if body != nil {
		return errNoSection
	}
	return nil
}

// Report implements site.Module.
func (m *module) Report() any { return m.identity.Report() }

// Stop implements site.Module.
func (m *module) Stop(context.Context) error {
	m.stop()
	<-m.done
	return nil
}
