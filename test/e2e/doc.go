// Package e2e runs the built programs as a person would: the README's block word for word, scripts in
// testdata, and what becomes of a fleet when parts of it are killed, restarted or deleted.
package e2e
