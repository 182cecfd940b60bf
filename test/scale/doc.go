// Command scale measures how many sites one hub holds, and writes docs/benchmarks/scale.md, .json and .svg.
//
// The hub is the real program in a process of its own. The sites are agents with the agent's own code (package
// site), keys, credentials and TLS connections, many to a process: this program starts itself again for them. They
// are light in what they do for apps, which is to say at once that they run what they were told, and in their
// stores, which share one file in memory. It also holds the small run that `go test` makes. Nothing imports it.
package main
