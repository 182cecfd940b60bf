package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// ErrMessage is wrapped by every error about a message that cannot be understood.
var ErrMessage = errors.New("malformed message")

// Protocol is the version of the messages in this package. A receiver refuses a higher one.
const Protocol = 1

// MaxSections bounds the sections of one manifest.
const MaxSections = 64

// Manifest is the one document that says everything a site should be. It names its sections by digest,
// so that a site fetches only what changed. The newest manifest replaces all before it.
type Manifest struct {
	Protocol int `json:"protocol"`
	// HubEpoch names one life of the hub's memory. Generations are compared only within an epoch; a
	// manifest of another epoch is newer, whatever its generation.
	HubEpoch string `json:"hubEpoch"`
	// Generation grows by one with each change of this site's manifest.
	Generation uint64 `json:"generation"`
	// Sections by name: letters, digits, '-' and '_', but not ManifestSection. A section that is absent has
	// no desired state: its module removes what it has.
	Sections map[string]SectionRef `json:"sections,omitempty"`
	// Wipe asks the site to remove every app with its data, report so, and forget its identity.
	Wipe bool `json:"wipe,omitempty"`
}

// SectionRef names one version of a section's body.
type SectionRef struct {
	Digest fleet.Digest `json:"digest"`
	// Size of the body in bytes.
	Size int64 `json:"size"`
}

// Newer reports whether m is to be taken in place of old.
func (m Manifest) Newer(old Manifest) bool {
	return m.HubEpoch != old.HubEpoch || m.Generation > old.Generation
}

// Encode returns the manifest as it travels.
func (m Manifest) Encode() ([]byte, error) {
	m.Protocol = Protocol
	return encode(m, "manifest")
}

// DecodeManifest reads what Encode wrote, and checks it.
func DecodeManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := decode(data, &m, "manifest"); err != nil {
		return Manifest{}, err
	}
	if err := checkProtocol("manifest", m.Protocol); err != nil {
		return Manifest{}, err
	}
	if m.HubEpoch == "" || m.Generation == 0 {
		return Manifest{}, fmt.Errorf("manifest: hubEpoch and generation must be set: %w", ErrMessage)
	}
	if len(m.Sections) > MaxSections {
		return Manifest{}, fmt.Errorf("manifest: %d sections, at most %d are allowed: %w", len(m.Sections), MaxSections, ErrMessage)
	}
	for name, ref := range m.Sections {
		if err := checkToken("section", name); err != nil {
			return Manifest{}, fmt.Errorf("manifest: %w", err)
		}
		if name == ManifestSection {
			return Manifest{}, fmt.Errorf("manifest: section %q is the manifest itself: %w", name, ErrMessage)
		}
		if ref.Size < 0 || ref.Size > MaxMessage {
			return Manifest{}, fmt.Errorf("manifest: section %q: size %d, want 0 to %d: %w", name, ref.Size, MaxMessage, ErrMessage)
		}
		if err := ref.Digest.Validate(); err != nil {
			return Manifest{}, fmt.Errorf("manifest: section %q: %w: %w", name, err, ErrMessage)
		}
	}
	return m, nil
}

func checkProtocol(what string, got int) error {
	if got < 1 || got > Protocol {
		return fmt.Errorf("%s: protocol %d, this program speaks 1 to %d: upgrade it: %w", what, got, Protocol, ErrMessage)
	}
	return nil
}

func encode(v any, what string) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", what, err)
	}
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("encode %s: %d bytes, at most %d are allowed: %w", what, len(data), MaxMessage, ErrTooLarge)
	}
	return data, nil
}

// decode ignores unknown fields: a newer peer may say more within the same protocol.
func decode(data []byte, v any, what string) error {
	if len(data) > MaxMessage {
		return fmt.Errorf("%s: %d bytes, at most %d are allowed: %w: %w", what, len(data), MaxMessage, ErrTooLarge, ErrMessage)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w: %w", what, err, ErrMessage)
	}
	return nil
}
