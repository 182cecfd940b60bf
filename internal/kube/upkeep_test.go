package kube

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skerry-dev/skerry/internal/kubetest"
)

const mib = 1 << 20

// store is an etcd of one test, with its upkeep.
type store struct {
	*upkeep
	t    *testing.T
	etcd *etcdServer
	log  *bytes.Buffer
}

func openStore(t *testing.T, dir string, quota int64) *store {
	t.Helper()
	s := &store{t: t, log: &bytes.Buffer{}}
	var err error
	s.etcd, err = startEtcd(t.Context(), dir, pki{dir: KeysDir(dir), now: time.Now}, quota, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.upkeep, err = newUpkeep(t.Context(), dir, slog.New(slog.NewTextHandler(s.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *store) stop() {
	s.close()
	s.etcd.stop()
}

func (s *store) size() int64 {
	s.t.Helper()
	st, err := s.status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return st.DbSize
}

// awaitSize waits until etcd says that its file has a size.
func (s *store) awaitSize(want int64) {
	s.t.Helper()
	s.awaitStatus(func(st *clientv3.StatusResponse) bool { return st.DbSize >= want })
}

// awaitStatus waits for what etcd says of itself. It counts when it commits, which it does by the tenth of a
// second while there are writes, as an API server makes them.
func (s *store) awaitStatus(want func(*clientv3.StatusResponse) bool) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		st, err := s.status(s.t.Context())
		s.must(err)
		if want(st) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the file has %d bytes, %d of them in use", st.DbSize, st.DbSizeInUse)
		}
		_, err = s.client.Put(s.t.Context(), "lease", st.Header.String())
		s.must(err)
		time.Sleep(20 * time.Millisecond)
	}
}

// write writes a MiB under a key.
func (s *store) write(key string) error {
	_, err := s.client.Put(s.t.Context(), key, strings.Repeat("x", mib))
	return err
}

func (s *store) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%v; the log says:\n%s", err, s.log)
	}
}

// compact forgets history, as the API server does every five minutes, and waits until its room is free.
func (s *store) compact() {
	s.t.Helper()
	st, err := s.status(s.t.Context())
	s.must(err)
	_, err = s.client.Compact(s.t.Context(), st.Header.Revision, clientv3.WithCompactPhysical())
	s.must(err)
	s.awaitStatus(func(st *clientv3.StatusResponse) bool { return st.DbSizeInUse < st.DbSize/2 })
}

func TestTidy(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, etcdQuotaBytes)
	for range 2 * minTidy / mib {
		s.must(s.write("k"))
	}
	s.awaitSize(2 * minTidy)
	s.once(t.Context(), maxTidyAtStart)
	if got := s.size(); got < minTidy {
		t.Errorf("history is not forgotten, yet the file went to %d bytes", got)
	}
	s.compact()
	s.once(t.Context(), 0)
	if got := s.size(); got < minTidy {
		t.Errorf("it was not yet time, yet the file went to %d bytes", got)
	}
	s.once(t.Context(), maxTidyRunning)
	if got := s.size(); got > 4*mib {
		t.Errorf("one MiB is in use, and the file has %d bytes", got)
	}
	if res, err := s.client.Get(t.Context(), "k"); err != nil || len(res.Kvs) != 1 || len(res.Kvs[0].Value) != mib {
		t.Errorf("what was stored is gone: %v", err)
	}

	for range 2 * minTidy / mib {
		s.must(s.write("k"))
	}
	s.awaitSize(2 * minTidy)
	s.compact()
	s.stop()
	file := filepath.Join(dir, etcdDir, "member", "snap", "db")
	before, err := os.Stat(file)
	s.must(err)
	kubetest.StartIn(t, dir)
	after, err := os.Stat(file)
	s.must(err)
	const step = 16 * mib // by which the file grows, whatever is written
	if before.Size() < 2*minTidy || after.Size() > step+8*mib {
		t.Errorf("a server starts on a file of %d bytes and has one of %d", before.Size(), after.Size())
	}
}

// TestFull fills a store twice: with history, which can be forgotten, and with content, which cannot.
func TestFull(t *testing.T) {
	const quota = 16 * mib
	s := openStore(t, t.TempDir(), quota)
	defer s.stop()
	fill := func(key func(int) string) (keys int) {
		t.Helper()
		for ; keys < 4*quota/mib; keys++ {
			if err := s.write(key(keys)); errors.Is(err, rpctypes.ErrNoSpace) {
				return keys
			} else if err != nil {
				t.Fatal(err)
			}
		}
		t.Fatal("the store never was full")
		return 0
	}
	fill(func(int) string { return "same" })
	s.once(t.Context(), 0)
	s.must(s.write("again"))

	// What is full may have gaps, so it takes some rounds until content alone fills it.
	keys := 0
	next := func(int) string { keys++; return fmt.Sprint("key-", keys) }
	for rounds := 0; ; rounds++ {
		fill(next)
		s.log.Reset()
		s.once(t.Context(), 0)
		if err := s.write(next(0)); errors.Is(err, rpctypes.ErrNoSpace) {
			break
		}
		if rounds > 20 {
			t.Fatal("a store that is full of content takes more and more")
		}
	}
	if !strings.Contains(s.log.String(), "delete what is not needed") {
		t.Errorf("the log says %q", s.log)
	}
	for i := range keys - 2 { // etcd lets in what comes between two looks at its size, which may be much
		_, err := s.client.Delete(t.Context(), fmt.Sprint("key-", i+1))
		s.must(err)
	}
	s.once(t.Context(), 0)
	s.must(s.write("more"))
}
