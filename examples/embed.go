// Package examples embeds the sources of the apps that a user meets first, so that `skerry app init` and
// `skerry up` work from the binary alone. It holds data only and imports nothing of Skerry.
//
// An example lives in this module, and is vetted and built with it; its own go.mod is called go.mod.tmpl,
// because go:embed leaves out a directory that is a module of its own. Files that end in ".tmpl" are
// templates of package text/template over a struct with the field Name; the ending is dropped, and
// "gitignore" becomes ".gitignore".
package examples

import "embed"

// Hello is the directory "hello": a small HTTP app in Go.
//
//go:embed hello/main.go hello/page.html hello/*.tmpl
var Hello embed.FS

// HelloWasm is the directory "hello-wasm": a small HTTP app in Go, as a WebAssembly module.
//
//go:embed hello-wasm/main.go hello-wasm/*.tmpl
var HelloWasm embed.FS
