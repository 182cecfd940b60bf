package kube

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"
)

// TestEtcdThatIsToldToStopWhileItStarts ends etcd at several moments of its start: it never waits for servers that
// it has not begun.
func TestEtcdThatIsToldToStopWhileItStarts(t *testing.T) {
	dir := t.TempDir()
	for _, after := range []time.Duration{0, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		ended := make(chan error, 1)
		go func() {
			s, err := startEtcd(ctx, dir, pki{dir: KeysDir(dir), now: time.Now}, etcdQuotaBytes, slog.New(slog.DiscardHandler))
			if err == nil {
				s.stop() // it was faster
			}
			ended <- err
		}()
		select {
		case err := <-ended:
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("told to stop after %s: %v", after, err)
			}
			t.Logf("told to stop after %s: %v", after, err)
		case <-time.After(time.Minute):
			t.Fatalf("told to stop after %s it still runs a minute later", after)
		}
		cancel()
	}
}
