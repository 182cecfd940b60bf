// Package fleet holds the plain values that every part of Skerry speaks about: names of sites, members
// and apps, content digests, health, and the facts of a machine.
//
// It is the lowest package of the kernel: everything may import it, and it imports only the standard
// library. It does no input or output; its functions fail only by returning an error for a value that
// breaks the rules stated on its type.
package fleet
