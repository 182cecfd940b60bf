package hub

import "github.com/skerry-dev/skerry/internal/fleet"

// SecretUse says that an app needs a Secret of its own namespace. It holds names alone.
type SecretUse struct {
	App  fleet.AppKey
	Name string
	// Keys in order and each once; none means all.
	Keys []string
	// Optional says that the app runs without what is missing.
	Optional bool
}
