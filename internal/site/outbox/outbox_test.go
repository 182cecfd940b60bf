package outbox_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site/outbox"
	"github.com/skerry-dev/skerry/internal/testenv"
)

func open(t *testing.T, dir string, budget int64) *outbox.Outbox {
	t.Helper()
	b, err := outbox.Open(dir, outbox.Options{Budget: budget, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// box is an outbox in a directory of its own.
func box(t *testing.T, budget int64) (*outbox.Outbox, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "outbox")
	return open(t, dir, budget), dir
}

func event(class fleet.EventClass, reason string) fleet.Event {
	return fleet.Event{Class: class, Reason: reason, Time: 1}
}

func flush(t *testing.T, b *outbox.Outbox) {
	t.Helper()
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
}

// pending returns "number reason" of everything that is left to send, and the epoch.
func pending(t *testing.T, b *outbox.Outbox) (lines []string, epoch string) {
	t.Helper()
	batch, err := b.Batch(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range batch.Records {
		lines = append(lines, fmt.Sprintf("%d %s", r.Sequence, r.Reason))
	}
	return lines, batch.Epoch
}

func wantPending(t *testing.T, reason string, b *outbox.Outbox, want ...string) (epoch string) {
	t.Helper()
	got, epoch := pending(t, b)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: left to send (-want +got):\n%s", reason, diff)
	}
	return epoch
}

func acknowledge(t *testing.T, b *outbox.Outbox, epoch string, last uint64) {
	t.Helper()
	if err := b.Acknowledge(epoch, last); err != nil {
		t.Fatal(err)
	}
}

func TestOrderAcrossClassesAndLives(t *testing.T) {
	b, dir := box(t, 0)
	if b.Before() != outbox.EndedNever {
		t.Error("the first life follows none")
	}
	b.Add(event(fleet.ClassSample, "a"))
	b.Add(event(fleet.ClassAlarm, "b"))
	flush(t, b)
	b.Add(event(fleet.ClassSample, "c"))
	b.Add(event(fleet.ClassEvent, "d"))
	flush(t, b)
	epoch := wantPending(t, "all classes in one order", b, "1 a", "2 b", "3 c", "4 d")
	acknowledge(t, b, epoch, 2)
	wantPending(t, "what was acknowledged is done with", b, "3 c", "4 d")
	acknowledge(t, b, "another", 4)
	wantPending(t, "another epoch's acknowledgement says nothing", b, "3 c", "4 d")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = open(t, dir, 0)
	if b.Before() != outbox.EndedOrderly {
		t.Error("the last life ended in order")
	}
	b.Add(event(fleet.ClassEvent, "e"))
	flush(t, b)
	if again := wantPending(t, "the numbers go on in another life", b, "3 c", "4 d", "5 e"); again != epoch {
		t.Errorf("the epoch became %s, was %s", again, epoch)
	}
	// Killed: no Close.
	b = open(t, dir, 0)
	if b.Before() != outbox.EndedHard {
		t.Error("the last life was killed")
	}
	wantPending(t, "an acknowledgement that was not on disk is asked for again", b, "3 c", "4 d", "5 e")
	acknowledge(t, b, epoch, 5)
	wantPending(t, "all is said", b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir, 0)
	b.Add(event(fleet.ClassEvent, "f"))
	wantPending(t, "no number is given twice", b, "6 f")
}

func TestBatchIsBounded(t *testing.T) {
	b, _ := box(t, 0)
	for range 100 {
		b.Add(fleet.Event{Class: fleet.ClassEvent, Reason: "r", Message: strings.Repeat("x", 500)})
	}
	flush(t, b)
	var seen uint64
	for range 100 {
		batch, err := b.Batch(4 << 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.Records) == 0 {
			break
		}
		if n := len(batch.Records); n > 10 || batch.Records[0].Sequence != seen+1 {
			t.Fatalf("a batch of 4 KiB has %d records from %d on, after %d", n, batch.Records[0].Sequence, seen)
		}
		seen = batch.Last()
		acknowledge(t, b, batch.Epoch, seen)
	}
	if s := b.Stats(); seen != 100 || s.Pending != 0 {
		t.Errorf("%d were sent, %d are pending", seen, s.Pending)
	}
}

// fill adds n events whose record takes about a KiB.
func fill(t *testing.T, b *outbox.Outbox, class fleet.EventClass, n int) {
	t.Helper()
	for i := range n {
		b.Add(fleet.Event{Class: class, Reason: string(class), Message: strings.Repeat("x", fleet.MaxEventMessage), Time: 1})
		if i%100 == 99 {
			flush(t, b)
		}
	}
	flush(t, b)
}

// byClass counts what is left to send.
func byClass(t *testing.T, b *outbox.Outbox) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for {
		batch, err := b.Batch(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.Records) == 0 {
			return counts
		}
		for _, r := range batch.Records {
			counts[string(r.Class)]++
		}
		acknowledge(t, b, batch.Epoch, batch.Last())
	}
}

func onDisk(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size()
	}
	return bytes
}

func TestBudgetDropsSamplesFirst(t *testing.T) {
	const budget = 1 << 20
	b, dir := box(t, budget)
	fill(t, b, fleet.ClassAlarm, 100)
	fill(t, b, fleet.ClassSample, 2000)
	fill(t, b, fleet.ClassEvent, 500)
	if n := onDisk(t, dir); n > budget+200<<10 {
		t.Errorf("%d bytes are on the disk, the budget is %d", n, budget)
	}
	dropped := b.Stats().Dropped
	if dropped[fleet.ClassSample] < 1000 || dropped[fleet.ClassEvent] != 0 || dropped[fleet.ClassAlarm] != 0 {
		t.Errorf("dropped %v: want samples alone", dropped)
	}
	// A crash here must not lose the count.
	b = open(t, dir, budget)
	if diff := cmp.Diff(dropped, b.Stats().Dropped); diff != "" {
		t.Errorf("after a crash the count is another (-before +after):\n%s", diff)
	}
	kept := byClass(t, b)
	if kept["alarm"] != 100 || kept["event"] != 500 || uint64(kept["sample"])+dropped[fleet.ClassSample] != 2000 {
		t.Errorf("kept %v, dropped %v: every event is one or the other", kept, dropped)
	}
	fill(t, b, fleet.ClassEvent, 3000)
	dropped = b.Stats().Dropped
	if dropped[fleet.ClassAlarm] != 0 || dropped[fleet.ClassEvent] < 1000 {
		t.Errorf("dropped %v: events go before alarms", dropped)
	}
	byClass(t, b)
	if n := onDisk(t, dir); n > 3*160<<10 {
		t.Errorf("%d bytes are still on the disk when all is acknowledged: room is not given back", n)
	}
}

func TestBurstInMemoryIsBounded(t *testing.T) {
	b, _ := box(t, 0)
	for range 1500 {
		b.Add(event(fleet.ClassSample, "s"))
	}
	for range 500 {
		b.Add(event(fleet.ClassAlarm, "a"))
	}
	s := b.Stats()
	if s.Pending > 1100 || s.Dropped[fleet.ClassAlarm] != 0 || int(s.Dropped[fleet.ClassSample])+s.Pending != 2000 {
		t.Errorf("%+v: want the oldest samples dropped, and counted", s)
	}
	select {
	case <-b.Urgent():
	default:
		t.Error("an alarm asks for a flush at once")
	}
}

// TestDiskWentBack runs an outbox on a copy of its disk from before: numbers are in use twice then.
func TestDiskWentBack(t *testing.T) {
	b, dir := box(t, 0)
	b.Add(event(fleet.ClassEvent, "a"))
	b.Add(event(fleet.ClassEvent, "b"))
	flush(t, b)
	before := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(before, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	b.Add(event(fleet.ClassEvent, "c"))
	flush(t, b)
	epoch := wantPending(t, "the life that is lost", b, "1 a", "2 b", "3 c")

	b = open(t, before, 0)
	b.Add(event(fleet.ClassEvent, "x"))
	b.Add(event(fleet.ClassEvent, "y"))
	flush(t, b)
	acknowledge(t, b, epoch, 3) // the hub took a, b and c
	if again := wantPending(t, "what is new is not taken for c", b, "3 x", "4 y"); again == epoch {
		t.Error("the epoch is the old one, in which 3 is c")
	}
}

func TestDamage(t *testing.T) {
	for _, row := range []struct {
		reason string
		damage func([]byte) []byte
		want   []string
	}{
		{"a torn end is left out", func(d []byte) []byte { return d[:len(d)-3] }, []string{"1 a", "2 b", "4 new"}},
		{"a record of which a bit flipped is left out alone", func(d []byte) []byte { d[9] ^= 1; return d }, []string{"2 b", "3 c", "4 new"}},
		{"a length that cannot be ends the file", func(d []byte) []byte { d[0] = 0xff; return d }, []string{"4 new"}},
		{"what an interrupted write left behind is left out", func(d []byte) []byte { return append(d, make([]byte, 5000)...) }, []string{"1 a", "2 b", "3 c", "4 new"}},
		{"an empty file is none", func([]byte) []byte { return nil }, []string{"4 new"}},
	} {
		t.Run(row.reason, func(t *testing.T) {
			b, dir := box(t, 0)
			for _, r := range []string{"a", "b", "c"} {
				b.Add(event(fleet.ClassEvent, r))
			}
			flush(t, b)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "event-0000000000000001")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, row.damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			b = open(t, dir, 0)
			b.Add(event(fleet.ClassEvent, "new"))
			flush(t, b)
			wantPending(t, "at once", b, row.want...)
			wantPending(t, "after a crash", open(t, dir, 0), row.want...)
		})
	}
}

func TestDamagedHead(t *testing.T) {
	b, dir := box(t, 0)
	b.Add(event(fleet.ClassEvent, "a"))
	flush(t, b)
	epoch := wantPending(t, "before", b, "1 a")
	if err := os.WriteFile(filepath.Join(dir, "head"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir, 0)
	if again := wantPending(t, "events outlive their head", b, "1 a"); again == epoch {
		t.Error("without a head nobody knows which epoch it was")
	}
}

// TestFullDisk runs on a file system of its own that is filled up by something else.
func TestFullDisk(t *testing.T) {
	testenv.Require(t, testenv.Root())
	mount := t.TempDir()
	mounted := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=1m") == nil
	testenv.Require(t, testenv.Need{Name: "the right to mount", Met: func() bool { return mounted }})
	t.Cleanup(func() { _ = syscall.Unmount(mount, syscall.MNT_DETACH) })
	dir := filepath.Join(mount, "outbox")
	b := open(t, dir, 0)
	fill(t, b, fleet.ClassSample, 300)
	before := b.Stats()
	ballast, err := os.Create(filepath.Join(mount, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	fill(t, b, fleet.ClassAlarm, 20)
	if s := b.Stats(); s.Dropped[fleet.ClassSample] == 0 || s.Dropped[fleet.ClassAlarm] != 0 || s.Pending >= before.Pending+20 {
		t.Errorf("%+v: want room for alarms made by dropping samples", s)
	}
	// Now there is nothing left to drop, and no room.
	for i := 0; i < 1000 && b.Flush() == nil; i++ {
		b.Add(fleet.Event{Class: fleet.ClassAlarm, Reason: "alarm", Message: strings.Repeat("x", fleet.MaxEventMessage), Time: 1})
		if b.Stats().Dropped[fleet.ClassAlarm] > 0 {
			break // the oldest alarms make room for newer ones
		}
	}
	b.Add(event(fleet.ClassAlarm, "last"))
	_ = b.Flush() // may have no room
	lines, _ := pending(t, b)
	if len(lines) == 0 || !strings.HasSuffix(lines[len(lines)-1], "last") {
		t.Error("an alarm that the disk has no room for is not sent")
	}
	if err := errors.Join(ballast.Close(), os.Remove(ballast.Name())); err != nil {
		t.Fatal(err)
	}
	flush(t, b)
	lines, _ = pending(t, open(t, dir, 0))
	if len(lines) == 0 || !strings.HasSuffix(lines[len(lines)-1], "last") {
		t.Error("with room again it is kept")
	}
}

func TestTimeIsSet(t *testing.T) {
	now := time.UnixMilli(1234)
	b, err := outbox.Open(t.TempDir(), outbox.Options{Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	b.Add(fleet.Event{Class: "unheard of", Reason: "a"})
	batch, err := b.Batch(1000)
	if err != nil || len(batch.Records) != 1 || batch.Records[0].Time != 1234 || batch.Records[0].Class != fleet.ClassEvent {
		t.Errorf("got %+v, %v", batch.Records, err)
	}
}
