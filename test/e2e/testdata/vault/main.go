// Command vault is the app of the tests of secrets: it says the SHA-256 of what it was given, never what it
// was given.
package main

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

func main() {
	var signals atomic.Int64
	heard := make(chan os.Signal, 16)
	signal.Notify(heard, syscall.SIGHUP)
	go func() {
		for range heard {
			signals.Add(1)
		}
	}()
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "env %x\n", sha256.Sum256([]byte(os.Getenv("DB_PASSWORD"))))
		fmt.Fprintf(w, "pid %d signals %d user %d\n", os.Getpid(), signals.Load(), os.Getuid())
		dir := os.Getenv("SKERRY_SECRETS_DIR")
		names, _ := filepath.Glob(dir + "/*/*")
		for _, name := range names {
			data, err := os.ReadFile(name)
			info, statErr := os.Stat(name)
			if err != nil || statErr != nil {
				fmt.Fprintln(w, err, statErr)
				continue
			}
			rel, _ := filepath.Rel(dir, name)
			fmt.Fprintf(w, "file %s %v %x\n", rel, info.Mode(), sha256.Sum256(data))
		}
	})
	fmt.Println("listening")
	if err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
