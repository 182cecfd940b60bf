package process

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os/user"
	"strconv"
	"strings"
	"sync"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

// userKey is the prefix of records that hold the user id of an app.
const userKey = "uid/"

// users gives each app a user id that it keeps for ever: data that it wrote stays its own, and no other app
// comes to own it.
type users struct {
	mu          sync.Mutex
	bucket      *store.Bucket
	first, last int
	// salt spreads the ids of several agents on one machine over the range.
	salt string
}

// of returns the app's user id, choosing one at the first call.
func (u *users) of(key fleet.AppKey) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var uid int
	err := u.bucket.Get(userKey+key.String(), &uid)
	if err == nil || !errors.Is(err, store.ErrNotFound) {
		return uid, err
	}
	taken, err := u.taken()
	if err != nil {
		return 0, err
	}
	size := u.last - u.first + 1
	if size <= 0 || u.first <= 0 {
		return 0, fmt.Errorf("user ids %d to %d are no usable range: %w", u.first, u.last, ErrSpec)
	}
	sum := fnv.New32a()
	sum.Write([]byte(u.salt + "\x00" + key.String()))
	start := int(sum.Sum32() % uint32(size))
	for n := range size {
		uid := u.first + (start+n)%size
		if taken[uid] || known(uid) {
			continue
		}
		return uid, u.bucket.Put(userKey+key.String(), uid)
	}
	return 0, fmt.Errorf("all %d user ids from %d to %d are taken: widen the range: %w", size, u.first, u.last, ErrSpec)
}

func (u *users) taken() (map[int]bool, error) {
	keys, err := u.bucket.Keys()
	if err != nil {
		return nil, err
	}
	taken := map[int]bool{}
	for _, key := range keys {
		if !strings.HasPrefix(key, userKey) {
			continue
		}
		var uid int
		if err := u.bucket.Get(key, &uid); err != nil {
			return nil, err
		}
		taken[uid] = true
	}
	return taken, nil
}

// known reports whether the machine has a user or a group of this id: it is somebody else's.
func known(uid int) bool {
	id := strconv.Itoa(uid)
	if _, err := user.LookupId(id); err == nil {
		return true
	}
	_, err := user.LookupGroupId(id)
	return err == nil
}
