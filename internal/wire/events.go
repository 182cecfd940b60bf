package wire

import (
	"fmt"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// MaxEventRecords bounds the records of one batch.
const MaxEventRecords = 1024

// EventBatch is what a member stores on EventsSubject: events that it kept, in their order. The newest batch
// that is stored there is the hub's mark: every record of its epoch up to its last was accepted. A member
// stores the next on the condition that the newest is the one that it knows, so that each is accepted once
// however often its acknowledgement was lost.
type EventBatch struct {
	Protocol int            `json:"protocol"`
	Site     fleet.SiteName `json:"site"`
	Member   fleet.MemberID `json:"member"`
	// Epoch names one life of the numbers; sequences are compared within it alone.
	Epoch string `json:"epoch"`
	// Records are at least one, their sequences growing. A number that is left out was dropped at the site.
	Records []EventRecord `json:"records"`
	// Dropped counts what the site dropped for want of room in this epoch, by class. It only grows.
	Dropped map[fleet.EventClass]uint64 `json:"dropped,omitempty"`
}

// EventRecord is an event with its number.
type EventRecord struct {
	// Sequence grows by one with each event of an epoch, from 1.
	Sequence uint64 `json:"sequence"`
	fleet.Event
}

// Last is the highest number in the batch.
func (b EventBatch) Last() uint64 { return b.Records[len(b.Records)-1].Sequence }

// Encode returns the batch as it travels.
func (b EventBatch) Encode() ([]byte, error) {
	b.Protocol = Protocol
	return encode(b, "events")
}

// DecodeEventBatch reads what Encode wrote, and checks it. Classes that it does not know pass: a newer site
// may have more.
func DecodeEventBatch(data []byte) (EventBatch, error) {
	var b EventBatch
	if err := decode(data, &b, "events"); err != nil {
		return EventBatch{}, err
	}
	if err := b.check(); err != nil {
		return EventBatch{}, err
	}
	return b, nil
}

func (b EventBatch) check() error {
	if err := checkProtocol("events", b.Protocol); err != nil {
		return err
	}
	if err := b.Site.Validate(); err != nil {
		return fmt.Errorf("events: %w: %w", err, ErrMessage)
	}
	if err := b.Member.Validate(); err != nil {
		return fmt.Errorf("events: %w: %w", err, ErrMessage)
	}
	if b.Epoch == "" || len(b.Records) == 0 || len(b.Records) > MaxEventRecords {
		return fmt.Errorf("events of site %q: want an epoch and 1 to %d records, not %q and %d: %w", b.Site, MaxEventRecords, b.Epoch, len(b.Records), ErrMessage)
	}
	var last uint64
	for _, r := range b.Records {
		if r.Sequence <= last {
			return fmt.Errorf("events of site %q: record %d follows %d: %w", b.Site, r.Sequence, last, ErrMessage)
		}
		last = r.Sequence
		if len(r.Class) > MaxEventClass || len(r.Reason) > fleet.MaxEventReason || len(r.Message) > fleet.MaxEventMessage || len(r.Data) > fleet.MaxEventData {
			return fmt.Errorf("events of site %q: record %d is too long: %w", b.Site, r.Sequence, ErrMessage)
		}
	}
	return nil
}

// MaxEventClass bounds the name of a class, in bytes.
const MaxEventClass = 32
