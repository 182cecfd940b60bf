package agent

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/sitecli"
)

// servingNames reports whether the gateway is to serve with a certificate from the hub, and for which names:
// those that a person gave, then the address that it listens on or, when it listens on all, the host's name
// and addresses.
func servingNames(o sitecli.RunOptions, log *slog.Logger) (serving bool, names []string, err error) {
	if o.TLSCert != "" || o.TLSKey != "" {
		return false, nil, nil
	}
	addr, err := net.ResolveTCPAddr("tcp", o.GatewayAddr) // as the gateway itself does
	if err != nil {
		return false, nil, fmt.Errorf("--gateway-addr %q: %w", o.GatewayAddr, err)
	}
	if addr.IP.IsLoopback() {
		if len(o.GatewayNames) > 0 {
			return false, nil, fmt.Errorf("--gateway-name: --gateway-addr %s serves this machine alone, without TLS: give another address, or no name", o.GatewayAddr)
		}
		return false, nil, nil
	}
	host, _, err := net.SplitHostPort(o.GatewayAddr)
	if err != nil {
		return false, nil, fmt.Errorf("--gateway-addr %q: %w", o.GatewayAddr, err)
	}
	found := []string{host, addr.IP.String()}
	if addr.IP == nil || addr.IP.IsUnspecified() {
		if found, err = hostNames(); err != nil {
			return false, nil, err
		}
	}
	names = slices.Clone(o.GatewayNames)
	for _, name := range found {
		switch {
		case enroll.ValidateServingName(name) != nil, slices.Contains(names, name):
		case len(names) == enroll.MaxServingNames:
			log.Warn("too many names for one certificate: name those that matter with --gateway-name", "left out", name)
		default:
			names = append(names, name)
		}
	}
	return true, names, nil
}

// hostNames returns the host's name, with which the gateway's URL is written, and its addresses but those
// that reach no further than one link.
func hostNames() ([]string, error) {
	var names []string
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			names = append(names, n.IP.String())
		}
	}
	return names, nil
}
