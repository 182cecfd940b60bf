package ociclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// What an *Error wraps.
var (
	// ErrReference says that the reference is malformed.
	ErrReference = errors.New("malformed reference")
	// ErrUnauthenticated says that the registry does not know who asks.
	ErrUnauthenticated = errors.New("the registry does not know you")
	// ErrDenied says that who asks may not do this.
	ErrDenied = errors.New("the registry does not allow this")
	// ErrVersionExists says that the tag exists with other content.
	ErrVersionExists = errors.New("this version exists with other content")
	// ErrNotFound says that the reference names nothing.
	ErrNotFound = errors.New("there is no such version")
	// ErrNotBundle says that what the reference names is no image index.
	ErrNotBundle = errors.New("this is not a bundle")
	// ErrUnreachable says that the registry did not answer, or that its certificate is not trusted.
	ErrUnreachable = errors.New("the registry cannot be reached")
	// ErrRegistry says that the registry answered with an error that is its own.
	ErrRegistry = errors.New("the registry failed")
)

// errPlain is the error of guard.
var errPlain = errors.New("plain HTTP is not allowed")

// Error says which operation failed on which reference, why, and what to do next.
type Error struct {
	// Op is "push", "resolve" or "read"; Ref is what was asked for.
	Op, Ref string
	// Kind is one of this package's error values, or context.Canceled or DeadlineExceeded.
	Kind error
	// Cause is what the registry or the connection said.
	Cause error
	hint  string
}

// Error returns one sentence.
func (e *Error) Error() string {
	msg := fmt.Sprintf("%s %s: %v", e.Op, e.Ref, e.Kind)
	if e.Cause == nil {
		return msg
	}
	return msg + ": " + said(e.Cause)
}

// Unwrap returns Kind and Cause.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Cause} }

// Hint returns the next step, in one sentence.
func (e *Error) Hint() string { return e.hint }

// said keeps of a registry's answer what it says to people.
func said(err error) string {
	var te *transport.Error
	if errors.As(err, &te) && len(te.Errors) > 0 {
		var parts []string
		for _, d := range te.Errors {
			parts = append(parts, d.Message)
		}
		return strings.Join(parts, "; ")
	}
	return err.Error()
}

func (op operation) fail(kind, cause error) error {
	return &Error{Op: op.verb, Ref: op.ref, Kind: kind, Cause: cause, hint: op.hint(kind, cause)}
}

// explain finds out what kind of error err is.
func (op operation) explain(err error) error {
	if known := (*Error)(nil); errors.As(err, &known) {
		return known
	}
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ended) {
			return op.fail(ended, err)
		}
	}
	var te *transport.Error
	if !errors.As(err, &te) {
		return op.fail(ErrUnreachable, err)
	}
	switch te.StatusCode {
	case http.StatusUnauthorized:
		return op.fail(ErrUnauthenticated, err)
	case http.StatusForbidden:
		return op.fail(ErrDenied, err)
	case http.StatusConflict:
		return op.fail(ErrVersionExists, err)
	case http.StatusNotFound:
		return op.fail(ErrNotFound, err)
	}
	return op.fail(ErrRegistry, err)
}

func (op operation) hint(kind, cause error) string {
	host := "the registry"
	if ref, err := name.ParseReference(op.ref); err == nil {
		host = ref.Context().RegistryStr()
	}
	switch {
	case errors.Is(kind, ErrReference):
		return "write it as host/namespace/name:version, such as 127.0.0.1:6443/default/hello:1.0.0"
	case errors.Is(kind, ErrUnauthenticated) && op.opts.Keychain == nil:
		return "the hub takes your Kubernetes identity: check the kubeconfig with `kubectl auth whoami`"
	case errors.Is(kind, ErrUnauthenticated):
		return "log in first: docker login " + host
	case errors.Is(kind, ErrDenied) && op.opts.Keychain == nil:
		return "ask who runs the fleet for the right to create bundles in this namespace"
	case errors.Is(kind, ErrDenied):
		return "your login at " + host + " lacks this right: log in as another user, or ask its owner"
	case errors.Is(kind, ErrVersionExists):
		return "versions never change once they are pushed: choose a new one with --version"
	case errors.Is(kind, ErrNotFound):
		return "check namespace, name and version, or push it first"
	case errors.Is(kind, ErrNotBundle):
		return "push the app with `skerry push`, which makes a bundle of it"
	case errors.Is(kind, ErrUnreachable) && strings.Contains(cause.Error(), "x509"):
		return "the certificate of " + host + " is not trusted here: check the address, or add its CA to this machine"
	case errors.Is(kind, ErrUnreachable):
		return "check that " + host + " is up and that no proxy or firewall stands between"
	case errors.Is(kind, ErrRegistry):
		return "try again; if it persists, the log of " + host + " says why"
	}
	return ""
}
