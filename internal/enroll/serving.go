package enroll

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Bounds of the names of a site's gateway. maxHost and maxLabel are those of DNS (RFC 1035, 2.3.4), in bytes.
const (
	MaxServingNames = 16
	maxHost         = 253
	maxLabel        = 63
)

// sitesDomain holds the name that the hub gives each site; internal is reserved for private use.
const sitesDomain = "sites.skerry.internal"

// ErrServingName is wrapped when a name cannot be in the certificate of a gateway.
var ErrServingName = errors.New("no name for the certificate of a gateway")

// SiteHost is the DNS name that is in the certificate of every gateway of site, and of no other site's.
func SiteHost(site fleet.SiteName) string { return string(site) + "." + sitesDomain }

// ValidateServingNames refuses more than MaxServingNames names, and each that ValidateServingName refuses.
func ValidateServingNames(names []string) error {
	if len(names) > MaxServingNames {
		return fmt.Errorf("%d names, want at most %d: %w", len(names), MaxServingNames, ErrServingName)
	}
	for _, name := range names {
		if err := ValidateServingName(name); err != nil {
			return err
		}
	}
	return nil
}

// ValidateServingName refuses what is neither a DNS name nor an address at which other machines reach a
// gateway: wildcards, loopback, and names that the hub alone gives.
func ValidateServingName(name string) error {
	fail := func(why string) error {
		if len(name) > maxHost {
			name = name[:maxHost] + "…"
		}
		return fmt.Errorf("%q %s: %w", name, why, ErrServingName)
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		switch {
		case addr.Zone() != "":
			return fail("has a zone")
		case addr.Is4In6():
			return fail("is an IPv4 address written as IPv6")
		case addr.IsUnspecified(), addr.IsMulticast(), addr.IsLoopback():
			return fail("is an address at which no other machine reaches it")
		}
		return nil
	}
	if len(name) > maxHost {
		return fail(fmt.Sprintf("has %d bytes, want at most %d", len(name), maxHost))
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !validHostLabel(label) {
			return fail("is neither a DNS name without wildcards nor an address")
		}
	}
	last := labels[len(labels)-1]
	if strings.Trim(last, "0123456789") == "" {
		return fail("ends in a number and is no address")
	}
	lower := strings.ToLower(name)
	switch {
	case strings.EqualFold(last, "localhost"):
		return fail("is a name at which no other machine reaches it")
	case lower == "skerry.internal", strings.HasSuffix(lower, ".skerry.internal"):
		return fail("is a name that the hub gives")
	}
	return nil
}

func validHostLabel(label string) bool {
	if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for _, c := range []byte(label) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return false
		}
	}
	return true
}
