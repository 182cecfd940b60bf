package dirs_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
)

// lockEnv, set to a directory, makes this test's program a process that has it locked until its standard
// input ends.
const lockEnv = "SKERRY_TEST_LOCK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(lockEnv); dir != "" {
		if _, err := dirs.Lock(dir, "hub"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestData(t *testing.T) {
	home := t.TempDir()
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	byDefault := filepath.Join(home, ".local/share/skerry")
	if os.Geteuid() == 0 {
		byDefault = "/var/lib/skerry" // apps' own users may not enter root's home
	}
	tests := []struct {
		name, flag, skerry, xdg, want, reason string
	}{
		{"flag", "/flag", "/skerry", "/xdg", "/flag", "what a person types comes first"},
		{"SKERRY_HOME", "", "/skerry", "/xdg", "/skerry", "then the variable of this program"},
		{"XDG", "", "", "/xdg", "/xdg/skerry", "then the place of all programs' data"},
		{"home", "", "", "", byDefault, "then the default of the XDG specification, or root's own"},
		{"relative", "here", "", "", filepath.Join(cwd, "here"), "a relative path is of now, not of later"},
		{"relative SKERRY_HOME", "", "here/../there", "", filepath.Join(cwd, "there"), "so is one in a variable"},
		{"relative XDG", "", "", "data", filepath.Join(home, ".local/share/skerry"), "the specification says to ignore relative ones"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("HOME", home)
			t.Setenv(dirs.Home, tt.skerry)
			t.Setenv("XDG_DATA_HOME", tt.xdg)
			got, err := dirs.Data(tt.flag)
			if err != nil || got != tt.want {
				t.Errorf("Data(%q) = %q, %v, want %q: %s", tt.flag, got, err, tt.want, tt.reason)
			}
		})
	}
	if os.Geteuid() == 0 {
		return // root always has a place
	}
	t.Run("nowhere", func(t *testing.T) {
		for _, name := range []string{"HOME", dirs.Home, "XDG_DATA_HOME"} {
			t.Setenv(name, "")
		}
		if _, err := dirs.Data(""); err == nil || !strings.Contains(err.Error(), "--data-dir") {
			t.Errorf("without any place: %v, want the flag to be named", err)
		}
	})
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if got := dirs.Holder(dir, "hub"); got != 0 {
		t.Errorf("a directory that is not there is held by %d", got)
	}
	release, err := dirs.Lock(dir, "hub")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("the data directory: %v, %v", info.Mode(), err)
	}
	_, err = dirs.Lock(dir, "hub")
	if !errors.Is(err, dirs.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second Lock returned %v, want ErrInUse with directory and process", err)
	}
	if got := dirs.Holder(dir, "hub"); got != os.Getpid() {
		t.Errorf("Holder = %d, want %d", got, os.Getpid())
	}
	other, err := dirs.Lock(dir, "site")
	if err != nil {
		t.Errorf("another name in the same directory: %v", err)
	} else {
		other()
	}
	release()
	if got := dirs.Holder(dir, "hub"); got != 0 {
		t.Errorf("after release Holder = %d", got)
	}
	again, err := dirs.Lock(dir, "hub")
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again()
}

// TestLockOfAKilledProcess makes sure that a lock ends with its process, however that ends.
func TestLockOfAKilledProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), lockEnv+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the other process said %q", line)
	}
	if got := dirs.Holder(dir, "hub"); got != cmd.Process.Pid {
		t.Errorf("Holder = %d, want %d", got, cmd.Process.Pid)
	}
	if _, err := dirs.Lock(dir, "hub"); !errors.Is(err, dirs.ErrInUse) {
		t.Errorf("Lock beside another process returned %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if got := dirs.Holder(dir, "hub"); got != 0 {
		t.Errorf("a killed process (%d) still holds the directory: it would be ended in another's place", got)
	}
	release, err := dirs.Lock(dir, "hub")
	if err != nil {
		t.Fatalf("after the other was killed: %v", err)
	}
	release()
}

// TestHolderIsInNobodysWay asks who holds a lock, from many sides at once, while it is taken and released.
func TestHolderIsInNobodysWay(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hub.lock"), []byte("1"), 0o600); err != nil {
		t.Fatal(err) // what a killed process left
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				dirs.Holder(dir, "hub")
			}
		})
	}
	for range 300 {
		release, err := dirs.Lock(dir, "hub")
		if err != nil {
			t.Errorf("asking for the holder kept Lock from its lock: %v", err)
			break
		}
		release()
	}
	close(stop)
	wg.Wait()
}

func port(t *testing.T, l net.Listener) int {
	t.Helper()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("listens on %v", l.Addr())
	}
	return addr.Port
}

func listen(t *testing.T, p *dirs.Ports, name, address string) (net.Listener, int) {
	t.Helper()
	l, err := p.Listen(name, address, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, port(t, l)
}

func TestPorts(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	wanted := taken.Addr().String()

	l, first := listen(t, dirs.OpenPorts(dir), "hub", wanted)
	if first == port(t, taken) {
		t.Fatal("two listeners share a port")
	}
	_ = l.Close()

	// The wanted port is free now, yet the next start takes the one that others know.
	_ = taken.Close()
	l, again := listen(t, dirs.OpenPorts(dir), "hub", wanted)
	if again != first {
		t.Errorf("the next start listens on %d, not on %d as before", again, first)
	}

	// While it runs, another installation beside it gets one of its own.
	_, other := listen(t, dirs.OpenPorts(t.TempDir()), "hub", l.Addr().String())
	if other == first {
		t.Error("two installations share a port")
	}
	_ = l.Close()

	// An address that a person gave is taken as it is, or refused.
	if _, err := dirs.OpenPorts(dir).Listen("hub", fmt.Sprintf("127.0.0.1:%d", other), true); err == nil {
		t.Error("a taken port that a person asked for was replaced")
	} else if !strings.Contains(err.Error(), "hub") {
		t.Errorf("error does not say for what: %v", err)
	}
	if _, err := dirs.OpenPorts(dir).Listen("hub", "7443", false); err == nil {
		t.Error("an address without a host was taken")
	}
}

func TestPortsFileIsDamaged(t *testing.T) {
	for _, content := range []string{"", "null", "{", "[]", `{"hub":"x"}`, `{"hub":-1}`, `{"hub":99999}`} {
		dir := t.TempDir()
		path := filepath.Join(dir, "ports.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l, got := listen(t, dirs.OpenPorts(dir), "hub", "127.0.0.1:0")
		_ = l.Close()
		var kept map[string]int
		data, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(data, &kept) != nil || kept["hub"] != got {
			t.Errorf("after a file that held %q, %d is kept as %s: %v", content, got, data, err)
		}
	}
}
