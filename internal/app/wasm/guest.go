package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"
)

// job is what an instance is for: a request, or a run of a task.
type job struct {
	// env are the variables that only this job has, "NAME=value".
	env    []string
	stdin  io.Reader
	stdout io.Writer
	// outbound counts what the job sends; see host.
	calls int
	bytes int64
}

// guest is one instance of a module, from its making to its end. It has one goroutine, run, in which all of
// the module's calls to the host happen. It serves one job and is never used again.
type guest struct {
	p      *program
	ctx    context.Context
	cancel context.CancelCauseFunc
	args   []string
	memory *memory
	stderr *lineWriter
	// begin closes when job is set; begun says so without a wait.
	begin chan struct{}
	job   *job
	begun atomic.Bool
	// parked closes when the guest waits for its job, ended when its code has ended, with err set before; done
	// when nothing of it is left.
	parked      chan struct{}
	parkOnce    sync.Once
	ended, done chan struct{}
	err         error
	// exitCode is what the guest returned when err is for that, else -1.
	exitCode int
	// open counts the files it has open. told is the last error of a host function.
	open int
	told string
	// ready is set once the guest called that function: from then on it is shown its job's environment.
	ready bool
	// replies are the answers to outbound requests that it has not closed.
	replies map[uint32]io.ReadCloser
}

// newGuest makes an instance and lets it run until it needs its job.
func (p *program) newGuest(args ...string) *guest {
	ctx, cancel := context.WithCancelCause(p.ctx)
	g := &guest{
		p: p, cancel: cancel, args: append([]string{p.config.Module}, args...),
		memory:   &memory{limit: uint64(p.limits.MemoryBytes), budget: p.rt.budget},
		exitCode: -1,
		begin:    make(chan struct{}), parked: make(chan struct{}), ended: make(chan struct{}), done: make(chan struct{}),
	}
	g.stderr = &lineWriter{to: p.stderr}
	g.ctx = context.WithValue(ctx, guestKey{}, g)
	p.rt.guests.Add(1)
	p.guests.Go(g.run)
	return g
}

// guestKey finds the guest in the context of a call to the host.
type guestKey struct{}

func guestOf(ctx context.Context) *guest { return ctx.Value(guestKey{}).(*guest) }

// assign gives the guest its job. It is called once.
func (g *guest) assign(j *job) {
	g.job = j
	g.begun.Store(true)
	close(g.begin)
}

// await returns when the guest has its job. Everything that only the job can answer begins with it, so that
// an instance that was started ahead cannot be told from one that was not.
func (g *guest) await() {
	if g.begun.Load() {
		return
	}
	g.parkOnce.Do(func() { close(g.parked) })
	select {
	case <-g.begin:
	case <-g.ctx.Done():
		panic(sys.NewExitError(sys.ExitCodeContextCanceled))
	}
}

// run lives as long as the instance.
func (g *guest) run() {
	defer close(g.done)
	defer g.p.rt.guests.Add(-1)
	defer g.cancel(nil)
	// Until it is parked no request bounds its time.
	limit := time.AfterFunc(g.p.timeout(), func() {
		if !g.begun.Load() {
			select {
			case <-g.parked:
			default:
				g.cancel(failures[reasonTime])
			}
		}
	})
	defer limit.Stop()
	cleanUp := func() {}
	g.err = g.verdict(g.start(&cleanUp))
	g.closeReplies()
	g.stderr.flush()
	close(g.ended) // whoever waits for the answer does not wait for the rest
	cleanUp()
}

// start runs the module to its end, and sets what is to be done after.
func (g *guest) start(cleanUp *func()) (err error) {
	defer func() { // wazero turns what a guest's code does into errors; this is for its own
		if r := recover(); r != nil {
			if exit, ok := r.(*sys.ExitError); ok {
				err = exit
				return
			}
			err = fmt.Errorf("instance: %v", r)
		}
	}()
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions().WithArgs(g.args...).
		WithStdin(stdin{g}).WithStdout(stdout{g}).WithStderr(stderr{g}).
		WithFSConfig(g.p.mounts.config(g)).WithRandSource(rand.Reader).
		WithSysWalltime().WithSysNanotime().WithNanosleep(g.sleep)
	ctx := experimental.WithMemoryAllocator(g.ctx, g.memory)
	if !g.p.rt.budget.room(int64(g.p.module.MemoryPages) * pageBytes) {
		return failures[reasonBudget]
	}
	instance, err := g.p.wazero.InstantiateModule(ctx, g.p.compiled, config)
	if err != nil {
		g.memory.Free()
		return err
	}
	start := instance.ExportedFunction("_start")
	*cleanUp = func() {
		_ = instance.Close(context.WithoutCancel(g.ctx)) // what a file says at its closing the guest did not wait for
		// Of an instance that was cut off while the host had it, wazero frees these at the next call alone,
		// which with an ended context is no call.
		ended, cancel := context.WithCancel(g.ctx)
		cancel()
		_, _ = start.Call(ended)
	}
	_, err = start.Call(g.ctx)
	return err
}

// sleep implements the guest's sleeping.
func (g *guest) sleep(ns int64) {
	g.await()
	t := time.NewTimer(time.Duration(ns))
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.ctx.Done():
	}
}

// verdict turns the way in which the module ended into nil or a *failure.
func (g *guest) verdict(err error) error {
	if err == nil {
		return nil
	}
	var f *failure
	if errors.As(context.Cause(g.ctx), &f) || errors.As(err, &f) {
		return f
	}
	var exit *sys.ExitError
	isExit := errors.As(err, &exit)
	switch {
	case isExit && exit.ExitCode() == 0:
		return nil
	case isExit && exit.ExitCode() == sys.ExitCodeContextCanceled && g.ctx.Err() != nil:
		return failures[reasonStopped]
	case g.memory.refused.Load():
		return failures[reasonMemory]
	case isExit:
		g.exitCode = int(exit.ExitCode())
		return failures[reasonExit].with("It ended with exit code %d.", exit.ExitCode())
	}
	text := err.Error()
	g.stderr.write([]byte(text + "\n"))
	first, _, _ := strings.Cut(text, "\n")
	return failures[reasonTrap].with("It ended with: %s.", strings.TrimSuffix(first, " (recovered by wazero)"))
}

// end ends a guest that has no job and returns when nothing of it runs.
func (g *guest) end() {
	g.cancel(failures[reasonStopped])
	<-g.done
}

// The standard streams. Their calls come from the guest's goroutine.

type stdin struct{ *guest }

// Read implements io.Reader.
func (s stdin) Read(p []byte) (int, error) {
	s.await()
	if s.job.stdin == nil {
		return 0, io.EOF
	}
	return s.job.stdin.Read(p)
}

type stdout struct{ *guest }

// Write implements io.Writer.
func (s stdout) Write(p []byte) (int, error) {
	s.await()
	return s.job.stdout.Write(p)
}

type stderr struct{ *guest }

// Write implements io.Writer.
func (s stderr) Write(p []byte) (int, error) {
	s.await()
	s.guest.stderr.write(p)
	return len(p), nil
}

// Bounds of what one instance may write to the log.
const (
	maxLine     = 16 << 10
	maxLogBytes = 1 << 20
)

// lineWriter hands whole lines on, so that those of several instances do not mix.
type lineWriter struct {
	to   io.Writer
	line []byte
	sum  int
}

func (w *lineWriter) write(p []byte) {
	if w.sum > maxLogBytes {
		return
	}
	if w.sum += len(p); w.sum > maxLogBytes {
		w.flush()
		_, _ = w.to.Write([]byte("skerry: this instance wrote more to its log than 1 MiB; the rest is left out\n"))
		return
	}
	for len(p) > 0 {
		n := 0
		for n < len(p) && p[n] != '\n' {
			n++
		}
		if n < len(p) {
			n++
		}
		w.line = append(w.line, p[:n]...)
		p = p[n:]
		if w.line[len(w.line)-1] == '\n' || len(w.line) >= maxLine {
			w.flush()
		}
	}
}

func (w *lineWriter) flush() {
	if len(w.line) == 0 {
		return
	}
	if w.line[len(w.line)-1] != '\n' {
		w.line = append(w.line, '\n')
	}
	_, _ = w.to.Write(w.line) // never fails, by appsite.Spec
	w.line = w.line[:0]
}

// lockedWriter lets instances share a writer.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
