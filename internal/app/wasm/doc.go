// Package wasm runs WebAssembly modules of bundles as CGI programs (RFC 3875) over WASI preview 1, by wazero.
// It implements appsite.Runtime for the runtime "wasm". What a guest sees is written in docs/spec/wasm.md.
//
// Every request gets an instance of its own, which never serves a second one. Some are prepared ahead: they
// are made and run until the guest first asks for something that only its request can answer, and wait
// there. The gateway calls an instance's http.Handler in this process; nothing listens.
//
// All limits are the runtime's: memory, time, how many at once, output, outbound calls. A request that goes
// beyond one is answered with an error that names it, and counted by reason; other apps go on.
//
// The package is imported by cmd alone. Start fails with an error that wraps ErrSpec for what cannot be run
// as declared; a module that cannot be compiled is told by Instance.Status.
package wasm
