package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
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

// write writes a MiB under a key.
func (s *store) write(key string) error {
	_, err := s.client.Put(s.t.Context(), key, strings.Repeat("x", mib))
	return err
}

func (s *store) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// compact forgets history, as the API server does every five minutes.
func (s *store) compact() {
	s.t.Helper()
	st, err := s.status(s.t.Context())
	s.must(err)
	_, err = s.client.Compact(s.t.Context(), st.Header.Revision, clientv3.WithCompactPhysical())
	s.must(err)
}

func TestTidy(t *testing.T) {
	s := openStore(t, t.TempDir(), etcdQuotaBytes)
	defer s.stop()
	for range 2 * minTidy / mib {
		s.must(s.write("k"))
	}
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

	keys := fill(func(i int) string { return fmt.Sprint("key-", i) })
	s.log.Reset()
	s.once(t.Context(), 0)
	if err := s.write("more"); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("a store that is full of content takes more: %v", err)
	}
	if !strings.Contains(s.log.String(), "delete what is not needed") {
		t.Errorf("the log says %q", s.log)
	}
	for i := range keys / 2 {
		_, err := s.client.Delete(context.WithoutCancel(t.Context()), fmt.Sprint("key-", i))
		s.must(err)
	}
	s.once(t.Context(), 0)
	s.must(s.write("more"))
}
