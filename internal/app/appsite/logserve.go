package appsite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// errNoApp says that the site has no such app.
var errNoApp = errors.New("this site has no such app")

// registerCalls offers what the hub and the machine's administrator may ask.
func (m *Module) registerCalls() {
	m.host.Calls.HandleStream(app.MethodLogs, func(ctx context.Context, body json.RawMessage, out site.Stream) error {
		req, err := app.DecodeLogsRequest(body)
		if err != nil {
			return err
		}
		return m.streamLog(ctx, req, out)
	})
	m.host.Local.HandleFunc("GET /apps", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m.Report()) // the asker is gone when this fails
	})
	m.host.Local.HandleFunc("GET /logs", m.serveLog)
}

// serveLog answers "GET /logs?app=namespace/name&tail=N&follow=1" with text.
func (m *Module) serveLog(w http.ResponseWriter, r *http.Request) {
	req, err := logsQuery(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch err := m.streamLog(r.Context(), req, flushing{w, http.NewResponseController(w)}); {
	case errors.Is(err, errNoApp):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil && r.Context().Err() == nil:
		fmt.Fprintf(w, "... the log ends here: %v\n", err)
	}
}

func logsQuery(r *http.Request) (app.LogsRequest, error) {
	query := r.URL.Query()
	key, err := fleet.ParseAppKey(query.Get("app"))
	if err != nil {
		return app.LogsRequest{}, err
	}
	req := app.LogsRequest{App: key, Tail: app.DefaultTail, Follow: query.Get("follow") == "1" || query.Get("follow") == "true"}
	if tail := query.Get("tail"); tail != "" {
		if req.Tail, err = strconv.Atoi(tail); err != nil {
			return req, fmt.Errorf("tail %q: want a number of lines", tail)
		}
	}
	return req.Checked()
}

// flushing sends each write on at once.
type flushing struct {
	io.Writer
	to *http.ResponseController
}

// Write implements io.Writer.
func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.to.Flush()
	}
	return n, err
}

// streamLog writes the last lines of the app's log and, to a follower, what comes, until ctx ends, the app
// leaves, or out fails. A follower that is too slow loses lines and is told how many.
func (m *Module) streamLog(ctx context.Context, req app.LogsRequest, out io.Writer) error {
	m.mu.Lock()
	w := m.apps[req.App]
	m.mu.Unlock()
	if w == nil {
		return fmt.Errorf("app %s: %w", req.App, errNoApp)
	}
	lines, follower, err := w.log.open(req.Tail, req.Follow)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if follower != nil {
		defer follower.close()
	}
	if len(lines) > 0 {
		if _, err := io.WriteString(out, strings.Join(lines, "")); err != nil {
			return err
		}
	}
	for follower != nil {
		select {
		case <-follower.ready:
		case <-follower.ended:
			_, err := out.Write(follower.take())
			return err
		case <-ctx.Done():
			return nil
		case <-m.hard.Done():
			return nil
		}
		if _, err := out.Write(follower.take()); err != nil {
			return err
		}
	}
	return nil
}
