package natsserver

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
)

// forever is a time of issue that no credential of a revoked key comes after: a member's key is never
// used for another member, so its revocation has no end.
var forever = time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC)

const revocationsFile = "revocations.json"

// revocations are the users whose credentials hold no more, kept in one file. They are few: one for each
// member that was revoked or replaced, and forgotten once its last credential has ended by itself,
// because nobody issues a new one.
type revocations struct {
	path string
	keep time.Duration

	mu    sync.Mutex
	users map[string]int64 // public key to when it was revoked, in seconds since 1970
}

func loadRevocations(dir string, keep time.Duration, now time.Time) (*revocations, error) {
	r := &revocations{path: filepath.Join(dir, revocationsFile), keep: keep, users: map[string]int64{}}
	data, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read revocations of the bus: %w", err)
	}
	if err := json.Unmarshal(data, &r.users); err != nil {
		return nil, fmt.Errorf("revocations of the bus in %s: %w: restore the file from a backup", r.path, err)
	}
	maps.DeleteFunc(r.users, func(_ string, at int64) bool { return now.Sub(time.Unix(at, 0)) > r.keep })
	return r, nil
}

// add stores that users are revoked; false when all were before.
func (r *revocations) add(now time.Time, users ...string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(r.users)
	for _, u := range users {
		if _, known := next[u]; !known {
			next[u] = now.Unix()
		}
	}
	if len(next) == len(r.users) {
		return false, nil
	}
	data, err := json.Marshal(next)
	if err != nil {
		return false, fmt.Errorf("encode revocations: %w", err)
	}
	if err := writeFile(r.path, data); err != nil {
		return false, err
	}
	r.users = next
	return true, nil
}

func (r *revocations) has(user string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.users[user]
	return ok
}

func (r *revocations) list() jwt.RevocationList {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make(jwt.RevocationList, len(r.users))
	for u := range r.users {
		list[u] = forever.Unix()
	}
	return list
}

// ErrRevoked is wrapped when a credential is asked for a key that was revoked.
var ErrRevoked = errors.New("key is revoked")

// Revoke cuts off the users of keys at once, and for good: no credential for these keys holds any more,
// over restarts too. It is idempotent and returns once the revocations are on disk and in force.
func (s *Server) Revoke(keys ...ed25519.PublicKey) error {
	users := make([]string, 0, len(keys))
	for _, key := range keys {
		user, err := userKey(key)
		if err != nil {
			return fmt.Errorf("revoke on the bus: %w", err)
		}
		users = append(users, user)
	}
	changed, err := s.revoked.add(s.now(), users...)
	if err != nil || !changed {
		return err
	}
	return s.applyAccount()
}
