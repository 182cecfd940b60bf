package enrollhub

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rates of requests. A fleet behind one address that comes back at once is admitted within minutes; a
// guesser is not, and has 2 to the power of 256 secrets before him anyway: the bounds spare the hub work.
const (
	perAddress      = rate.Limit(20)
	perAddressBurst = 200
	inTotal         = rate.Limit(200)
	inTotalBurst    = 1000
	// maxAddresses bounds each of the two generations of addresses that are remembered.
	maxAddresses = 4096
)

// limiter bounds requests in total and from each address.
type limiter struct {
	now func() time.Time

	mu    sync.Mutex
	total *rate.Limiter
	// young holds the addresses seen last; when it is full it becomes old, and the old are forgotten.
	young, old map[netip.Prefix]*rate.Limiter
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, total: rate.NewLimiter(inTotal, inTotalBurst), young: map[netip.Prefix]*rate.Limiter{}}
}

// allow reports whether a request from remote, "address:port", may be served now. What one address asks
// too much does not count against all.
func (l *limiter) allow(remote string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(network(remote)).AllowN(l.now(), 1) && l.total.AllowN(l.now(), 1)
}

// network is what counts as one address: for IPv6 the 64 bits that one customer gets.
func network(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (l *limiter) of(n netip.Prefix) *rate.Limiter {
	if found, ok := l.young[n]; ok {
		return found
	}
	found, ok := l.old[n]
	if !ok {
		found = rate.NewLimiter(perAddress, perAddressBurst)
	}
	if len(l.young) >= maxAddresses {
		l.old, l.young = l.young, map[netip.Prefix]*rate.Limiter{}
	}
	l.young[n] = found
	return found
}
