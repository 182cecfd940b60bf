package app

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// SectionName is the name of the section and of the module that owns it.
const SectionName = "apps"

// Section is all that a site is told of its apps. An app that it does not name leaves the site.
type Section struct {
	// Facts are those of the site: they stand in the section so that a changed label reaches the site.
	Facts fleet.Facts `json:"facts"`
	// Apps in the order of their keys.
	Apps []Placement `json:"apps"`
}

// Placement is one app as one site should run it: a pure function of a release and the site's facts.
type Placement struct {
	App fleet.AppKey `json:"app"`
	// Release is the name of the Release object, for people; Digest is what decides whether anything
	// changed.
	Release string `json:"release"`
	Version string `json:"version,omitempty"`
	// Digest of the rest of the placement; see Seal.
	Digest fleet.Digest `json:"digest"`
	Bundle Bundle       `json:"bundle"`
	Route  *Route       `json:"route,omitempty"`
	// Env overrides the bundle's.
	Env map[string]string `json:"env,omitempty"`
	// Config is the app's configuration, nil when it has none.
	Config *Config `json:"config,omitempty"`
	// Secrets name what the app gets of Secrets of its namespace; their values come in a section of their own.
	Secrets []SecretRef `json:"secrets,omitempty"`
	// AllowRoot lets the program run as root, as a SiteGrant permits.
	AllowRoot bool `json:"allowRoot,omitempty"`
	// RemoveData says what becomes of data directories when the app leaves the site.
	RemoveData bool `json:"removeData,omitempty"`
}

// Bundle names content in the hub's registry.
type Bundle struct {
	Repository string       `json:"repository"`
	Digest     fleet.Digest `json:"digest"`
	// Size of the index in bytes.
	Size int64 `json:"size"`
}

// Route is which requests at the site's gateway belong to the app.
type Route struct {
	Host string `json:"host,omitempty"`
	Path string `json:"path"`
}

// Seal sets Digest from all other fields.
func (p *Placement) Seal() error {
	p.Digest = ""
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("app %s: digest of placement: %w", p.App, err)
	}
	p.Digest = fleet.DigestOf(data)
	return nil
}

// Encode returns the section as it travels. It sorts Apps.
func (s Section) Encode() ([]byte, error) {
	sort.Slice(s.Apps, func(i, j int) bool { return s.Apps[i].App.String() < s.Apps[j].App.String() })
	return wire.EncodeJSON("section apps", s)
}

// DecodeSection reads what Encode wrote, and checks it: a section that holds one bad placement is refused
// whole, so that a site never acts on half of it.
func DecodeSection(data []byte) (Section, error) {
	var s Section
	if err := wire.DecodeJSON("section apps", data, &s); err != nil {
		return Section{}, err
	}
	seen := map[fleet.AppKey]bool{}
	for i, p := range s.Apps {
		if err := p.Validate(); err != nil {
			return Section{}, fmt.Errorf("section apps: apps[%d]: %w: %w", i, err, wire.ErrMessage)
		}
		if seen[p.App] {
			return Section{}, fmt.Errorf("section apps: apps[%d]: app %s is named twice: %w", i, p.App, wire.ErrMessage)
		}
		seen[p.App] = true
	}
	return s, nil
}

// Validate reports the first field that cannot be used.
func (p Placement) Validate() error {
	if err := p.App.Validate(); err != nil {
		return err
	}
	if err := p.Bundle.Digest.Validate(); err != nil {
		return fmt.Errorf("app %s: bundle.digest: %w", p.App, err)
	}
	if p.Bundle.Size <= 0 || p.Bundle.Size > MaxManifestBytes {
		return fmt.Errorf("app %s: bundle.size: %d, want 1 to %d", p.App, p.Bundle.Size, MaxManifestBytes)
	}
	if !LocalPath(p.Bundle.Repository) {
		return fmt.Errorf("app %s: bundle.repository: %q is no repository", p.App, p.Bundle.Repository)
	}
	if p.Route != nil && !strings.HasPrefix(p.Route.Path, "/") {
		return fmt.Errorf("app %s: route.path: %q must begin with \"/\"", p.App, p.Route.Path)
	}
	for name, value := range p.Env {
		if err := CheckEnv(name, value); err != nil {
			return fmt.Errorf("app %s: env: %w", p.App, err)
		}
	}
	if err := CheckSecretRefs(p.Secrets, p.Env); err != nil {
		return fmt.Errorf("app %s: %w", p.App, err)
	}
	if err := p.Config.validate(); err != nil {
		return fmt.Errorf("app %s: config: %w", p.App, err)
	}
	return p.Digest.Validate()
}

// Report is the module's part of a site's state document.
type Report struct {
	Apps []AppReport `json:"apps"`
}

// AppReport is where one app stands at one site.
type AppReport struct {
	App fleet.AppKey `json:"app"`
	// Desired is the placement the site works towards; Running the one that answers now, empty when none.
	Desired ReleaseRef `json:"desired"`
	Running ReleaseRef `json:"running,omitzero"`
	// Phase of Desired.
	Phase fleet.Phase `json:"phase"`
	// Message says why, when there is something to say.
	Message string `json:"message,omitempty"`
	// Since is when Phase began by the site's own clock, in seconds since 1970.
	Since    int64  `json:"since,omitempty"`
	Restarts int    `json:"restarts,omitempty"`
	URL      string `json:"url,omitempty"`
	// Conditions are standing remarks, such as "LimitsNotEnforced", with a sentence each.
	Conditions map[string]string   `json:"conditions,omitempty"`
	Counts     fleet.RequestCounts `json:"counts,omitzero"`
}

// ReleaseRef names a release and the digest of what a site makes of it.
type ReleaseRef struct {
	Release string       `json:"release,omitempty"`
	Version string       `json:"version,omitempty"`
	Digest  fleet.Digest `json:"digest,omitempty"`
}

// Healthy reports whether the site serves exactly what it was told.
func (r AppReport) Healthy() bool {
	return r.Phase.Healthy() && r.Running.Digest == r.Desired.Digest
}
