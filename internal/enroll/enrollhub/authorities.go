package enrollhub

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/enroll"
)

// Files of the authorities below the directory ca. There are two at most: the one in use, and either the next, which
// sites learn before it is used, or the previous, which is trusted until nothing shows its certificates.
const (
	inUseFile    = "ca.pem"
	nextFile     = "next.pem"
	previousFile = "previous.pem"
)

const authorityName = "Skerry hub authority"

// Authority is the hub's certificate authority: the one that members pin, and during a rotation a second. It is safe
// for concurrent use, by one hub.
type Authority struct {
	dir string
	now func() time.Time

	mu sync.RWMutex
	// current is in use; of next and previous one is nil at least.
	current, next, previous *signer
}

// OpenAuthority reads the authorities below dir (mode 0600), making the first at the first start. now is the hub's
// clock.
func OpenAuthority(dir string, now func() time.Time) (*Authority, error) {
	a := &Authority{dir: dir, now: now}
	fail := func(file string, err error) (*Authority, error) {
		return nil, fmt.Errorf("the hub's authority in %s: %w: restore the file from a backup, or every site must join anew", filepath.Join(dir, file), err)
	}
	var err error
	if a.current, err = openSigner(filepath.Join(dir, inUseFile), authorityName, now()); err != nil {
		return fail(inUseFile, err)
	}
	for _, o := range []struct {
		file string
		to   **signer
	}{{nextFile, &a.next}, {previousFile, &a.previous}} {
		s, err := readSigner(filepath.Join(dir, o.file))
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && s.digest() == a.current.digest(): // Use was interrupted
		case err != nil:
			return fail(o.file, err)
		default:
			*o.to = s
		}
	}
	return a, nil
}

func (a *Authority) inUse() *signer {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.current
}

// trusted returns the one in use first.
func (a *Authority) trusted() []*signer {
	a.mu.RLock()
	defer a.mu.RUnlock()
	out := []*signer{a.current}
	for _, s := range []*signer{a.next, a.previous} {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// PEM returns the certificate of the authority in use.
func (a *Authority) PEM() []byte { return a.inUse().pem() }

// Bundle returns the certificates of all authorities, the one in use first.
func (a *Authority) Bundle() []byte {
	var b bytes.Buffer
	for _, s := range a.trusted() {
		b.Write(s.pem())
	}
	return b.Bytes()
}

// pins are the SHA-256 of the certificates that a join token carries: that of the authority in use and that of the next,
// zero when there is none.
func (a *Authority) pins() (current, next [sha256.Size]byte) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.next != nil {
		next = a.next.fingerprint()
	}
	return a.current.fingerprint(), next
}

// Expires is when the certificate of the authority in use ends.
func (a *Authority) Expires() time.Time { return a.inUse().cert.NotAfter }

// List says which authorities there are, the one in use first.
func (a *Authority) List() []enroll.Authority {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var out []enroll.Authority
	for _, o := range []struct {
		s     *signer
		state string
	}{{a.current, enroll.AuthorityInUse}, {a.next, enroll.AuthorityNext}, {a.previous, enroll.AuthorityPrevious}} {
		if o.s != nil {
			out = append(out, enroll.Authority{
				Digest: o.s.digest(), State: o.state, NotBefore: o.s.cert.NotBefore.Unix(), NotAfter: o.s.cert.NotAfter.Unix(),
			})
		}
	}
	return out
}

// ErrAuthority is wrapped when a step of a rotation cannot be taken now.
var ErrAuthority = errors.New("this step is not possible now")

// Add makes a second authority, which is not used yet.
func (a *Authority) Add() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.next != nil:
		return fmt.Errorf("authority %s was added already: use it, or drop it: %w", a.next.digest(), ErrAuthority)
	case a.previous != nil:
		return fmt.Errorf("authority %s is still trusted: drop it first: %w", a.previous.digest(), ErrAuthority)
	}
	next, err := newSigner(authorityName, a.now())
	if err == nil {
		err = next.write(filepath.Join(a.dir, nextFile))
	}
	if err != nil {
		return fmt.Errorf("add an authority: %w", err)
	}
	a.next = next
	return nil
}

// Use serves and signs with the next authority from now on; the one in use becomes the previous.
func (a *Authority) Use() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil {
		return fmt.Errorf("there is no authority that could be used: add one first: %w", ErrAuthority)
	}
	// The rename decides. Before it the previous one is the one in use, which is no harm.
	err := a.current.write(filepath.Join(a.dir, previousFile))
	if err == nil {
		err = os.Rename(filepath.Join(a.dir, nextFile), filepath.Join(a.dir, inUseFile))
	}
	if err == nil {
		err = syncDir(a.dir)
	}
	if err != nil {
		return fmt.Errorf("use authority %s: %w", a.next.digest(), err)
	}
	a.previous, a.current, a.next = a.current, a.next, nil
	return nil
}

// Drop forgets the previous authority, or the next when it was not used.
func (a *Authority) Drop() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range []struct {
		s    **signer
		file string
	}{{&a.previous, previousFile}, {&a.next, nextFile}} {
		if *o.s == nil {
			continue
		}
		err := os.Remove(filepath.Join(a.dir, o.file))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = syncDir(a.dir)
		}
		if err != nil {
			return fmt.Errorf("drop authority %s: %w", (*o.s).digest(), err)
		}
		*o.s = nil
		return nil
	}
	return fmt.Errorf("there is one authority alone, and it is in use: %w", ErrAuthority)
}
