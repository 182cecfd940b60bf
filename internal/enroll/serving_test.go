package enroll_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/enroll"
)

func TestServingNames(t *testing.T) {
	label := strings.Repeat("a", 63)
	tests := []struct {
		reason, name string
		ok           bool
	}{
		{"a public name", "shop.example.com", true},
		{"a name in the local network", "till-3", true},
		{"capital letters are the same name", "Shop.Example.com", true},
		{"an internationalised name as DNS has it", "xn--bcher-kva.example", true},
		{"an address", "192.0.2.1", true},
		{"a private address", "10.0.0.7", true},
		{"an IPv6 address", "2001:db8::1", true},
		{"the longest label", label + ".example", true},
		{"the longest name", strings.Join([]string{label, label, label, label[:61]}, "."), true},
		{"one byte more", strings.Join([]string{label, label, label, label[:62]}, "."), false},
		{"a label that is too long", label + "a.example", false},
		{"a megabyte", strings.Repeat("a.", 1<<19), false},
		{"nothing", "", false},
		{"a wildcard", "*.example.com", false},
		{"a wildcard within", "shop*.example.com", false},
		{"every name", "*", false},
		{"an empty label", "shop..example", false},
		{"a trailing dot, which certificates do not have", "shop.example.", false},
		{"a hyphen first", "-shop.example", false},
		{"a hyphen last", "shop-.example", false},
		{"an underscore is for services", "_dns.example", false},
		{"letters beyond ASCII", "bücher.example", false},
		{"a zero byte, at which some readers stop", "shop.example\x00.evil.example", false},
		{"a newline", "shop\n", false},
		{"a port", "shop.example:443", false},
		{"a URL", "https://shop.example", false},
		{"too few numbers for an address", "192.0.2", false},
		{"too large a number", "192.0.2.256", false},
		{"an address in brackets", "[2001:db8::1]", false},
		{"an address with a zone", "fe80::1%eth0", false},
		{"IPv4 in IPv6 would be two spellings of one", "::ffff:192.0.2.1", false},
		{"all addresses", "0.0.0.0", false},
		{"all IPv6 addresses", "::", false},
		{"loopback would be everybody's own machine", "127.0.0.1", false},
		{"IPv6 loopback", "::1", false},
		{"its name", "localhost", false},
		{"a name below it", "shop.LOCALHOST", false},
		{"a group", "224.0.0.1", false},
		{"another site's name", "shop-2.sites.skerry.internal", false},
		{"the same in capitals", "shop-2.sites.Skerry.Internal", false},
		{"the domain itself", "skerry.internal", false},
		{"a domain that only ends alike", "notskerry.internal", true},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			err := enroll.ValidateServingName(tt.name)
			if tt.ok && err != nil || !tt.ok && !errors.Is(err, enroll.ErrServingName) {
				t.Errorf("got %v", err)
			}
			if err != nil && len(err.Error()) > 600 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
	if err := enroll.ValidateServingNames(make([]string, enroll.MaxServingNames+1)); !errors.Is(err, enroll.ErrServingName) {
		t.Errorf("too many names: %v", err)
	}
}
