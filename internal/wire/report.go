package wire

import (
	"encoding/json"
	"fmt"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Report is a member's whole state. The newest one replaces all before it.
type Report struct {
	Protocol int            `json:"protocol"`
	Site     fleet.SiteName `json:"site"`
	Member   fleet.MemberID `json:"member"`
	// Epoch names one life of the site's store; Sequence grows within it. Of two reports of one epoch
	// the higher sequence is newer, whatever a clock said.
	Epoch    string `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	// HubEpoch and Generation name the manifest that the site last took.
	HubEpoch   string `json:"hubEpoch,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	// Wiped says that the site removed everything as Manifest.Wipe asked.
	Wiped bool `json:"wiped,omitempty"`

	// Version is the agent's own.
	Version  string         `json:"version,omitempty"`
	Hardware fleet.Hardware `json:"hardware"`
	// Gateway is the URL at which this site answers its callers, empty when it has no gateway.
	Gateway string `json:"gateway,omitempty"`
	// Neighbours are the sites on the same network that this one looks for, and whether it hears them.
	Neighbours map[fleet.SiteName]bool `json:"neighbours,omitempty"`
	// Problems are faults of the agent itself, by module, in words for people.
	Problems map[string]string `json:"problems,omitempty"`
	// Modules holds each module's own report by section name.
	Modules map[string]json.RawMessage `json:"modules,omitempty"`
}

// Newer reports whether r is to be taken in place of old.
func (r Report) Newer(old Report) bool {
	return r.Member != old.Member || r.Epoch != old.Epoch || r.Sequence > old.Sequence
}

// Encode returns the report as it travels.
func (r Report) Encode() ([]byte, error) {
	r.Protocol = Protocol
	return encode(r, "report")
}

// DecodeReport reads what Encode wrote, and checks it.
func DecodeReport(data []byte) (Report, error) {
	var r Report
	if err := decode(data, &r, "report"); err != nil {
		return Report{}, err
	}
	if err := checkProtocol("report", r.Protocol); err != nil {
		return Report{}, err
	}
	if err := r.Site.Validate(); err != nil {
		return Report{}, fmt.Errorf("report: %w: %w", err, ErrMessage)
	}
	if err := r.Member.Validate(); err != nil {
		return Report{}, fmt.Errorf("report: %w: %w", err, ErrMessage)
	}
	if len(r.Neighbours) > MaxNeighbours {
		return Report{}, fmt.Errorf("report of site %q: %d neighbours, at most %d: %w", r.Site, len(r.Neighbours), MaxNeighbours, ErrMessage)
	}
	if r.Epoch == "" || r.Sequence == 0 {
		return Report{}, fmt.Errorf("report of site %q: epoch and sequence must be set: %w", r.Site, ErrMessage)
	}
	return r, nil
}

// MaxNeighbours bounds the neighbours of one site.
const MaxNeighbours = 16

// AliveSeconds is how often a member says that it is there.
const AliveSeconds = 10

// Alive is what a member says on AliveSubject.
type Alive struct {
	// Sequence of the last report that the member stored; a hub that knows an older one missed it.
	Sequence uint64 `json:"sequence"`
	// Leaving says that the member stops now, in order.
	Leaving bool `json:"leaving,omitempty"`
	// Reason says why, when the member leaves and knows.
	Reason fleet.Leaving `json:"reason,omitempty"`
}
