package keyvalue_test

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

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app/wasm/keyvalue"
	"github.com/skerry-dev/skerry/internal/store"
)

// writerEnv, set to a path, makes this test's program the writer that TestKilledWriter kills.
const writerEnv = "SKERRY_TEST_KV_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		fmt.Fprintln(os.Stderr, write(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var wide = keyvalue.Bounds{Keys: 100_000, Bytes: 64 << 20}

// write stores one value after the other and says each once it is stored.
func write(path string) error {
	s, err := keyvalue.NewStores().Open(path, wide)
	if err != nil {
		return err
	}
	keys, _ := s.List("n", "", 1<<20)
	for n := len(keys); ; n++ {
		if err := s.Put(fmt.Sprintf("n%06d", n), []byte(strings.Repeat("x", n%500))); err != nil {
			return err
		}
		fmt.Println(n + 1)
	}
}

func open(t *testing.T, s *keyvalue.Stores, path string, b keyvalue.Bounds) *keyvalue.Store {
	t.Helper()
	kv, err := s.Open(path, b)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	stores := keyvalue.NewStores()
	kv := open(t, stores, path, keyvalue.Bounds{Keys: 2, Bytes: 20})
	for _, tt := range []struct {
		reason, key, value string
		want               error
	}{
		{"a value", "a", "12345", nil},
		{"another", "b", "1234567890", nil},
		{"a third key", "c", "", keyvalue.ErrFull},
		{"more bytes than there may be", "a", "1234567890", keyvalue.ErrFull},
		{"what makes it smaller", "b", "1", nil},
		{"then there is room", "a", "1234567890", nil},
		{"no key", "", "x", keyvalue.ErrKey},
		{"a zero byte", "a\x00b", "x", keyvalue.ErrKey},
		{"a key that is too long", strings.Repeat("a", keyvalue.MaxKey+1), "x", keyvalue.ErrKey},
		{"a value that is too long", "a", strings.Repeat("a", keyvalue.MaxValue+1), keyvalue.ErrValue},
	} {
		if err := kv.Put(tt.key, []byte(tt.value)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.reason, err, tt.want)
		}
	}
	// A second user sees the same, within bounds of its own.
	other := open(t, stores, path, wide)
	if err := other.Put("c", nil); err != nil {
		t.Error(err)
	}
	if v, err := kv.Get("c"); err != nil || len(v) != 0 {
		t.Errorf("an empty value is %q, %v", v, err)
	}
	if err := errors.Join(kv.Delete("b"), kv.Delete("b"), kv.Close()); err != nil {
		t.Error(err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	again := open(t, stores, path, keyvalue.Bounds{Keys: 2, Bytes: 20})
	defer again.Close()
	if _, err := again.Get("b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a key that was deleted: %v", err)
	}
	if v, err := again.Get("a"); err != nil || string(v) != "1234567890" {
		t.Errorf("after it was opened again a is %q, %v", v, err)
	}
	if err := again.Put("d", nil); !errors.Is(err, keyvalue.ErrFull) {
		t.Errorf("what was stored before is not counted: %v", err)
	}
}

func TestList(t *testing.T) {
	kv := open(t, keyvalue.NewStores(), filepath.Join(t.TempDir(), "kv.db"), wide)
	defer kv.Close()
	for _, key := range []string{"b/2", "a", "b/1", "b/3", "c", "b"} {
		if err := kv.Put(key, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		prefix, after string
		room          int
		want          string
		more          bool
	}{
		{"", "", 100, "a b b/1 b/2 b/3 c", false},
		{"b/", "", 100, "b/1 b/2 b/3", false},
		{"b/", "b/1", 100, "b/2 b/3", false},
		{"b/", "b/1", 4, "b/2", true},
		{"b/", "b/3", 100, "", false},
		{"b/", "", 3, "", true},
		{"b/", "a", 100, "b/1 b/2 b/3", false},
		{"b/", "c", 100, "", false},
		{"x", "", 100, "", false},
	} {
		keys, more := kv.List(tt.prefix, tt.after, tt.room)
		if diff := cmp.Diff(tt.want, strings.Join(keys, " ")); diff != "" || more != tt.more {
			t.Errorf("%+v: more is %v, keys (-want +got):\n%s", tt, more, diff)
		}
	}
}

// TestKilledWriter kills a writer at random moments: all that it said is stored.
func TestKilledWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	said := 0
	for round := range 5 {
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
		kv := open(t, keyvalue.NewStores(), path, wide)
		for n := range said {
			if v, err := kv.Get(fmt.Sprintf("n%06d", n)); err != nil || len(v) != n%500 {
				t.Fatalf("round %d: value %d of %d has %d bytes, %v", round, n, said, len(v), err)
			}
		}
		if err := kv.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
