// Package skerry is what a WebAssembly module at a Skerry site may ask of it: to be started ahead of its
// request, key-value storage, and outbound HTTP requests. It needs nothing but the standard library, and Go's
// own toolchain: GOOS=wasip1 GOARCH=wasm go build.
//
// A module serves one request and is gone; it has one goroutine's worth of a processor, and every call waits
// for its answer. What a bundle does not declare is refused with ErrRefused. Built for anything else than
// wasip1 the package compiles, and every call returns ErrNotAtSite.
package skerry

import (
	"errors"
	"fmt"
)

// Errors of this package, by what the site answers. They are wrapped with what it says of the case.
var (
	// ErrNotAtSite says that this program does not run as a module at a site.
	ErrNotAtSite = errors.New("skerry: not at a site: build with GOOS=wasip1 GOARCH=wasm and run it there")
	ErrNotFound  = errors.New("skerry: not found")
	ErrInvalid   = errors.New("skerry: invalid")
	ErrRefused   = errors.New("skerry: refused: the bundle does not allow it")
	ErrLimit     = errors.New("skerry: a limit is reached")
	ErrFailed    = errors.New("skerry: failed")
)

// The site's answers, by docs/spec/wasm.md.
const (
	codeOK       = 0
	codeNotFound = 2
	codeTooSmall = 3
	codeInvalid  = 4
	codeRefused  = 5
	codeLimit    = 6
)

// failure turns the site's answer into an error.
func failure(what string, code uint32) error {
	var err error
	switch code {
	case codeOK:
		return nil
	case codeNotFound:
		err = ErrNotFound
	case codeInvalid:
		err = ErrInvalid
	case codeRefused:
		err = ErrRefused
	case codeLimit:
		err = ErrLimit
	default:
		err = ErrFailed
	}
	if said := host.said(); said != "" {
		return fmt.Errorf("%w: %s: %s", err, what, said)
	}
	return fmt.Errorf("%w: %s", err, what)
}

// site is what the functions of the site look like in Go. Buffers are read or written before a call returns.
type site interface {
	ready() (environ []string, code uint32)
	said() string
	keyValue
	outbound
}

type keyValue interface {
	get(key string, into []byte) (n, code uint32)
	put(key string, value []byte) uint32
	del(key string) uint32
	list(prefix, after string, into []byte) (n, code uint32)
}

type outbound interface {
	open(request []byte) (answer, code uint32)
	read(answer uint32, into []byte) (n, code uint32)
	close(answer uint32) uint32
}
