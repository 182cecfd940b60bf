package schedule

import (
	"errors"
	"sync"

	"github.com/skerry-dev/skerry/internal/store"
)

// Records keeps records of schedules in a part of a site's store. It is safe for concurrent use, also by two
// keepers of one schedule, as while one release of an app follows another.
type Records struct {
	// Bucket is where they lie; nil keeps them in memory alone.
	Bucket *store.Bucket

	mu     sync.Mutex
	memory map[string]Record
}

// Of returns the place of one record.
func (r *Records) Of(key string) Store { return place{r, key} }

// Forget removes a record.
func (r *Records) Forget(key string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Bucket == nil {
		delete(r.memory, key)
		return nil
	}
	return r.Bucket.Delete(key)
}

type place struct {
	records *Records
	key     string
}

// Load implements Store. A record that is damaged is as one that is not there: the schedule begins anew.
func (p place) Load() (Record, error) {
	p.records.mu.Lock()
	defer p.records.mu.Unlock()
	return p.load()
}

func (p place) load() (Record, error) {
	if p.records.Bucket == nil {
		return p.records.memory[p.key], nil
	}
	var rec Record
	err := p.records.Bucket.Get(p.key, &rec)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
		return Record{}, nil
	}
	return rec, err
}

// Update implements Store.
func (p place) Update(change func(Record) Record) error {
	p.records.mu.Lock()
	defer p.records.mu.Unlock()
	rec, err := p.load()
	if err != nil {
		return err
	}
	rec = change(rec)
	if p.records.Bucket == nil {
		if p.records.memory == nil {
			p.records.memory = map[string]Record{}
		}
		p.records.memory[p.key] = rec
		return nil
	}
	return p.records.Bucket.Put(p.key, rec)
}
