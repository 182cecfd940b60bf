// Package site is the agent's host: it keeps a site's identity, pulls the manifest and its sections,
// fetches content by digest, hands each section to the module that owns it, and reports.
//
// Features implement Module and are handed in by cmd; they meet each other only through the small
// interfaces declared here. The package imports the kernel alone. All that a module is told is on disk
// before it is told, so that an agent that starts with no network does the same again.
package site
