package secret

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// SectionName is the name of the section and of the module that owns it.
const SectionName = "secrets"

// Bounds of a section, besides that of a message.
const (
	maxEntries = 4096
	maxNames   = 4096 // uses of an entry, keys of a use
	maxName    = 253  // bytes of any name
)

// Section is all that a site is told of secrets. What stands in it in the clear is what the hub compares to
// find out whether to seal anew: no digest of a value is among it.
type Section struct {
	// Secrets in the order of namespace and name.
	Secrets []Entry `json:"secrets"`
}

// Entry is one Secret as one site needs it.
type Entry struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// UID and Version are the Secret's own when it was sealed.
	UID     string `json:"uid"`
	Version string `json:"version"`
	// Uses are the apps for which the site has the Secret, in order.
	Uses []Use `json:"uses"`
	// Sealed holds the values of the keys that Uses name, once for each member of the site, in order.
	Sealed []Sealed `json:"sealed"`
}

// Use is what one app gets.
type Use struct {
	// App is its name; its namespace is the entry's.
	App string `json:"app"`
	// Keys in order; none means all.
	Keys []string `json:"keys,omitempty"`
	// Optional says that the app runs without the Secret too.
	Optional bool `json:"optional,omitempty"`
}

// Sealed is what one member can open.
type Sealed struct {
	Member fleet.MemberID `json:"member"`
	// Key is the member's X25519 public key that Data is sealed to.
	Key  []byte `json:"key"`
	Data []byte `json:"data"`
}

// Keys returns every key that some use names, in order and each once; all says that a use wants every key.
func (e Entry) Keys() (keys []string, all bool) {
	for _, u := range e.Uses {
		if len(u.Keys) == 0 {
			return nil, true
		}
		keys = append(keys, u.Keys...)
	}
	slices.Sort(keys)
	return slices.Compact(keys), false
}

// Context returns what the entry's values are bound to when they are sealed to a member of a site.
func (e Entry) Context(site fleet.SiteName, member fleet.MemberID) Context {
	return Context{Site: site, Member: member, Namespace: e.Namespace, Name: e.Name, UID: e.UID, Version: e.Version}
}

// Compare orders entries by namespace and name.
func (e Entry) Compare(other Entry) int {
	return cmp.Or(cmp.Compare(e.Namespace, other.Namespace), cmp.Compare(e.Name, other.Name))
}

// Encode returns the section as it travels. It sorts Secrets.
func (s Section) Encode() ([]byte, error) {
	slices.SortFunc(s.Secrets, Entry.Compare)
	return wire.EncodeJSON("section secrets", s)
}

// DecodeSection reads what Encode wrote, and checks it: a section that holds one bad entry is refused whole.
func DecodeSection(data []byte) (Section, error) {
	var s Section
	if err := wire.DecodeJSON("section secrets", data, &s); err != nil {
		return Section{}, err
	}
	if len(s.Secrets) > maxEntries {
		return Section{}, fmt.Errorf("section secrets: %d secrets, at most %d are allowed: %w", len(s.Secrets), maxEntries, wire.ErrMessage)
	}
	for i, e := range s.Secrets {
		if err := e.validate(); err != nil {
			return Section{}, fmt.Errorf("section secrets: secrets[%d]: %w: %w", i, err, wire.ErrMessage)
		}
		if i > 0 && s.Secrets[i-1].Compare(e) >= 0 {
			return Section{}, fmt.Errorf("section secrets: secrets[%d]: %s/%s is named twice or out of order: %w", i, e.Namespace, e.Name, wire.ErrMessage)
		}
	}
	return s, nil
}

func (e Entry) validate() error {
	for field, value := range map[string]string{"namespace": e.Namespace, "name": e.Name, "uid": e.UID, "version": e.Version} {
		if value == "" || len(value) > maxName {
			return fmt.Errorf("%s: %d bytes, want 1 to %d", field, len(value), maxName)
		}
	}
	if len(e.Uses) > maxNames || len(e.Sealed) > maxNames {
		return fmt.Errorf("uses and sealed: %d and %d, at most %d are allowed", len(e.Uses), len(e.Sealed), maxNames)
	}
	for i, u := range e.Uses {
		if err := (fleet.AppKey{Namespace: e.Namespace, Name: u.App}).Validate(); err != nil {
			return fmt.Errorf("uses[%d]: %w", i, err)
		}
		if len(u.Keys) > maxNames {
			return fmt.Errorf("uses[%d]: %d keys, at most %d are allowed", i, len(u.Keys), maxNames)
		}
	}
	for i, sealed := range e.Sealed {
		if err := sealed.Member.Validate(); err != nil {
			return fmt.Errorf("sealed[%d]: %w", i, err)
		}
	}
	return nil
}

// Report is the module's part of a site's state document.
type Report struct {
	// Closed are Secrets that the site was sent and cannot open, by "namespace/name", with the reason.
	Closed map[string]string `json:"closed,omitempty"`
}
