package backup

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// scheduled runs a schedule over a directory, in time that a test makes.
func scheduled(t *testing.T, dir string, save func(ctx context.Context, file string) error) (*Schedule, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	s := &Schedule{Dir: dir, Every: time.Hour, Keep: 3, Save: save, Log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := s.Register(prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return s, &log
}

func touch(_ context.Context, file string) error { return os.WriteFile(file, []byte("x"), 0o600) }

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestScheduleKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which begins at midnight of 2000-01-01
		dir := filepath.Join(t.TempDir(), "backups")
		s, _ := scheduled(t, dir, touch)
		if got := names(t, dir); len(got) != 1 {
			t.Fatalf("the first comes at once: %v", got)
		}
		for _, name := range []string{"notes.txt", "hub-today.tar.gz", tempPrefix + "killed"} {
			if err := touch(t.Context(), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5*time.Hour + time.Minute)
		synctest.Wait()
		want := []string{"hub-20000101T030000Z.tar.gz", "hub-20000101T040000Z.tar.gz", "hub-20000101T050000Z.tar.gz", "hub-today.tar.gz", "notes.txt"}
		if diff := cmp.Diff(want, names(t, dir)); diff != "" {
			t.Errorf("the newest three stay, and what is not ours (-want +got):\n%s", diff)
		}
		if got, want := testutil.ToFloat64(s.success), float64(time.Date(2000, 1, 1, 5, 0, 0, 0, time.UTC).Unix()); got != want {
			t.Errorf("last success is %f, want %f", got, want)
		}
	})
}

func TestScheduleOverRestarts(t *testing.T) {
	for _, row := range []struct {
		reason, have string
		after        time.Duration
	}{
		{"the last one is twenty minutes old", "hub-19991231T234000Z.tar.gz", 40 * time.Minute},
		{"the last one is days old", "hub-19991229T000000Z.tar.gz", 0},
		{"the clock was wrong when the last one was made", "hub-20400101T000000Z.tar.gz", 0},
	} {
		t.Run(row.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				if err := touch(t.Context(), filepath.Join(dir, row.have)); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				saved := make(chan time.Time, 1)
				s, _ := scheduled(t, dir, func(ctx context.Context, file string) error {
					select {
					case saved <- time.Now():
					default:
					}
					return touch(ctx, file)
				})
				if row.after > 0 && testutil.ToFloat64(s.success) == 0 {
					t.Error("after a restart the last success is not known")
				}
				if got := (<-saved).Sub(began); got != row.after {
					t.Errorf("the next came after %v, want %v", got, row.after)
				}
			})
		})
	}
}

func TestScheduleFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		full := true
		s, log := scheduled(t, dir, func(ctx context.Context, file string) error {
			if full {
				return errors.New("no space left on device")
			}
			return touch(ctx, file)
		})
		time.Sleep(retryAfter + time.Second)
		synctest.Wait()
		if got := testutil.ToFloat64(s.failures); got != 2 {
			t.Errorf("%f failures are counted, want 2: one at once, one after %v", got, retryAfter)
		}
		if !strings.Contains(log.String(), "no space left on device") {
			t.Errorf("the log says %q", log)
		}
		if got := testutil.ToFloat64(s.success); got != 0 {
			t.Errorf("a success is told at %f", got)
		}
		full = false
		time.Sleep(retryAfter)
		synctest.Wait()
		if got := names(t, dir); len(got) != 1 {
			t.Errorf("after the trouble there are %v", got)
		}
	})
}
