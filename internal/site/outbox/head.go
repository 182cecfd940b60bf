package outbox

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// head is what must outlive the records.
type head struct {
	// Epoch names one life of the numbers.
	Epoch string `json:"epoch"`
	// Acked is the highest number that needs no sending any more. What is on disk may be older than what is
	// known: the hub tells it again.
	Acked uint64 `json:"acked"`
	// Next is a number that was not given yet: it keeps the numbers going when no record is left to say where
	// they were.
	Next uint64 `json:"next"`
	// Dropped counts what was lost for want of room, by class.
	Dropped map[fleet.EventClass]uint64 `json:"dropped,omitempty"`
	// Stopped says that the last life ended in order.
	Stopped bool `json:"stopped,omitempty"`
}

func (h *head) drop(class fleet.EventClass, n uint64) {
	if h.Dropped == nil {
		h.Dropped = map[fleet.EventClass]uint64{}
	}
	h.Dropped[class] += n
}

const headName = "head"

// loadHead reads the head, or begins an epoch when there is none that can be read.
func (b *Outbox) loadHead() (fresh bool) {
	data, err := os.ReadFile(filepath.Join(b.dir, headName))
	if err == nil {
		err = json.Unmarshal(data, &b.head)
	}
	if err == nil && b.head.Epoch != "" {
		return false
	}
	if !errors.Is(err, fs.ErrNotExist) {
		b.log.Error("the head of the outbox is damaged: its numbers begin anew", "error", err)
	}
	b.head = head{Epoch: rand.Text()}
	return true
}

// saveHead replaces the head on the disk. The caller holds the lock.
func (b *Outbox) saveHead() error {
	b.head.Next = b.next
	data, err := json.Marshal(b.head)
	if err != nil {
		return err
	}
	path := filepath.Join(b.dir, headName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write head of the outbox: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(b.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
