// Package wire is the language between hub and sites: subjects, messages and the Bus that carries them.
//
// Hub and site meet only here, never in Go: each side encodes and decodes these types and knows nothing
// else of the other. It belongs to the kernel and imports the standard library and package fleet alone.
// Every decoder checks the size, the protocol version and the names of what it reads and returns an
// error that wraps ErrMessage; nothing panics on bytes from outside.
package wire
