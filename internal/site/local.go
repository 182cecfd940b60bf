package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site/outbox"
)

// socketName is the agent's local socket below its data directory. Whoever may enter that directory, its
// owner alone, may ask.
const socketName = "agent.sock"

// ErrNoAgent means that no agent answers in a data directory.
var ErrNoAgent = errors.New("no agent runs here")

// Status is what an agent says of itself on its local socket.
type Status struct {
	Site       fleet.SiteName    `json:"site"`
	Member     fleet.MemberID    `json:"member"`
	Version    string            `json:"version"`
	Link       fleet.Link        `json:"link"`
	Generation uint64            `json:"generation"`
	Gateway    string            `json:"gateway,omitempty"`
	Problems   map[string]string `json:"problems,omitempty"`
	PID        int               `json:"pid"`
	// Outbox is what the hub was not told yet.
	Outbox outbox.Stats `json:"outbox"`
}

func (a *Agent) serveStatus(w http.ResponseWriter, _ *http.Request) {
	pending := a.outbox.Stats()
	a.mu.Lock()
	s := Status{
		Site: a.o.Site, Member: a.o.Member, Version: a.o.Version, Link: a.link, Generation: a.manifest.Generation,
		Gateway: a.gateway.URL(), Problems: a.problems, PID: os.Getpid(), Outbox: pending,
	}
	data, err := json.Marshal(s)
	a.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// The caller has gone when this fails; there is nobody to tell.
	_, _ = w.Write(data)
}

// socketAddress names the socket through an open directory: the path of a Unix socket is bounded to about
// a hundred bytes, that of a data directory is not.
func socketAddress(dir string) (string, *os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, fmt.Errorf("open data directory: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName), d, nil
}

// listenLocal listens on the local socket. A socket that a killed agent left is replaced; the store's lock
// already made sure that no other agent runs.
func listenLocal(dir string) (net.Listener, error) {
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old local socket: %w", err)
	}
	address, d, err := socketAddress(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on local socket: %w", err)
	}
	// Its path goes through a file descriptor that is closed by then.
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(filepath.Join(dir, socketName), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect local socket: %w", err), l.Close())
	}
	return l, nil
}

// localPart names the local socket among an agent's problems.
const localPart = "local socket"

// localAgain is when to try again to listen on the local socket, as on a disk that was full.
const localAgain = 5 * time.Second

// keepLocal serves the local socket, and opens it first when it could not be opened before.
func (a *Agent) keepLocal(ctx context.Context, l net.Listener) {
	for l == nil {
		if !sleep(ctx, localAgain) {
			return
		}
		var err error
		l, err = a.listen(a.o.Dir)
		a.setProblem(localPart, err)
	}
	serveLocal(ctx, l, a.local, a.log)
}

func serveLocal(ctx context.Context, l net.Listener, mux *http.ServeMux, log *slog.Logger) {
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog:    slog.NewLogLogger(log.With("component", "local").Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Error("local socket failed", "error", err)
	}
}

// LocalClient returns a client that asks the agent of a data directory; any host name in URLs will do.
// Errors of dialling wrap ErrNoAgent.
func LocalClient(dir string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			address, d, err := socketAddress(dir)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrNoAgent, err)
			}
			defer d.Close()
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", address)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", dir, ErrNoAgent)
			}
			return conn, nil
		},
		DisableKeepAlives: true,
	}}
}
