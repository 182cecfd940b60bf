// Package apitest holds tests of the Kubernetes API as people meet it: that what documents show as objects
// is accepted. It holds no code for others to import.
package apitest
