// Package kubetest starts the real Kubernetes API server for tests, as a child process built without the
// race detector, so that race runs never compile Kubernetes. Only test files import it.
//
// A test that cannot have one (no Go toolchain) is skipped or fails as package testenv says.
package kubetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skerry-dev/skerry/internal/testenv"
)

// Server is a running API server of one test.
type Server struct {
	// Config reaches it as its administrator.
	Config *rest.Config
	// Kubeconfig is the file that says the same.
	Kubeconfig string
	// Dir is its data directory.
	Dir string

	cmd   *exec.Cmd
	stdin io.Closer
}

// startTimeout covers the build of the server from a cold cache.
const startTimeout = 15 * time.Minute

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartIn(t, t.TempDir())
}

// StartIn starts a server on a data directory, which a later one may continue.
func StartIn(t testing.TB, dir string) *Server {
	t.Helper()
	testenv.Require(t, testenv.Tool("go"))
	s := &Server{Dir: dir, Kubeconfig: filepath.Join(dir, "kubeconfig")}
	s.cmd = exec.Command(build(t), dir)
	s.cmd.Stderr = os.Stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.stdin = stdin
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("API server did not start: %q %v", line, err)
	}
	s.Config, err = clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	s.Config.QPS = -1
	return s
}

// Stop ends the server in order. It may be called more than once.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	// The server ends when its standard input does.
	_ = s.stdin.Close()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// build makes the server's program, once for all packages whose tests run at the same time, and returns
// its path. A program that is up to date is not linked again.
func build(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "skerry-kubetest")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	path := filepath.Join(dir, "apiserver")
	cmd := exec.CommandContext(ctx, "go", "build", "-race=false", "-o", path, "github.com/skerry-dev/skerry/internal/kubetest/apiserver")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("build API server: %w\n%s", err, out))
	}
	return path
}
