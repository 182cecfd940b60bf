package link

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/internal/testenv"
)

// Needs is what a test that uses this package requires of the machine.
func Needs() []testenv.Need {
	return []testenv.Need{testenv.Root(), testenv.Tool("ip"), testenv.Tool("nsenter"), testenv.Tool("unshare"), {
		Name: "the right to make network namespaces", Met: func() bool {
			return exec.Command("unshare", "--net", "ip", "link", "add", "type", "veth").Run() == nil
		},
	}, {
		Name: "TUN devices", Met: func() bool { _, err := os.Stat(tunDevice); return err == nil },
	}}
}

// Network hands out namespaces, names and addresses for one test. This host is its middle; each Namespace
// is another host.
type Network struct {
	t    testing.TB
	id   int
	last int
}

// New makes a network without hosts. Two processes have the same names and addresses only when their
// numbers are 16384 apart.
func New(t testing.TB) *Network {
	t.Helper()
	testenv.Require(t, Needs()...)
	return &Network{t: t, id: os.Getpid() % 16384}
}

// number counts hosts and addresses of the network.
func (n *Network) number() int {
	n.t.Helper()
	n.last++
	if n.last > 60 {
		n.t.Fatal("a network has room for 60 hosts and addresses")
	}
	return n.last
}

// address is one of the four of a block: 10.X.Y.0/24 is the network's own.
func (n *Network) address(block, host int) string {
	return fmt.Sprintf("10.%d.%d.%d", 192+n.id>>8, n.id&255, block*4+host)
}

// Address is one more address of this host, which every namespace reaches through its link while it is up.
type Address struct {
	IP  string
	up  bool
	net *Network
}

// Address gives this host one more address, which is up.
func (n *Network) Address() *Address {
	n.t.Helper()
	a := &Address{IP: n.address(n.number(), 1), net: n}
	n.t.Cleanup(a.Down)
	a.Up()
	return a
}

// Up takes the address, if it is not up.
func (a *Address) Up() {
	a.net.t.Helper()
	if !a.up {
		a.net.ip("addr", "add", a.IP+"/32", "dev", "lo")
		a.up = true
	}
}

// Down gives the address up, if it is up, as a host that moves does: what is sent there is lost.
func (a *Address) Down() {
	a.net.t.Helper()
	if a.up {
		a.net.ip("addr", "del", a.IP+"/32", "dev", "lo")
		a.up = false
	}
}

func (n *Network) ip(args ...string) { n.t.Helper(); n.run("", "ip", args...) }

// run runs a tool, with input on its standard input, that must not fail.
func (n *Network) run(input, name string, args ...string) {
	n.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// Namespace is another host: a network namespace.
type Namespace struct {
	Name string
	// Here is this host's address on the link between the two, There the other's.
	Here, There string
	// near is this host's device of that link.
	near string
	net  *Network
}

// namespace makes a host that has no link yet.
func (n *Network) namespace() *Namespace {
	n.t.Helper()
	k := n.number()
	s := &Namespace{
		Name: fmt.Sprintf("skerry-%d-%d", n.id, k), near: fmt.Sprintf("sk%dx%d", n.id, k),
		Here: n.address(k, 1), There: n.address(k, 2), net: n,
	}
	n.ip("netns", "add", s.Name)
	n.t.Cleanup(func() { n.ip("netns", "del", s.Name) })
	s.ip("link", "set", "lo", "up")
	return s
}

func (s *Namespace) ip(args ...string) {
	s.net.t.Helper()
	s.net.ip(append([]string{"-n", s.Name}, args...)...)
}

// inside runs a tool in the namespace.
func (s *Namespace) inside(input, name string, args ...string) {
	s.net.t.Helper()
	s.net.run(input, "nsenter", s.Args(append([]string{name}, args...)...)...)
}

// Args are the arguments of nsenter that run a program at this host. Not `ip netns exec`, which would hide
// the machine's control groups.
func (s *Namespace) Args(args ...string) []string {
	return append([]string{"--net=" + s.path()}, args...)
}

func (s *Namespace) path() string { return "/run/netns/" + s.Name }

// Dial connects from this host; address is an address and a port, not a name.
func (s *Namespace) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	entered := s.enter(func() { conn, err = (&net.Dialer{}).DialContext(ctx, network, address) })
	if entered != nil {
		return nil, entered
	}
	return conn, err
}

// enter runs fn on a thread that is in the namespace: what fn opens stays there.
func (s *Namespace) enter(fn func()) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", s.Name, err)
	}
	defer home.Close()
	there, err := os.Open(s.path())
	if err == nil {
		defer there.Close()
		err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", s.Name, err)
	}
	fn()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		// The thread stays locked, and ends with its goroutine: nobody else may run in there.
		return fmt.Errorf("leave namespace %s: %w", s.Name, err)
	}
	runtime.UnlockOSThread()
	return nil
}
