// Command apiserver is the API server of a hub alone, for tests: it keeps its data in the directory that it
// is given, prints "ready", and ends when its standard input does.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/skerry-dev/skerry/internal/kube"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	klog.SetSlogLogger(log)
	ctx := context.Background()
	server, err := kube.Start(ctx, kube.Options{Dir: dir, Listener: l, Log: log})
	if err != nil {
		return err
	}
	defer server.Stop()
	if err := server.WaitReady(ctx); err != nil {
		return err
	}
	if err := server.WriteKubeconfig(filepath.Join(dir, "kubeconfig")); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
