// Package config carries the generated custom resource definitions and the roles of people, so that a hub can
// install the API that it was built with. Everything in crd/ is generated from api/ by `make generate`.
package config

import "embed"

// CRDs holds one YAML file a kind, in crd/.
//
//go:embed crd/*.yaml
var CRDs embed.FS

// Roles holds the ClusterRoles of people, one YAML document each, in rbac/roles.yaml.
//
//go:embed rbac/roles.yaml
var Roles []byte
