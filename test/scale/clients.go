package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// What the hub admits (docs/bus.md): 200 requests a second, of which a site that joins makes two. A little less
// is asked for, so that hardly any is refused.
const (
	joinsPerSecond = 96.0
	joinBurst      = 400
	// sources are the loopback addresses of each client process: the hub admits 20 requests a second from one.
	sources = 48
)

// clients are the client processes. One goroutine uses them.
type clients struct{ all []*clientProcess }

type clientProcess struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	log     *os.File
	added   int
	ended   chan struct{}
	endedAs error
}

// startClients starts n processes, whose data is below memory and disk.
func startClients(n int, memory, disk string) (*clients, error) {
	c := &clients{}
	for i := range n {
		p, err := startClient(i, n, memory, disk)
		if err != nil {
			return nil, errors.Join(err, c.stop())
		}
		c.all = append(c.all, p)
	}
	return c, nil
}

func startClient(i, n int, memory, disk string) (*clientProcess, error) {
	name := fmt.Sprintf("client-%d", i)
	config := clientConfig{
		Dir: filepath.Join(memory, name), DiskDir: filepath.Join(disk, name),
		JoinsPerSecond: joinsPerSecond / float64(n), JoinBurst: max(1, joinBurst/n),
	}
	for k := range sources {
		config.Sources = append(config.Sources, net.IPv4(127, 0, byte(1+i), byte(1+k)))
	}
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &clientProcess{cmd: exec.Command(self), ended: make(chan struct{})}
	if p.log, err = os.Create(filepath.Join(disk, name+".log")); err != nil {
		return nil, err
	}
	p.cmd.Env = append(os.Environ(), clientEnv+"="+string(data))
	p.cmd.Stderr = p.log
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// A pipe of our own: Wait must not close it while an answer is read.
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.out, p.cmd.Stdout = bufio.NewReaderSize(out, 1<<20), w
	if err := errors.Join(p.cmd.Start(), w.Close()); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		p.endedAs = p.cmd.Wait()
	}()
	return p, nil
}

// ask asks one process.
func (p *clientProcess) ask(r request) (answer, error) {
	var a answer
	data, err := json.Marshal(r)
	if err == nil {
		_, err = p.in.Write(append(data, '\n'))
	}
	if err != nil {
		return a, p.failed(err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return a, p.failed(err)
	}
	return a, json.Unmarshal(line, &a)
}

func (p *clientProcess) failed(err error) error {
	data, _ := os.ReadFile(p.log.Name())
	return fmt.Errorf("client process %d: %w; its log ends with:\n%s", p.cmd.Process.Pid, err, tail(data))
}

// tail is the end of a log.
func tail(data []byte) []byte { return data[max(0, len(data)-3000):] }

// ask asks every process at once and adds up what they answer.
func (c *clients) ask(r request) (answer, error) {
	answers, errs := make([]answer, len(c.all)), make([]error, len(c.all))
	var wg sync.WaitGroup
	for i, p := range c.all {
		wg.Go(func() { answers[i], errs[i] = p.ask(r) })
	}
	wg.Wait()
	var sum answer
	for _, a := range answers {
		sum.Count = sum.Count.plus(a.Count)
		sum.Sites = append(sum.Sites, a.Sites...)
		sum.Traffic = sum.Traffic.plus(a.Traffic)
	}
	return sum, errors.Join(errs...)
}

// add gives sites to the processes, evenly.
func (c *clients) add(sites []newSite) error {
	parts := make([][]newSite, len(c.all))
	for i, s := range sites {
		parts[i%len(c.all)] = append(parts[i%len(c.all)], s)
	}
	for i, p := range c.all {
		if _, err := p.ask(request{Add: parts[i]}); err != nil {
			return err
		}
		p.added += len(parts[i])
	}
	return nil
}

// pollEvery is how often the processes are asked how far they are: what is measured, they note themselves.
const pollEvery = 250 * time.Millisecond

// await asks r until done says that it is so, or within is over.
func (c *clients) await(ctx context.Context, within time.Duration, what string, r request, done func(counts) bool) (counts, error) {
	deadline := time.Now().Add(within)
	said := time.Now()
	for {
		a, err := c.ask(r)
		switch n := a.Count; {
		case err != nil:
			return n, err
		case done(n):
			return n, nil
		case n.Failed > 0:
			return n, fmt.Errorf("%s: %d sites gave up, such as %s", what, n.Failed, n.Why)
		case time.Now().After(deadline):
			return n, fmt.Errorf("%s: not within %s: of %d sites %d joined, %d are linked, %d in sync, %d reported the release", what, within, n.Sites, n.Joined, n.Linked, n.Synced, n.OnRound)
		case time.Since(said) > 10*time.Second:
			said = time.Now()
			progress("  %s: of %d sites %d joined, %d linked, %d in sync, %d on the release", what, n.Sites, n.Joined, n.Linked, n.Synced, n.OnRound)
		}
		select {
		case <-ctx.Done():
			return a.Count, ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// stopClients bounds the orderly end of the processes.
const stopClients = 20 * time.Second

func (c *clients) stop() error {
	var errs []error
	for _, p := range c.all {
		errs = append(errs, p.in.Close())
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopClients)
	defer cancel()
	for _, p := range c.all {
		select {
		case <-p.ended:
			errs = append(errs, p.endedAs)
		case <-ctx.Done():
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		errs = append(errs, p.log.Close())
	}
	return errors.Join(errs...)
}
