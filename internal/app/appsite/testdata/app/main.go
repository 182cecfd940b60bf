// Command app is the program that the tests of appsite run: a small server that says its version.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	if os.Getenv("MODE") == "broken" {
		fmt.Println("cannot start")
		return 1
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(2 * time.Millisecond)
		hub, err := os.ReadFile(os.Getenv("SKERRY_HUB_FILE"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%s at %s, hub %s", os.Getenv("VERSION"), os.Getenv("SKERRY_SITE"), strings.TrimSpace(string(hub)))
	})
	mux.HandleFunc("/hello/store", func(w http.ResponseWriter, _ *http.Request) {
		path := os.Getenv("SKERRY_DATA_DB") + "/versions"
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(f, os.Getenv("VERSION"))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		data, _ := os.ReadFile(path)
		w.Write(data)
	})
	// What the program can do with a file of its configuration.
	mux.HandleFunc("/hello/config/", func(w http.ResponseWriter, r *http.Request) {
		path := filepath.Join(os.Getenv("SKERRY_CONFIG_DIR"), strings.TrimPrefix(r.URL.Path, "/hello/config/"))
		data, err := os.ReadFile(path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writable := "read-only"
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			writable = "writable"
			f.Close()
		}
		fmt.Fprintf(w, "%s|%s|%d|%s", data, os.Getenv("LISTEN"), os.Getuid(), writable)
	})
	srv := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	done := make(chan struct{})
	go func() { <-ctx.Done(); srv.Shutdown(context.Background()); close(done) }()
	fmt.Println("version", os.Getenv("VERSION"), "starts")
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Println(err)
		return 1
	}
	<-done
	return 0
}
