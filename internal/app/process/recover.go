package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/internal/store"
)

// recordKey is the prefix of records of instances that may be running.
const recordKey = "run/"

// record is what must be known of an instance to end it after the agent was killed. It is stored before the
// program starts, and again with its process id.
type record struct {
	// Boot names the machine's boot in which PID and Start mean something.
	Boot string `json:"boot"`
	// Scratch identifies what the program started: it is in the environment of all of them.
	Scratch string   `json:"scratch"`
	Groups  []string `json:"groups,omitempty"`
	// PID leads the process group; Start is its start time in clock ticks since boot.
	PID   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"`
}

type records struct{ bucket *store.Bucket }

func (r *records) put(id string, rec record) error { return r.bucket.Put(recordKey+id, rec) }
func (r *records) delete(id string) error          { return r.bucket.Delete(recordKey + id) }

// all returns every record. One that cannot be read is dropped: nothing can be done about it.
func (r *records) all() (map[string]record, error) {
	keys, err := r.bucket.Keys()
	if err != nil {
		return nil, err
	}
	out := map[string]record{}
	for _, key := range keys {
		id, ok := strings.CutPrefix(key, recordKey)
		if !ok {
			continue
		}
		var rec record
		if err := r.bucket.Get(key, &rec); err != nil && !errors.Is(err, store.ErrDamaged) {
			return nil, err
		}
		out[id] = rec
	}
	return out, nil
}

// Recover kills what instances of an earlier life left running; see appsite.Runtime. A process is killed
// only when it is proven to be of such an instance: by its start time in this boot, by its control group
// or by its environment.
func (r *Runtime) Recover(ctx context.Context) error {
	all, err := r.records.all()
	if err != nil {
		return fmt.Errorf("process runtime: recover: %w", err)
	}
	var errs []error
	boot := bootID()
	known := map[string]bool{}
	for id := range all {
		known[id] = true
	}
	// A store that was lost knows of nothing; what sits in this agent's control groups is its own all the same.
	if dirs := r.groups.strays(known); len(dirs) > 0 {
		all["strays"] = record{Boot: boot, Groups: dirs}
	}
	for id, rec := range all {
		if rec.Boot == boot {
			n, err := sweep(ctx, rec)
			if err != nil {
				errs = append(errs, fmt.Errorf("process runtime: instance %s: %w", id, err))
				continue
			}
			if n > 0 {
				r.log.Info("ended what an earlier agent left running", "instance", id, "processes", n)
			}
			if err := r.groups.remove(rec.Groups); err != nil {
				r.log.Warn("control group stays behind", "instance", id, "error", err)
			}
		}
		if err := r.records.delete(id); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sweepEvery is the time between two looks at what is still there.
const sweepEvery = 5 * time.Millisecond

// sweep kills everything of an instance and returns once it is gone, with how many processes it killed.
func sweep(ctx context.Context, rec record) (int, error) {
	seen := map[int]bool{}
	for {
		left := rec.leftovers()
		if len(left) == 0 {
			return len(seen), nil
		}
		for _, pid := range left {
			seen[pid] = true
			killIf(pid, func() bool { return rec.owns(pid) })
		}
		select {
		case <-ctx.Done():
			return len(seen), fmt.Errorf("processes %v do not end: %w", left, ctx.Err())
		case <-time.After(sweepEvery):
		}
	}
}

// leftovers lists the living processes of the instance.
func (rec record) leftovers() []int {
	members := groupPIDs(rec.Groups)
	var pids []int
	for _, pid := range allPIDs() {
		if alive(pid) && (slices.Contains(members, pid) || rec.started(pid)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// owns reports whether the process belongs to the instance.
func (rec record) owns(pid int) bool {
	return slices.Contains(groupPIDs(rec.Groups), pid) || rec.started(pid)
}

// started reports whether the process is the program itself, is in its process group, or inherited its
// environment. A process group counts only while the program that leads it is proven to be ours.
func (rec record) started(pid int) bool {
	if pid == os.Getpid() {
		return false
	}
	if rec.Scratch != "" && hasEnv(pid, "TMPDIR="+filepath.Join(rec.Scratch, "tmp")) {
		return true
	}
	if rec.PID == 0 {
		return false
	}
	leader, err := readStat(rec.PID)
	if err != nil || leader.start != rec.Start {
		return false
	}
	if pid == rec.PID {
		return true
	}
	stat, err := readStat(pid)
	return err == nil && stat.pgrp == rec.PID
}

// killIf kills the process if cond holds of it. The process is pinned first, so that the signal cannot
// reach another that got its id in between.
func killIf(pid int, cond func() bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ENOSYS) && cond() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return
	}
	defer unix.Close(fd)
	if cond() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}
