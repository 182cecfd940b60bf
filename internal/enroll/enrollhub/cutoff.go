package enrollhub

import (
	"sync"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// maxCutOff bounds the members of whom is remembered that their revocation was told.
const maxCutOff = 16 << 10

// cutOff remembers whose revocation this process told in its log, since it is put in force again and again.
// Beyond its bound, and after a start, it is told once more. It is safe for concurrent use.
type cutOff struct {
	mu   sync.Mutex
	told map[cutMember]struct{}
}

type cutMember struct {
	site   fleet.SiteName
	member fleet.MemberID
}

func newCutOff() *cutOff { return &cutOff{told: map[cutMember]struct{}{}} }

// first reports whether the member was not told of before.
func (c *cutOff) first(m Member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := cutMember{m.Site, m.ID}
	if _, ok := c.told[key]; ok {
		return false
	}
	if len(c.told) >= maxCutOff {
		clear(c.told)
	}
	c.told[key] = struct{}{}
	return true
}
