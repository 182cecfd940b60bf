package tasksite

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/store"
)

// runsKey is the prefix of records, by uid; those of schedules lie beside them.
const (
	runsKey     = "runs/"
	scheduleKey = "schedule/"
)

// maxGone bounds the records of tasks that have left. The oldest are dropped.
const maxGone = 1000

// record is what must not be forgotten of one task.
type record struct {
	task.Ref
	UID string `json:"uid"`
	// Runs are the newest first.
	Runs []keptRun `json:"runs,omitempty"`
	// Gone is when the task left, by the machine's clock, for the order alone; zero while it is here.
	Gone int64 `json:"gone,omitempty"`
}

// keptRun is a run with the name of the file of its output.
type keptRun struct {
	task.Run
	ID string `json:"id"`
}

// find returns the run of that id; nil when there is none.
func (r *record) find(id string) *keptRun {
	if i := slices.IndexFunc(r.Runs, func(run keptRun) bool { return run.ID == id }); i >= 0 {
		return &r.Runs[i]
	}
	return nil
}

type records struct{ bucket *store.Bucket }

// load returns the record of a uid. One that is damaged is as one that is not there.
func (r *records) load(ref task.Ref, uid string) (record, error) {
	rec := record{Ref: ref, UID: uid}
	err := r.bucket.Get(runsKey+uid, &rec)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
		return record{Ref: ref, UID: uid}, nil
	}
	return rec, err
}

func (r *records) save(rec record) error { return r.bucket.Put(runsKey+rec.UID, rec) }

// all returns every record that can be read.
func (r *records) all() ([]record, error) {
	keys, err := r.bucket.Keys()
	if err != nil {
		return nil, err
	}
	var out []record
	for _, key := range keys {
		if !strings.HasPrefix(key, runsKey) {
			continue
		}
		var rec record
		if err := r.bucket.Get(key, &rec); err != nil {
			if errors.Is(err, store.ErrDamaged) {
				continue
			}
			return nil, err
		}
		out = append(out, rec)
	}
	return out, nil
}

// kept returns the tasks that have not left.
func (r *records) kept() ([]task.Ref, error) {
	all, err := r.all()
	if err != nil {
		return nil, err
	}
	var out []task.Ref
	for _, rec := range all {
		if rec.Gone == 0 {
			out = append(out, rec.Ref)
		}
	}
	return out, nil
}

// uids returns those of a task that are on record and have not left.
func (r *records) uids(ref task.Ref) ([]string, error) {
	all, err := r.all()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, rec := range all {
		if rec.Ref == ref && rec.Gone == 0 {
			out = append(out, rec.UID)
		}
	}
	return out, nil
}

// leave remembers what became of a task that has left, without its output.
func (r *records) leave(rec record) error {
	rec.Gone = max(1, time.Now().Unix())
	for i := range rec.Runs {
		rec.Runs[i].Tail = ""
	}
	return r.save(rec)
}

// prune drops the oldest records of tasks that have left.
func (r *records) prune() error {
	all, err := r.all()
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(rec record) bool { return rec.Gone == 0 })
	slices.SortFunc(all, func(a, b record) int { return int(b.Gone - a.Gone) })
	if len(all) <= maxGone {
		return nil
	}
	return r.bucket.Update(func(w store.Writer) error {
		for _, rec := range all[maxGone:] {
			if err := w.Delete(runsKey + rec.UID); err != nil {
				return err
			}
		}
		return nil
	})
}
