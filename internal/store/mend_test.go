package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/store"
)

// TestOpenMended damages a file at every page, in its header and in its body: it opens all the same, what is
// read is as it was stored, and what is lost is named or the whole file set aside.
func TestOpenMended(t *testing.T) {
	good := filled(t)
	page := os.Getpagesize()
	mended, salvaged, dropped := 0, 0, 0
	for at := 0; at < len(good); at += page / 2 {
		path := filepath.Join(t.TempDir(), "store.db")
		data := append([]byte{}, good...)
		for i := at; i < at+16; i++ {
			data[i] ^= 0xff
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, losses, err := store.OpenMended(path)
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		b := bucket(t, s, "a")
		left := 0
		for i := range 40 {
			var body string
			switch err := b.Get("k"+strconv.Itoa(i), &body); {
			case err == nil && body == strings.Repeat("x", 2000):
				left++
			case !errors.Is(err, store.ErrNotFound):
				t.Errorf("byte %d: record %d: %d bytes, %v", at, i, len(body), err)
			}
		}
		if losses.SetAside == "" && left+len(losses.Records) != 40 {
			t.Errorf("byte %d: %d records are left, %v are said to be lost", at, left, losses.Records)
		}
		if losses.SetAside != "" {
			mended++
			salvaged += left
			if _, err := os.Stat(losses.SetAside); err != nil {
				t.Errorf("byte %d: the damaged file is gone: %v", at, err)
			}
		}
		dropped += len(losses.Records)
		if err := b.Put("after", 1); err != nil {
			t.Errorf("byte %d: a mended store takes nothing: %v", at, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, losses, err := store.OpenMended(path); err != nil || losses.SetAside != "" || len(losses.Records) > 0 {
			t.Errorf("byte %d: it was not mended for good: %+v %v", at, losses, err)
		}
	}
	t.Logf("%d files were set aside, %d of their %d records taken over; %d records were dropped", mended, salvaged, mended*40, dropped)
	if mended == 0 || salvaged == 0 || dropped == 0 {
		t.Error("one kind of damage was not met")
	}
}

func TestOpenMendedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no store\n", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, losses, err := store.OpenMended(path)
	if err != nil || losses.SetAside == "" {
		t.Fatalf("a file that is no store: %+v %v", losses, err)
	}
	if _, _, err := store.OpenMended(path); !errors.Is(err, store.ErrLocked) {
		t.Errorf("a store in use is not to be mended: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
