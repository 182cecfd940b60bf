// Package apitest holds the tests of the Kubernetes API as people meet it: what the real API server refuses,
// and in which words, what it fills in, what it shows, how generic tools read it, and that what documents
// show as objects is accepted. It holds no code for others to import.
package apitest
