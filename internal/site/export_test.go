package site

import "net"

// SetListen replaces the local socket: one of the operating system would hold a bubble of time.
func (a *Agent) SetListen(fn func(dir string) (net.Listener, error)) { a.listen = fn }

// ListenLocal listens on the local socket of a data directory.
func ListenLocal(dir string) (net.Listener, error) { return listenLocal(dir) }
