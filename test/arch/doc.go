// Package arch holds the tests that keep the shape of the house: which package may import which, what each
// binary links, that every package says what it is for, and that documents name paths that exist.
package arch
