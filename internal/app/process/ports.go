package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// Ports are taken from below the kernel's usual range for outgoing connections (32768 and up), so that
// between the choice and the program's own bind no connection takes one by chance.
const (
	firstPort = 20000
	lastPort  = 29999
	portTries = 100
)

// ports chooses loopback ports and gives none to two instances at once.
type ports struct {
	mu   sync.Mutex
	used map[int]bool
}

func newPorts() *ports { return &ports{used: map[int]bool{}} }

// take returns a port that was free a moment ago; it is the caller's until put.
func (p *ports) take() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if p.used[port] || portTaken(port) {
			continue
		}
		p.used[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("no free loopback port found between %d and %d", firstPort, lastPort)
}

func (p *ports) put(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, port)
}

// portTaken reports whether another socket holds the port.
func portTaken(port int) bool {
	l, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return errors.Is(err, syscall.EADDRINUSE)
	}
	l.Close()
	return false
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
