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
	// Put stores data as the newest value of subject and returns once it is on disk; as many older ones as
	// Kept says stay. When revision is not AnyRevision it must be that of the newest stored value (zero: none is stored), else
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
	// History is Watch for every value that is kept and was stored after a revision, not the newest alone:
	// none is skipped that is still kept when it is reached.
	History(ctx context.Context, pattern string, after uint64, fn Handler) error
	// Purge removes every stored value whose subject matches pattern.
	Purge(ctx context.Context, pattern string) error
	// Trim removes the older values of one subject, so that at most keep of the newest stay. Keep is at
	// least one: the newest is what the subject's writer compares with.
	Trim(ctx context.Context, subject string, keep int) error
	// Usage says what a stream of Stored holds.
	Usage(ctx context.Context, stream string) (Usage, error)
}

// Usage is what a stream holds.
type Usage struct {
	// Bytes on disk, or as near as the bus knows.
	Bytes uint64
	// Newest is the revision that was given last; zero when none was.
	Newest uint64
	// Values is how many are kept, by subject.
	Values map[string]uint64
}
