// Package delivery is the core of how content reaches a site: how much of its link downloads may take, at which
// hours, and from which neighbours on its own network it may come. The hub half (deliveryhub) tells sites, the site
// half (deliverysite) keeps to it. Both import it; it does no input or output.
//
// A section that cannot be understood is refused whole, with an error that wraps ErrSection.
package delivery

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// SectionName is the name of the section, the module and its report.
const SectionName = "delivery"

// ErrSection is wrapped by every error about a section that cannot be used.
var ErrSection = errors.New("these rules of delivery cannot be used")

// Bounds of a section.
const (
	MaxWindows   = 16
	MaxAddresses = 8
	// MinBytesPerSecond is the least that a download may be slowed to: below it nothing ever arrives.
	MinBytesPerSecond = 1 << 10
)

// Section is what a site is told. Its zero value limits nothing and names nobody.
type Section struct {
	// BytesPerSecond bounds all downloads from the hub together; zero: no bound.
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty"`
	// Hours are when downloads from the hub may run, in TimeZone (IANA; empty: UTC); none: always.
	Hours    []Window `json:"hours,omitempty"`
	TimeZone string   `json:"timeZone,omitempty"`
	// Neighbours are sites on the same network: content may come from them, and they may be listened for.
	Neighbours []Neighbour `json:"neighbours,omitempty"`
}

// Window is a part of some days.
type Window struct {
	// Days are "mon" to "sun"; none: every day. A window that passes midnight belongs to the day it begins on.
	Days []string `json:"days,omitempty"`
	// From and To are times of day, "15:04". To is the first moment outside; "24:00" is midnight at the day's end.
	From string `json:"from"`
	To   string `json:"to"`
}

// Neighbour is another site on the same network.
type Neighbour struct {
	Site fleet.SiteName `json:"site"`
	// Keys are the Ed25519 keys of its members, which it proves when it is asked.
	Keys [][]byte `json:"keys"`
	// Addresses are where it listens, host and port; none when it does not.
	Addresses []string `json:"addresses,omitempty"`
}

// Report is what a site says of it.
type Report struct {
	// Addresses are where its neighbours reach it.
	Addresses []string `json:"addresses,omitempty"`
	// Waiting says until when downloads wait, in words; empty when they do not.
	Waiting string `json:"waiting,omitempty"`
}

// Encode returns the section as it travels; nil when it says nothing.
func (s Section) Encode() ([]byte, error) {
	if s.BytesPerSecond == 0 && len(s.Hours) == 0 && len(s.Neighbours) == 0 {
		return nil, nil
	}
	return json.Marshal(s)
}

// DecodeSection reads what Encode wrote, and checks it.
func DecodeSection(data []byte) (Section, error) {
	var s Section
	if len(data) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return Section{}, fmt.Errorf("%w: %w", ErrSection, err)
	}
	if err := s.Validate(); err != nil {
		return Section{}, err
	}
	return s, nil
}

// Validate reports the first field that cannot be used.
func (s Section) Validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrSection)
	}
	if s.BytesPerSecond < 0 || s.BytesPerSecond > 0 && s.BytesPerSecond < MinBytesPerSecond {
		return fail("bytesPerSecond is %d, want at least %d or none", s.BytesPerSecond, MinBytesPerSecond)
	}
	if _, err := time.LoadLocation(s.TimeZone); err != nil {
		return fail("timeZone: %v", err)
	}
	if len(s.Hours) > MaxWindows || len(s.Neighbours) > wire.MaxNeighbours {
		return fail("%d windows and %d neighbours, at most %d and %d", len(s.Hours), len(s.Neighbours), MaxWindows, wire.MaxNeighbours)
	}
	for i, w := range s.Hours {
		if err := w.Validate(); err != nil {
			return fail("hours[%d]: %v", i, err)
		}
	}
	for i, n := range s.Neighbours {
		if err := n.validate(); err != nil {
			return fail("neighbours[%d]: %v", i, err)
		}
	}
	return nil
}

func (n Neighbour) validate() error {
	if err := n.Site.Validate(); err != nil {
		return err
	}
	if len(n.Addresses) > MaxAddresses {
		return fmt.Errorf("%d addresses, at most %d", len(n.Addresses), MaxAddresses)
	}
	for _, k := range n.Keys {
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("a key of %d bytes, want %d", len(k), ed25519.PublicKeySize)
		}
	}
	for _, a := range n.Addresses {
		if err := CheckAddress(a); err != nil {
			return err
		}
	}
	return nil
}

// CheckAddress reports whether an address is an IP address with a port: a site says it of itself, and no name
// may lead its neighbours elsewhere. Loopback is for sites that share a machine.
func CheckAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return fmt.Errorf("address %q: want host:port", a)
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.IsUnspecified() || ip.IsMulticast() || port == "" || port == "0" {
		return fmt.Errorf("address %q: want an IP address and a port", a)
	}
	return nil
}

// days are the names of Window.Days, by time.Weekday.
var days = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Validate reports what is wrong with a window.
func (w Window) Validate() error {
	for _, d := range w.Days {
		if !slices.Contains(days[:], d) {
			return fmt.Errorf("day %q: want mon, tue, wed, thu, fri, sat or sun", d)
		}
	}
	from, err := clock(w.From)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	to, err := clock(w.To)
	if err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if from == to || from == 24*time.Hour {
		return fmt.Errorf("from %s to %s is no time at all", w.From, w.To)
	}
	return nil
}

// clock reads a time of day as the time since midnight by the clock on the wall.
func clock(s string) (time.Duration, error) {
	if s == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%q: want a time of day such as 22:00", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// contains reports whether the wall's clock, at day and since midnight, lies in the window.
func (w Window) contains(day time.Weekday, at time.Duration) bool {
	from, errFrom := clock(w.From)
	to, errTo := clock(w.To)
	if errFrom != nil || errTo != nil {
		return false
	}
	on := func(d time.Weekday) bool { return len(w.Days) == 0 || slices.Contains(w.Days, days[d]) }
	if from < to {
		return on(day) && at >= from && at < to
	}
	return on(day) && at >= from || on((day+6)%7) && at < to
}

// Open reports whether downloads from the hub may run at t. A zero t means that nobody knows the time: then only
// rules without hours are open.
func (s Section) Open(t time.Time) bool {
	if len(s.Hours) == 0 {
		return true
	}
	zone, err := time.LoadLocation(s.TimeZone)
	if t.IsZero() || err != nil {
		return false
	}
	t = t.In(zone)
	at := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second
	for _, w := range s.Hours {
		if w.contains(t.Weekday(), at) {
			return true
		}
	}
	return false
}

// Describe says the hours in words, such as "mon,tue 22:00-05:00 (Europe/Berlin)".
func (s Section) Describe() string {
	var out []string
	for _, w := range s.Hours {
		out = append(out, strings.TrimSpace(strings.Join(w.Days, ",")+" "+w.From+"-"+w.To))
	}
	zone := s.TimeZone
	if zone == "" {
		zone = "UTC"
	}
	return strings.Join(out, ", ") + " (" + zone + ")"
}
