// Package link joins network namespaces of one test by links that go wrong on purpose: veth pairs on which
// the kernel drops (nftables) and slows (tbf), and pairs of TUN devices between which a relay delays,
// reorders, doubles, drops, slows and cuts packets, from a seeded source of chance.
//
// Only tests import it. They need root; Needs says what else. Everything it makes has the process's number
// in its name and goes with the test.
package link
