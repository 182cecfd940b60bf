package sitetime_test

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/site/sitetime"
	"github.com/skerry-dev/skerry/internal/store"
)

// box is a machine whose clocks the test sets.
type box struct {
	wall  time.Time
	boot  string
	since time.Duration
}

func (b *box) Wall() time.Time                      { return b.wall }
func (b *box) Boot() (name string, _ time.Duration) { return b.boot, b.since }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func bucket(t *testing.T) *store.Bucket {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b, err := s.Bucket("time")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCarriedOver(t *testing.T) {
	silent := func() (time.Time, bool) { return time.Time{}, false }
	for name, row := range map[string]struct {
		reason string
		// before is the machine when the hub said that it is noon, after the same later, with no hub.
		before, after box
		want          time.Time // zero: not known
	}{
		"restart": {
			"the agent was started again, and the machine's clock says nothing of use",
			box{time.Unix(0, 0), "a", time.Hour}, box{time.Unix(9, 0), "a", 2 * time.Hour}, noon.Add(time.Hour),
		},
		"set": {
			"somebody set the clock meanwhile: the time since the boot is what counts",
			box{noon, "a", time.Hour}, box{noon.Add(-1000 * time.Hour), "a", time.Hour + time.Minute}, noon.Add(time.Minute),
		},
		"reboot": {
			"a clock that was right goes on while the machine is off",
			box{noon.Add(time.Minute), "a", time.Hour}, box{noon.Add(49 * time.Hour), "b", time.Minute}, noon.Add(49*time.Hour - time.Minute),
		},
		"1970": {
			"the battery of the clock is empty",
			box{noon, "a", time.Hour}, box{time.Unix(30, 0), "b", time.Minute}, time.Time{},
		},
		"2040": {
			"nobody has a machine off for years and its clock right",
			box{noon, "a", time.Hour}, box{noon.AddDate(14, 0, 0), "b", time.Minute}, time.Time{},
		},
		"always wrong": {
			"a clock that was wrong before says nothing after a reboot, though it seems to have gone on",
			box{time.Unix(1000, 0), "a", time.Hour}, box{time.Unix(5000, 0), "b", time.Minute}, time.Time{},
		},
		"no boot": {
			"a machine that does not say when it booted goes by a clock that was right",
			box{noon, "", 0}, box{noon.Add(time.Hour), "", 0}, noon.Add(time.Hour),
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := bucket(t)
			first, err := sitetime.Open(b, func() (time.Time, bool) { return noon, true }, &row.before, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if now, known := first.Now(); !known || !now.Equal(noon) {
				t.Fatalf("with a hub it is %s, known %t", now, known)
			}
			second, err := sitetime.Open(b, silent, &row.after, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			now, known := second.Now()
			if known != !row.want.IsZero() || known && !now.Equal(row.want) {
				t.Errorf("%s: it is %s, known %t, want %s", row.reason, now, known, row.want)
			}
		})
	}
}

func TestNeverHeard(t *testing.T) {
	c, err := sitetime.Open(bucket(t), func() (time.Time, bool) { return noon, false }, sitetime.Linux{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if now, known := c.Now(); known {
		t.Errorf("a site that never heard its hub says that it is %s", now)
	}
}

// TestLinux holds this machine to say what a clock needs.
func TestLinux(t *testing.T) {
	name, since := sitetime.Linux{}.Boot()
	_, later := sitetime.Linux{}.Boot()
	if name == "" || since <= 0 || later < since {
		t.Errorf("boot %q, %s, then %s", name, since, later)
	}
}
