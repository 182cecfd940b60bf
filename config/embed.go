// Package config carries the generated custom resource definitions, so that a hub can install the API
// that it was built with. Everything in crd/ is generated from api/ by `make generate`.
package config

import "embed"

// CRDs holds one YAML file a kind, in crd/.
//
//go:embed crd/*.yaml
var CRDs embed.FS
