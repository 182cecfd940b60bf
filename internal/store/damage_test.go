package store_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/store"
)

// writerEnv, set to a path, makes this test's program the writer that TestKilledWriter kills.
const writerEnv = "SKERRY_TEST_STORE_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		fmt.Fprintln(os.Stderr, write(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// write stores one record after the other, in two keys at once, and says each number once it is stored.
func write(path string) error {
	s, err := store.Open(path)
	if err != nil {
		return err
	}
	b, err := s.Bucket("a")
	if err != nil {
		return err
	}
	var last int
	if err := b.Get("last", &last); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	for n := last + 1; ; n++ {
		err := b.Update(func(w store.Writer) error {
			return errors.Join(w.Put("n"+strconv.Itoa(n), strings.Repeat("x", n%3000)), w.Put("last", n))
		})
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestKilledWriter kills a writer at random moments: all that it said is stored, and nothing by halves.
func TestKilledWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	said := 0
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatalf("round %d: the writer said nothing", round)
		}
		said, _ = strconv.Atoi(lines.Text())
		time.AfterFunc(rand.N(40*time.Millisecond), func() { _ = cmd.Process.Kill() })
		for lines.Scan() {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				said = n
			}
		}
		_ = cmd.Wait()

		s, err := store.Open(path)
		if err != nil {
			t.Fatalf("round %d: the file of a killed writer cannot be opened: %v", round, err)
		}
		b := bucket(t, s, "a")
		var last int
		if err := b.Get("last", &last); err != nil || last < said {
			t.Errorf("round %d: %d was said, %d is stored: %v", round, said, last, err)
		}
		for n := 1; n <= last; n++ {
			var body string
			if err := b.Get("n"+strconv.Itoa(n), &body); err != nil || len(body) != n%3000 {
				t.Fatalf("round %d: record %d of %d: %d bytes, %v", round, n, last, len(body), err)
			}
		}
		if _, err := b.GetBytes("n" + strconv.Itoa(last+1)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("round %d: half an update is stored: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records were acknowledged", said)
}

// filled returns a store's file with records enough for several pages.
func filled(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	b := bucket(t, s, "a")
	for i := range 40 {
		if err := b.Put("k"+strconv.Itoa(i), strings.Repeat("x", 2000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDamaged(t *testing.T) {
	good := filled(t)
	page := os.Getpagesize()
	overwrite := func(from, to int) []byte {
		out := append([]byte{}, good...)
		for i := from; i < to; i++ {
			out[i] = 0x5a
		}
		return out
	}
	tests := []struct {
		name, reason string
		data         []byte
	}{
		{"text", "somebody put another file there", []byte(strings.Repeat("this is no store\n", 4096))},
		{"zeros", "a power cut left a file of zeros", make([]byte, 64<<10)},
		{"metas", "both of the file's heads are gone", overwrite(0, 2*page)},
		{"short", "the disk was full or the copy incomplete", good[:2*page]},
		{"half", "the disk was full or the copy incomplete", good[:len(good)/2/page*page]},
		{"body", "the disk lost everything behind the heads", overwrite(2*page, len(good))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(path)
			if err == nil {
				t.Cleanup(func() { _ = s.Close() })
			}
			if !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open returned %v, want ErrDamaged with the path: %s", err, tt.reason)
			}
			if after, err := os.ReadFile(path); err != nil || len(after) < len(tt.data) {
				t.Errorf("the damaged file was cut to %d bytes of %d: %v", len(after), len(tt.data), err)
			}
		})
	}
}

// TestDamagedPage damages one page after the other: whatever is damaged, nothing panics, and what is read
// without an error is what was written.
func TestDamagedPage(t *testing.T) {
	good := filled(t)
	page := os.Getpagesize()
	opened, refused := 0, 0
	for at := 2 * page; at < len(good); at += page {
		path := filepath.Join(t.TempDir(), "store.db")
		data := append([]byte{}, good...)
		for i := at; i < at+16; i++ { // a page's header
			data[i] = 0xff
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(path)
		if err != nil {
			refused++
			if !errors.Is(err, store.ErrDamaged) {
				t.Errorf("page %d: %v", at/page, err)
			}
			continue
		}
		opened++ // the page was a free one, or holds the middle of a record
		b := bucket(t, s, "a")
		damaged := 0
		for i := range 40 {
			var body string
			err := b.Get("k"+strconv.Itoa(i), &body)
			if errors.Is(err, store.ErrDamaged) {
				damaged++
			} else if err != nil || body != strings.Repeat("x", 2000) {
				t.Errorf("page %d is damaged, which nobody saw: record %d: %d bytes, %v", at/page, i, len(body), err)
			}
		}
		if damaged > 1 {
			t.Errorf("page %d: %d records are lost with the middle of one", at/page, damaged)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d damaged files were refused, %d opened", refused, opened)
	if refused == 0 {
		t.Error("no damaged page was found")
	}
}
