// Package slots keeps two programs of an agent on disk and decides which one runs.
//
// Below the agent's data directory stand bin/a, bin/b and the link bin/current to one of them; without the link the
// installed program runs. An upgrade writes the slot that is not current, then a record of what is tried, and only then
// the link. The record alone says how a trial stands: whoever finds one after a crash or a power cut, at any step,
// makes the link agree with it. Package supervise starts the programs, upkeepsite fills the slots; both may hold a
// Slots of one directory, and write in turn: the agent while it asks for a trial, the supervisor from then on.
package slots

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// States of a record.
const (
	Trial  = "trial"  // To is tried
	Done   = "done"   // To was found healthy
	Failed = "failed" // From runs again
)

// Record is one upgrade, from the moment before the link is switched.
type Record struct {
	// ID is the wish that it is about, Version and Digest the program of To; Digest is hexadecimal.
	ID      string `json:"id"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	// From and To are slots; an empty From is the installed program.
	From string `json:"from"`
	To   string `json:"to"`
	// State is one of the constants, Reason why it is Failed.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// Attempts is how many starts To has left; DeadlineSeconds how long each may take to be healthy.
	Attempts        int `json:"attempts"`
	DeadlineSeconds int `json:"deadlineSeconds"`
	// Healthy are the apps that were, and Linked whether the hub was reached, before.
	Healthy []string `json:"healthy,omitempty"`
	Linked  bool     `json:"linked"`
}

// Errors of this package.
var (
	// ErrDigest means that a program is not the one that was meant.
	ErrDigest = errors.New("the program has another digest")
	// ErrTrial means that a trial is under way already.
	ErrTrial = errors.New("another agent is being tried")
)

// Slots are those of one data directory. It is not safe for concurrent use.
type Slots struct {
	dir string
	// step is told the name of each step before it is taken; tests end there.
	step func(string)
}

const (
	slotA, slotB = "a", "b"
	linkName     = "current"
	recordName   = "upgrade.json"
	maxRecord    = 256 << 10
)

// Open returns the slots of an agent's data directory, which need not be there.
func Open(dataDir string) *Slots {
	return &Slots{dir: filepath.Join(dataDir, "bin"), step: func(string) {}}
}

// Record returns the last upgrade; false when there was none. One that is damaged counts as none: the link stands.
func (s *Slots) Record() (Record, bool, error) {
	f, err := os.Open(filepath.Join(s.dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("read record of the upgrade: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return Record{}, false, fmt.Errorf("read record of the upgrade: %w", err)
	}
	var r Record
	if json.Unmarshal(data, &r) != nil || !known(r.To) || r.From != "" && !known(r.From) || r.From == r.To {
		return Record{}, false, nil
	}
	return r, true, nil
}

func known(slot string) bool { return slot == slotA || slot == slotB }

// current returns the slot of the link; empty when the installed program runs.
func (s *Slots) current() string {
	target, err := os.Readlink(filepath.Join(s.dir, linkName))
	if err != nil || !known(target) {
		return ""
	}
	return target
}

// Stage copies a program into the slot that is not current, and returns the slot once the program is there whole, has
// this SHA-256 in hexadecimal digits, and survives a power cut.
func (s *Slots) Stage(program, digest string) (slot string, err error) {
	if r, ok, err := s.Record(); err != nil {
		return "", err
	} else if ok && r.State == Trial {
		return "", ErrTrial
	}
	if slot = slotA; s.current() == slotA {
		slot = slotB
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return "", fmt.Errorf("make directory of agents: %w", err)
	}
	from, err := os.Open(program)
	if err != nil {
		return "", fmt.Errorf("stage agent: %w", err)
	}
	defer from.Close()
	s.step("stage")
	hash := sha256.New()
	if err := s.replace(slot, io.TeeReader(from, hash), 0o755); err != nil {
		return "", fmt.Errorf("stage agent: %w", err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != digest {
		return "", errors.Join(fmt.Errorf("stage agent: it has %s, want %s: %w", got, digest, ErrDigest), os.Remove(s.Path(slot)))
	}
	return slot, nil
}

// Path is where the program of a slot is.
func (s *Slots) Path(slot string) string { return filepath.Join(s.dir, slot) }

// Begin writes down that r.To, which Stage returned, is to be tried. The supervisor tries it at its next start of an
// agent.
func (s *Slots) Begin(r Record) error {
	if old, ok, err := s.Record(); err != nil {
		return err
	} else if ok && old.State == Trial {
		return ErrTrial
	}
	r.State, r.From, r.Reason = Trial, s.current(), ""
	if !known(r.To) || r.To == r.From || r.Attempts < 1 {
		return fmt.Errorf("upgrade to slot %q from %q in %d attempts cannot be", r.To, r.From, r.Attempts)
	}
	s.step("begin")
	return s.write(r)
}

// Refuse writes down that a program will not be tried, and why.
func (s *Slots) Refuse(r Record, reason string) error {
	r.State, r.From, r.Reason = Failed, s.current(), reason
	if r.To == "" || r.To == r.From {
		r.To = slotA
		if r.From == slotA {
			r.To = slotB
		}
	}
	return s.write(r)
}

// Next returns which program to start, base being the installed one, and whether it is tried: then it has one attempt
// less. What was interrupted is finished first.
func (s *Slots) Next(base string) (program string, r Record, trial bool, err error) {
	r, ok, err := s.Record()
	if err != nil {
		return "", r, false, err
	}
	if ok && r.State == Trial {
		if reason := s.spoilt(r); reason != "" {
			if err := s.Fail(reason); err != nil {
				return "", r, false, err
			}
			r.State = Failed
		}
	}
	if ok && r.State == Trial {
		r.Attempts--
		s.step("attempt")
		if err := s.write(r); err != nil {
			return "", r, false, err
		}
		s.step("switch")
		if err := s.point(r.To); err != nil {
			return "", r, false, err
		}
		return s.Path(r.To), r, true, nil
	}
	if ok && r.State == Failed && s.current() == r.To {
		s.step("return")
		if err := s.point(r.From); err != nil { // Fail was interrupted
			return "", r, false, err
		}
	}
	if slot := s.current(); slot != "" {
		return s.Path(slot), r, false, nil
	}
	return base, r, false, nil
}

// spoilt says why a trial cannot go on; empty when it can.
func (s *Slots) spoilt(r Record) string {
	if r.Attempts < 1 {
		return "it was interrupted in each of its attempts"
	}
	got, err := digestOf(s.Path(r.To))
	switch {
	case err != nil:
		return "its program cannot be read: " + err.Error()
	case got != r.Digest:
		return "its program was damaged on disk"
	}
	return ""
}

func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Confirm ends a trial well.
func (s *Slots) Confirm() error {
	r, ok, err := s.Record()
	if err != nil || !ok || r.State != Trial {
		return err
	}
	r.State = Done
	s.step("confirm")
	return s.write(r)
}

// Fail ends a trial: From is current again.
func (s *Slots) Fail(reason string) error {
	r, ok, err := s.Record()
	if err != nil || !ok || r.State != Trial {
		return err
	}
	r.State, r.Reason = Failed, reason
	s.step("fail")
	if err := s.write(r); err != nil {
		return err
	}
	s.step("return")
	return s.point(r.From)
}

// Abandon makes the installed program current, when the one of the slot cannot be started at all.
func (s *Slots) Abandon() error { return s.point("") }

// Reset forgets slots and record, for an installed program that was replaced.
func Reset(dataDir string) error {
	s := Open(dataDir)
	err := errors.Join(s.point(""), ignoreMissing(os.Remove(filepath.Join(s.dir, recordName))))
	if err != nil {
		return fmt.Errorf("forget earlier agents: %w", err)
	}
	return nil
}

func (s *Slots) write(r Record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = s.replace(recordName, strings.NewReader(string(data)+"\n"), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write record of the upgrade: %w", err)
	}
	return nil
}

// point makes the link lead to slot; an empty slot removes it.
func (s *Slots) point(slot string) error {
	link := filepath.Join(s.dir, linkName)
	if s.current() == slot {
		return nil
	}
	err := error(nil)
	if slot == "" {
		err = ignoreMissing(os.Remove(link))
	} else {
		fresh := link + ".new"
		if err = ignoreMissing(os.Remove(fresh)); err == nil {
			err = os.Symlink(slot, fresh)
		}
		if err == nil {
			err = os.Rename(fresh, link)
		}
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("switch agents: %w", err)
	}
	return nil
}

// replace makes a file whole or not at all, such that a power cut leaves the old content or the new.
func (s *Slots) replace(name string, content io.Reader, mode fs.FileMode) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(s.dir, "."+name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = io.Copy(temp, content)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err != nil {
		return err
	}
	s.step("rename " + name)
	if err := os.Rename(temp.Name(), filepath.Join(s.dir, name)); err != nil {
		return err
	}
	return syncDir(s.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
