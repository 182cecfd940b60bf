package site_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/site/outbox"
)

func TestOrderOfModules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.wantDiary("the gateway comes first", "start gateway", "start apps", "start rules")
		if err := r.stop(); err != nil {
			t.Errorf("an orderly end returned %v", err)
		}
		r.wantDiary("the gateway goes last", "stop rules", "stop apps", "stop gateway")
		r.hub.Close()
	})
}

func TestModuleThatCannotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.make()
		r.rules.starting = errors.New("no such device")
		r.run()
		if err := <-r.done; err == nil || !strings.Contains(err.Error(), "rules") || !strings.Contains(err.Error(), "no such device") {
			t.Errorf("Run returned %v", err)
		}
		r.wantDiary("what was started is stopped", "start gateway", "start apps", "start rules", "stop apps", "stop gateway")
		r.close()
		r.hub.Close()
	})
}

func TestWhatAModuleIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.make()
		defer r.close()
		defer r.hub.Close()
		a, b := r.apps.host, r.rules.host
		if a.Name != "shop-1" || a.Router == nil || a.Content == nil || a.Calls == nil || a.Local == nil || a.Changed == nil {
			t.Errorf("a module is given %+v", a)
		}
		if info, err := os.Stat(a.Dir); err != nil || info.Mode().Perm() != 0o700 || filepath.Dir(a.Dir) != r.dir || a.Dir == b.Dir {
			t.Errorf("a module's directory is %s (%v), %v", a.Dir, info.Mode(), err)
		}
		if err := a.Bucket.Put("k", 1); err != nil {
			t.Fatal(err)
		}
		if err := b.Bucket.Get("k", new(int)); err == nil {
			t.Error("two modules share a part of the store")
		}
	})
}

// deepDir returns a directory whose path is far longer than a Unix socket's may be.
func deepDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for range 6 {
		dir = filepath.Join(dir, strings.Repeat("d", 60))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// askStatus asks the agent of a directory over its local socket.
func askStatus(t *testing.T, dir string) (site.Status, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://agent/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := site.LocalClient(dir).Do(req)
	if err != nil {
		return site.Status{}, err
	}
	defer res.Body.Close()
	var s site.Status
	return s, json.NewDecoder(res.Body).Decode(&s)
}

// TestLocalSocket runs an agent on a real socket, so without a bubble of time.
func TestLocalSocket(t *testing.T) {
	r := newRig(t)
	r.dir = deepDir(t)
	if _, err := askStatus(t, r.dir); !errors.Is(err, site.ErrNoAgent) {
		t.Errorf("a directory without an agent was answered with %v", err)
	}
	if _, err := askStatus(t, filepath.Join(r.dir, "nothing")); !errors.Is(err, site.ErrNoAgent) {
		t.Errorf("a directory that is not there was answered with %v", err)
	}
	socket := filepath.Join(r.dir, "agent.sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err) // what a killed agent left
	}
	r.make()
	r.agent.SetListen(site.ListenLocal)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.agent.Run(ctx) }()
	r.agent.SetLink(fleet.LinkAway)
	status, err := askStatus(t, r.dir)
	for deadline := time.Now().Add(10 * time.Second); (err != nil || status.Link != fleet.LinkAway) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		status, err = askStatus(t, r.dir)
	}
	want := site.Status{
		Site: "shop-1", Member: "m-1", Version: "1.2.3", Link: fleet.LinkAway, Gateway: "http://127.0.0.1:8081", PID: os.Getpid(),
		Outbox: outbox.Stats{Pending: 1}, // that the agent started
	}
	status.Outbox.Bytes = 0 // or not on the disk yet
	if diff := cmp.Diff(want, status); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run returned %v", err)
	}
	if _, err := askStatus(t, r.dir); !errors.Is(err, site.ErrNoAgent) {
		t.Errorf("after the agent ended: %v", err)
	}
	r.close()
	r.hub.Close()
}
