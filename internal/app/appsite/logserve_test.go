package appsite_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/wire"
)

// stream is a site.Stream that keeps what is written.
type stream struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func TestLogsOverTheBus(t *testing.T) {
	play(t, nil, func(t *testing.T, b *box, rt *scripted) {
		b.apply(b.push("1", nil))
		synctest.Wait()
		spec := rt.newest().spec
		spec.Stdout.Write([]byte("one\ntwo\n"))
		call := b.calls.streams[app.MethodLogs]

		var short stream
		if err := call(t.Context(), []byte(`{"app":"default/hello","tail":1}`), &short); err != nil {
			t.Fatal(err)
		}
		if got := short.String(); !strings.HasSuffix(got, " out hello-1 two\n") || strings.Contains(got, "one") {
			t.Errorf("the last line is %q", got)
		}

		ctx, cancel := context.WithCancel(t.Context())
		var long stream
		ended := make(chan error, 1)
		go func() { ended <- call(ctx, []byte(`{"app":"default/hello","tail":-1,"follow":true}`), &long) }()
		synctest.Wait()
		spec.Stderr.Write([]byte("three\n"))
		synctest.Wait()
		if got := long.String(); !strings.Contains(got, "out hello-1 one\n") || !strings.HasSuffix(got, "err hello-1 three\n") {
			t.Errorf("followed %q", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("a caller that had enough got %v", err)
		}

		if err := call(t.Context(), []byte(`{"app":"default/none"}`), &short); err == nil || !strings.Contains(err.Error(), "no such app") {
			t.Errorf("an unknown app got %v", err)
		}
		if err := call(t.Context(), []byte(`{"app":"../../etc"}`), &short); !errors.Is(err, wire.ErrMessage) {
			t.Errorf("a bad name got %v", err)
		}
		go func() { ended <- call(t.Context(), []byte(`{"app":"default/hello","tail":-1,"follow":true}`), &long) }()
		synctest.Wait()
		b.apply()
		if err := <-ended; err != nil {
			t.Errorf("the app left: %v", err)
		}
	})
}

func TestLocalSocket(t *testing.T) {
	play(t, nil, func(t *testing.T, b *box, rt *scripted) {
		b.apply(b.push("1", nil))
		synctest.Wait()
		rt.newest().spec.Stdout.Write([]byte("one\ntwo\n"))
		for path, row := range map[string]struct {
			reason string
			status int
			says   string
		}{
			"/apps":                               {"what runs", 200, `"app":"default/hello"`},
			"/logs?app=default/hello&tail=1":      {"the last line", 200, "out hello-1 two\n"},
			"/logs?app=default/hello":             {"all there is", 200, "out hello-1 one\n"},
			"/logs?app=default/hello&tail=0":      {"nothing was asked for", 200, ""},
			"/logs?app=default/none":              {"no such app", 404, "no such app"},
			"/logs?app=hello":                     {"not a key", 400, "namespace/name"},
			"/logs?app=default/hello&tail=plenty": {"not a number", 400, "tail"},
		} {
			rec := httptest.NewRecorder()
			b.local.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			if rec.Code != row.status || !strings.Contains(rec.Body.String(), row.says) {
				t.Errorf("%s (%s): got %d %q", path, row.reason, rec.Code, rec.Body)
			}
			if strings.HasSuffix(path, "tail=1") && strings.Contains(rec.Body.String(), "one") {
				t.Errorf("%s: got %q", path, rec.Body)
			}
		}
	})
}
