// Package apitest holds the tests of the Kubernetes types as a user meets them: what the real API server
// refuses, and in which words, what it fills in, what it shows, and how generic tools read it.
package apitest
