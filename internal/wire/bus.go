package wire

import (
	"context"
	"errors"
)

// Errors of every Bus, to be tested with errors.Is.
var (
	// ErrNotFound means that no value is stored under a subject.
	ErrNotFound = errors.New("no value under this subject")
	// ErrConflict means that a stored value changed since it was read.
	ErrConflict = errors.New("value changed meanwhile")
	// ErrNoResponder means that nobody listens to the subject of a request.
	ErrNoResponder = errors.New("nobody answers on this subject")
	// ErrDisconnected means that the bus cannot be reached now; the caller may try again.
	ErrDisconnected = errors.New("bus is not connected")
	// ErrTooLarge means that a message exceeds MaxMessage.
	ErrTooLarge = errors.New("message too large")
	// ErrForbidden means that the credential gives no right to this subject.
	ErrForbidden = errors.New("no right to this subject")
	// ErrClosed means that the Bus was closed by its owner.
	ErrClosed = errors.New("bus is closed")
)

// MaxMessage bounds every message on the bus, in bytes. Larger content travels over HTTPS by digest.
const MaxMessage = 256 << 10

// Message is one message as it arrived. Data belongs to the receiver.
type Message struct {
	Subject string
	// Reply is where an answer is awaited; empty when none is.
	Reply string
	Data  []byte
	// Revision orders the stored values of a subject: a later value has a higher one. It is zero for
	// messages that are not stored.
	Revision uint64
}

// Handler is called for each message of a subscription, one at a time and in order. It must not block
// for long: a subscription holds a bounded number of messages and drops the newest beyond it.
type Handler func(Message)

// Bus is what hub and sites use of the message system. All methods are safe for concurrent use, refuse
// data larger than MaxMessage with ErrTooLarge, and end with the context's error when it ends first.
type Bus interface {
	// Publish sends data to whoever listens now. It returns before anyone received it.
	Publish(ctx context.Context, subject string, data []byte) error
	// Request sends data and waits for the first answer; ErrNoResponder when nobody listens.
	Request(ctx context.Context, subject string, data []byte) (Message, error)
	// Subscribe calls fn for each message on subject, which may end in ">" or hold "*" tokens,
	// until cancel is called. Cancel waits for a call that is under way, so fn must not call it; after
	// it returned, fn is not called again. The subscription is in force at the server when Subscribe
	// returns.
	Subscribe(ctx context.Context, subject string, fn Handler) (cancel func(), err error)
	// Get returns the newest value stored under subject, or ErrNotFound. Get and Put of a subject that
	// is not of a stored kind fail with ErrNoResponder.
	Get(ctx context.Context, subject string) (Message, error)
	// Put stores data as the newest value of subject and returns once it is on disk. When revision is
	// not AnyRevision it must be that of the newest stored value (zero: none is stored), else
	// ErrConflict. Which subjects are stored is a property of the bus: see Stored.
	Put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error)
}

// AnyRevision makes Put store a value whatever is stored before it.
const AnyRevision = ^uint64(0)

// Store is what the hub uses besides Bus to follow and clear what is stored. Sites have no right to it.
type Store interface {
	// Watch calls fn for the newest value of every stored subject that matches pattern, then once with
	// the zero Message, then for each later value, in the order of revisions. Values that were replaced
	// before they were sent are skipped. A deleted subject is not told. It returns when ctx ends or the
	// watch cannot go on.
	Watch(ctx context.Context, pattern string, fn Handler) error
	// Purge removes every stored value whose subject matches pattern.
	Purge(ctx context.Context, pattern string) error
}
