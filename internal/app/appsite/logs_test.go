package appsite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var stamp = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z `)

// unstamped checks that each line has a time and takes it away.
func unstamped(t *testing.T, text string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if !stamp.MatchString(line) && !strings.HasPrefix(line, "... ") {
			t.Errorf("line %q has no time", line)
		}
	}
	return stamp.ReplaceAllString(text, "")
}

func TestOutputIsCutIntoLines(t *testing.T) {
	long := strings.Repeat("x", maxLogLine)
	for name, row := range map[string]struct {
		reason string
		writes []string
		want   string
	}{
		"several":    {"one write may hold many lines", []string{"a\nb\n"}, "out r a\nout r b\n"},
		"in parts":   {"one line may come in many writes", []string{"a", "b", "c\n"}, "out r abc\n"},
		"no newline": {"what is left at the end is not lost", []string{"a"}, "out r a\n"},
		"empty":      {"an empty line is a line", []string{"\n"}, "out r \n"},
		"exact":      {"a line of just the bound is one line", []string{long + "\n"}, "out r " + long + "\n"},
		"too long":   {"a longer one is cut", []string{long + "yy\n"}, "out r " + long + "\nout r yy\n"},
	} {
		t.Run(name, func(t *testing.T) {
			log := newAppLog(t.TempDir())
			defer log.close()
			w := &lineWriter{log: log, stream: "out", release: "r"}
			for _, s := range row.writes {
				if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
					t.Fatal(n, err)
				}
			}
			w.flush()
			lines, _, err := log.open(10, false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, unstamped(t, strings.Join(lines, ""))); diff != "" {
				t.Errorf("%s:\n%s", row.reason, diff)
			}
		})
	}
}

func TestLogRotates(t *testing.T) {
	dir := t.TempDir()
	log := newAppLog(dir)
	defer log.close()
	line := []byte(strings.Repeat("x", 10_000))
	const written = 2000 // 20 MB, more than all files hold
	for n := range written {
		log.write("out", "r", fmt.Appendf(nil, "%04d %s", n, line))
	}
	var total int64
	for n := range maxLogFiles + 1 {
		info, err := os.Stat(log.name(n))
		if n == maxLogFiles {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a file too many: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > maxLogFile {
			t.Errorf("%s has %d bytes", info.Name(), info.Size())
		}
		total += info.Size()
	}
	if total < (maxLogFiles-1)*maxLogFile {
		t.Errorf("only %d bytes are kept", total)
	}
	lines, _, err := log.open(700, false) // more than one file holds
	if err != nil || len(lines) != 700 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for k, got := range lines {
		if want := fmt.Sprintf("out r %04d ", written-700+k); !strings.Contains(got, want) {
			t.Fatalf("line %d is %.60q, want %q", k, got, want)
		}
	}
}

func TestLogGoesOnAfterARestart(t *testing.T) {
	dir := t.TempDir()
	for n := range 2 {
		log := newAppLog(dir)
		log.write("out", "r", fmt.Append(nil, n))
		if err := log.close(); err != nil {
			t.Fatal(err)
		}
	}
	half, err := os.OpenFile(filepath.Join(dir, "current.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	half.WriteString("half a line of a power c")
	half.Close()
	lines, _, err := newAppLog(dir).open(5, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := unstamped(t, strings.Join(lines, "")); got != "out r 0\nout r 1\n" {
		t.Errorf("got %q", got)
	}
}

func TestFollowerSeesEachLineOnce(t *testing.T) {
	log := newAppLog(t.TempDir())
	defer log.close()
	log.write("out", "r", []byte("before"))
	lines, f, err := log.open(10, true)
	if err != nil {
		t.Fatal(err)
	}
	log.write("err", "r", []byte("after"))
	<-f.ready
	if got := unstamped(t, strings.Join(lines, "")+string(f.take())); got != "out r before\nerr r after\n" {
		t.Errorf("got %q", got)
	}
	f.close()
	log.write("out", "r", []byte("unseen"))
	if got := f.take(); len(got) != 0 {
		t.Errorf("a closed follower got %q", got)
	}
}

func TestSlowFollowerIsToldWhatItMissed(t *testing.T) {
	log := newAppLog(t.TempDir())
	defer log.close()
	_, f, err := log.open(0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	line := []byte(strings.Repeat("x", 16_000))
	const written = 100
	for range written {
		log.write("out", "r", line)
	}
	text := string(f.take())
	if len(text) > maxFollowing+200 {
		t.Errorf("%d bytes waited", len(text))
	}
	kept := strings.Count(text, "xxx\n")
	if want := fmt.Sprintf("... %d lines were dropped here", written-kept); kept == 0 || kept == written || !strings.Contains(text, want) {
		t.Errorf("%d of %d lines came, and the end is %q", kept, written, text[max(0, len(text)-100):])
	}
	log.write("out", "r", []byte("again"))
	if got := unstamped(t, string(f.take())); got != "out r again\n" {
		t.Errorf("after it caught up it got %q", got)
	}
}

func TestLogThatCannotBeWrittenIsCounted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a-file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log := newAppLog(filepath.Join(file, "below"))
	log.write("out", "r", []byte("lost"))
	if log.lostLines() != 1 {
		t.Errorf("%d lines counted", log.lostLines())
	}
}
