package process

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// childMode is the variable that turns the test binary into the program under test.
const childMode = "CHILD_MODE"

func TestMain(m *testing.M) {
	mode := os.Getenv(childMode)
	if mode == "" {
		os.Exit(m.Run())
	}
	os.Exit(child(mode))
}

// child is what the tests run as an app.
func child(mode string) int {
	switch mode {
	case "exit3":
		fmt.Println("to stdout")
		fmt.Fprintln(os.Stderr, "to stderr")
		return 3
	case "sleep":
		signal.Ignore(syscall.SIGTERM)
		time.Sleep(time.Hour)
	case "bomb":
		var hold [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			hold = append(hold, b)
			if len(hold) > 1024 {
				return 9
			}
		}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		spawnChild(&syscall.SysProcAttr{}, os.Environ())
		spawnChild(&syscall.SysProcAttr{Setsid: true}, os.Environ())
		return serve()
	case "orphans":
		spawnChild(&syscall.SysProcAttr{Setsid: true}, nil) // hides from group and environment
		spawnChild(&syscall.SysProcAttr{Setsid: true}, nil)
		return serve()
	case "orphans-grouped":
		spawnChild(&syscall.SysProcAttr{}, nil)
		spawnChild(&syscall.SysProcAttr{}, nil)
		return serve()
	case "serve":
		return serve()
	case "late":
		for {
			if _, err := os.Stat(os.Getenv("BIND_FILE")); err == nil {
				return serve()
			}
			time.Sleep(10 * time.Millisecond)
		}
	case "agent":
		return agent()
	}
	return 2
}

func spawnChild(attr *syscall.SysProcAttr, env []string) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append([]string{}, env...), childMode+"=sleep")
	cmd.SysProcAttr = attr
	return cmd.Start()
}

// described is what the child says of itself.
type described struct {
	Env, Args []string
	Cwd       string
	UID, GID  int
	Groups    []int
	NoNewPriv bool
	PGID, PID int
}

func serve() int {
	var notReady, notLive atomic.Bool
	if file := os.Getenv("READY_FILE"); file != "" {
		_, err := os.Stat(file)
		notReady.Store(err != nil)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(describe()) })
	mux.HandleFunc("/ready", gate(&notReady))
	mux.HandleFunc("/live", gate(&notLive))
	mux.HandleFunc("/set", func(_ http.ResponseWriter, r *http.Request) {
		notReady.Store(r.FormValue("ready") == "no")
		notLive.Store(r.FormValue("live") == "no")
	})
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(4) })
	mux.HandleFunc("/fork", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		for i := range n {
			if err := spawnChild(&syscall.SysProcAttr{}, os.Environ()); err != nil {
				fmt.Fprint(w, i, " ", err)
				return
			}
		}
		fmt.Fprint(w, n)
	})
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
		w.Write(data)
	})
	mux.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		if err := os.WriteFile(r.FormValue("path"), []byte("x"), 0o600); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return 5
	}
	srv := &http.Server{Handler: mux}
	stopped, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	if os.Getenv(childMode) == "stubborn" {
		cancel()
		stopped = context.Background()
		signal.Ignore(syscall.SIGTERM)
	}
	go func() {
		<-stopped.Done()
		if file := os.Getenv("STOPPED_FILE"); file != "" {
			os.WriteFile(file, []byte("stopped"), 0o600)
		}
		os.Exit(0)
	}()
	srv.Serve(l)
	return 6
}

func gate(closed *atomic.Bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if closed.Load() {
			http.Error(w, "closed", http.StatusServiceUnavailable)
		}
	}
}

func describe() described {
	cwd, _ := os.Getwd()
	groups, _ := os.Getgroups()
	status, _ := os.ReadFile("/proc/self/status")
	return described{
		Env: os.Environ(), Args: os.Args[1:], Cwd: cwd, UID: os.Getuid(), GID: os.Getgid(), Groups: groups,
		NoNewPriv: strings.Contains(string(status), "NoNewPrivs:\t1"),
		PGID:      syscall.Getpgrp(), PID: os.Getpid(),
	}
}
