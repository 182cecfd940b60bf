// Package check is the core of `skerry check`: what an object of a manifest, a rule and a finding are, and the
// order in which findings are told.
//
// Where things come from is the business of package manifest, what is wrong with them that of the packages that
// implement Checker (kubeapi, podsecurity), how it is shown that of package report. All of them and the command line
// import this package; it imports the standard library alone, does no input or output and cannot fail.
package check
