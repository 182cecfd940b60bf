// Package bundle makes bundles: it reads an app's directory, builds the program, and packs the files into
// an OCI index that a registry takes. It also lays out the directory of a new app.
//
// It is a leaf of package app for cli and cmd, and imports app, the types of OCI images, and the
// embedded examples. The same source gives the same digest, wherever and whenever it is built with the
// same Go toolchain. Errors wrap ErrSource, ErrToolchain or ErrCompile, and those that a person can mend
// are an *Error with a hint.
package bundle

import (
	"errors"
	"fmt"
)

// What errors of this package wrap.
var (
	// ErrSource says that the app's directory is not as it must be.
	ErrSource = errors.New("the app cannot be bundled")
	// ErrToolchain says that the program that builds the app is missing or does not work.
	ErrToolchain = errors.New("the Go toolchain does not work")
	// ErrCompile says that the app does not compile.
	ErrCompile = errors.New("the app does not compile")
)

// Error is an error that the author of an app can mend.
type Error struct {
	// Kind is one of this package's error values.
	Kind error
	// Message is one sentence that names file, field and value.
	Message string
	hint    string
}

// Error returns Message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns Kind.
func (e *Error) Unwrap() error { return e.Kind }

// Hint returns the next step in one sentence; empty when the message says all.
func (e *Error) Hint() string { return e.hint }

func failf(kind error, hint, format string, args ...any) error {
	return &Error{Kind: kind, hint: hint, Message: fmt.Sprintf(format, args...)}
}
