package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// hub is the one hub process, and the command line that talks to it.
type hub struct {
	program, dir string
	args         []string
	log          *os.File

	cmd   *exec.Cmd
	ended chan struct{}
}

// hubReady bounds the start of a hub.
const hubReady = 2 * time.Minute

// newHub chooses ports that no connection from this machine takes while the hub is away.
func newHub(program, dir string) (*hub, error) {
	h := &hub{program: program, dir: filepath.Join(dir, "hub")}
	flags := []string{"--addr", "--kube-addr", "--nats-listen"}
	port := 21000 + os.Getpid()%8000 // below the ports that connections get (ip_local_port_range)
	for len(flags) > 0 {
		if port++; port > 32000 {
			return nil, errors.New("no free ports for the hub between 21000 and 32000")
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		h.args, flags = append(h.args, flags[0], addr), flags[1:]
	}
	var err error
	h.log, err = os.Create(filepath.Join(dir, "hub.log"))
	return h, err
}

// start starts the process and returns when it says that it is ready.
func (h *hub) start(ctx context.Context) error {
	h.cmd = exec.Command(h.program, append([]string{"hub", "run", "--data-dir", h.dir, "--log-format", "text"}, h.args...)...)
	logs, err := h.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(h.dir, "admin.addr")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := h.cmd.Start(); err != nil {
		return fmt.Errorf("start hub: %w", err)
	}
	ready := make(chan struct{})
	h.ended = make(chan struct{})
	go func() {
		defer close(h.ended)
		once := sync.OnceFunc(func() { close(ready) })
		lines := bufio.NewReader(logs)
		for {
			line, err := lines.ReadString('\n')
			if strings.Contains(line, "the hub is ready") {
				once()
			}
			if !strings.Contains(line, "msg=audit") { // a line for every site
				_, _ = h.log.WriteString(line)
			}
			if err != nil {
				break
			}
		}
		_ = h.cmd.Wait()
	}()
	select {
	case <-ready:
		return nil
	case <-h.ended:
		return fmt.Errorf("the hub ended; its log ends with:\n%s", h.said())
	case <-time.After(hubReady):
		return fmt.Errorf("the hub is not ready within %s; its log ends with:\n%s", hubReady, h.said())
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hub) said() []byte {
	data, _ := os.ReadFile(h.log.Name())
	return tail(data)
}

// kill ends the process with SIGKILL.
func (h *hub) kill() {
	if h.cmd == nil || h.cmd.Process == nil {
		return
	}
	_ = h.cmd.Process.Signal(syscall.SIGKILL)
	<-h.ended
}

// skerry runs the command line against the hub.
func (h *hub) skerry(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(h.dir, "kubeconfig"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("skerry %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// scrapeTimeout bounds one look at the hub's metrics.
const scrapeTimeout = 30 * time.Second

// admin asks the hub's administration port.
func (h *hub) admin(ctx context.Context, path string, to io.Writer) error {
	addr, err := os.ReadFile(filepath.Join(h.dir, "admin.addr"))
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(addr)+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the hub for %s: %w", path, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the hub answers %s to %s", res.Status, path)
	}
	_, err = io.Copy(to, res.Body)
	return err
}

// look is the hub at one moment.
type look struct {
	at time.Time
	// cpu is what the process used since its start.
	cpu time.Duration
	// resident and anonymous memory in bytes.
	resident, anonymous float64
	writes              writes
	metrics             map[string]float64
}

// look reads what the kernel and the hub itself say of the process.
func (h *hub) look(ctx context.Context) (look, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	l := look{at: time.Now()}
	var err error
	if l.cpu, err = cpuOf(h.cmd.Process.Pid); err != nil {
		return l, err
	}
	if l.resident, l.anonymous, err = memoryOf(h.cmd.Process.Pid); err != nil {
		return l, err
	}
	var kubernetes, own strings.Builder
	if err := errors.Join(h.admin(ctx, "/metrics/kubernetes", &kubernetes), h.admin(ctx, "/metrics", &own)); err != nil {
		return l, err
	}
	l.writes, l.metrics = countWrites(parseMetrics(kubernetes.String())), map[string]float64{}
	for _, m := range parseMetrics(own.String()) {
		name := m.name
		if link := m.labels["link"]; link != "" {
			name += "/" + link
		}
		l.metrics[name] = m.value
	}
	return l, nil
}

// memoryOf reads VmRSS and RssAnon of a process (proc(5)).
func memoryOf(pid int) (resident, anonymous float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		n, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "VmRSS:":
			resident = n * 1024
		case "RssAnon:":
			anonymous = n * 1024
		}
	}
	return resident, anonymous, nil
}

// clockTicks is USER_HZ, which Linux shows as 100 on every architecture that Go runs on.
const clockTicks = 100

// cpuOf reads the time that a process used, in user and in kernel mode (proc(5), fields 14 and 15).
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / clockTicks, errors.Join(err, err2)
}
