package agent

import (
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/sitecli"
)

func TestServingNames(t *testing.T) {
	many := slices.Repeat([]string{"a.example"}, enroll.MaxServingNames)
	tests := []struct {
		reason  string
		o       sitecli.RunOptions
		serving bool
		names   []string
		fails   string
	}{
		{"loopback is plain", sitecli.RunOptions{GatewayAddr: "127.0.0.1:8080"}, false, nil, ""},
		{"another loopback address too", sitecli.RunOptions{GatewayAddr: "127.0.0.2:8080"}, false, nil, ""},
		{"IPv6 loopback too", sitecli.RunOptions{GatewayAddr: "[::1]:8080"}, false, nil, ""},
		{"files win", sitecli.RunOptions{GatewayAddr: "192.0.2.1:443", TLSCert: "a", TLSKey: "b"}, false, nil, ""},
		{"an address is its own name", sitecli.RunOptions{GatewayAddr: "192.0.2.1:443"}, true, []string{"192.0.2.1"}, ""},
		{"an IPv6 address too", sitecli.RunOptions{GatewayAddr: "[2001:db8::1]:443"}, true, []string{"2001:db8::1"}, ""},
		{"given names come first", sitecli.RunOptions{GatewayAddr: "192.0.2.1:443", GatewayNames: []string{"shop.example.com"}}, true, []string{"shop.example.com", "192.0.2.1"}, ""},
		{"a name that is the address is there once", sitecli.RunOptions{GatewayAddr: "192.0.2.1:443", GatewayNames: []string{"192.0.2.1"}}, true, []string{"192.0.2.1"}, ""},
		{"what was found gives way to what was given", sitecli.RunOptions{GatewayAddr: "192.0.2.1:443", GatewayNames: many}, true, many, ""},
		{"a name on loopback would have no effect", sitecli.RunOptions{GatewayAddr: "127.0.0.1:443", GatewayNames: []string{"shop.example.com"}}, false, nil, "--gateway-name"},
		{"no address", sitecli.RunOptions{GatewayAddr: "nonsense"}, false, nil, "--gateway-addr"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			serving, names, err := servingNames(tt.o, slog.New(slog.DiscardHandler))
			if (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Fatalf("got %v, want one about %q", err, tt.fails)
			}
			if diff := cmp.Diff(tt.names, names); diff != "" || serving != tt.serving {
				t.Errorf("serving %v, names (-want +got):\n%s", serving, diff)
			}
		})
	}
}

func TestServingNamesOfAllAddresses(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, listen := range []string{"0.0.0.0:443", "[::]:443", ":443"} {
		serving, names, err := servingNames(sitecli.RunOptions{GatewayAddr: listen}, slog.New(slog.DiscardHandler))
		if err != nil || !serving {
			t.Fatalf("%s: serving %v: %v", listen, serving, err)
		}
		if err := enroll.ValidateServingNames(names); err != nil {
			t.Errorf("%s: the hub would refuse %q: %v", listen, names, err)
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if want := ok && n.IP.IsGlobalUnicast(); ok && len(names) < enroll.MaxServingNames && slices.Contains(names, n.IP.String()) != want {
				t.Errorf("%s: %s among %q: want %v", listen, n.IP, names, want)
			}
		}
	}
}
