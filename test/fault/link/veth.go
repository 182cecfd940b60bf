package link

import (
	"fmt"
	"time"
)

// Cable is a veth pair between this host and another. Its faults are the kernel's own.
type Cable struct {
	*Namespace
}

// Cable makes a host and a cable to it.
func (n *Network) Cable() *Cable {
	n.t.Helper()
	c := &Cable{n.namespace()}
	n.ip("link", "add", c.near, "type", "veth", "peer", "name", "eth0", "netns", c.Name)
	n.ip("addr", "add", c.Here+"/30", "dev", c.near)
	n.ip("link", "set", c.near, "up")
	c.ip("addr", "add", c.There+"/30", "dev", "eth0")
	c.ip("link", "set", "eth0", "up")
	c.ip("route", "add", "default", "via", c.Here)
	return c
}

// Pull pulls the cable; Plug puts it back.
func (c *Cable) Pull() { c.net.t.Helper(); c.net.ip("link", "set", c.near, "down") }

// Plug puts the cable back.
func (c *Cable) Plug() { c.net.t.Helper(); c.net.ip("link", "set", c.near, "up") }

// Lose makes nftables drop so many of a thousand packets on their way to the other host and from it. 1000
// on one way is an asymmetric cut. The machine needs nft.
func (c *Cable) Lose(to, from int) {
	c.net.t.Helper()
	chain := func(hook, device string, perMille int) string {
		drop := ""
		switch {
		case perMille >= 1000:
			drop = device + " != \"lo\" counter drop"
		case perMille > 0:
			drop = fmt.Sprintf("%s != \"lo\" numgen random mod 1000 < %d counter drop", device, perMille)
		}
		return fmt.Sprintf("chain %s { type filter hook %s priority 0; policy accept; %s\n}\n", hook, hook, drop)
	}
	c.inside("table ip skerry\ndelete table ip skerry\ntable ip skerry {\n"+chain("input", "iifname", to)+chain("output", "oifname", from)+"}\n", "nft", "-f", "-")
}

// slowQueue bounds how long a packet waits in a slow cable before it is dropped.
const slowQueue = 2 * time.Second

// Slow bounds both ways to so many bits a second; zero takes the bound away. The machine needs tc.
func (c *Cable) Slow(bits int) {
	c.net.t.Helper()
	args := func(device string) []string {
		if bits == 0 {
			return []string{"qdisc", "replace", "dev", device, "root", "pfifo_fast"}
		}
		return []string{
			"qdisc", "replace", "dev", device, "root", "tbf", "rate", fmt.Sprintf("%dbit", bits), "burst", "4kb",
			"latency", fmt.Sprintf("%dms", slowQueue.Milliseconds()),
		}
	}
	c.net.run("", "tc", args(c.near)...)
	c.inside("", "tc", args("eth0")...)
}
