// Package catalog holds data about software that others make, made by tools from what they publish. Where each file is
// from and under which licence stands in it, and in README.md. It reads nothing and imports nothing of ours.
package catalog

import "embed"

// Kubernetes holds kubernetes/apis.json, which package kubeapi of `skerry check` reads.
//
//go:embed kubernetes/apis.json
var Kubernetes embed.FS
