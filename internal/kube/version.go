package kube

import (
	"runtime/debug"
	"strings"

	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/component-base/compatibility"
)

// namedVersion answers /version with the version of the Kubernetes module that this program was built
// with. Kubernetes itself takes it from linker flags, which `go run` does not set.
type namedVersion struct{ compatibility.EffectiveVersion }

// Info implements compatibility.EffectiveVersion.
func (v namedVersion) Info() *apiversion.Info {
	info := v.EffectiveVersion.Info()
	if info == nil {
		return nil
	}
	named := *info
	if version := moduleVersion("k8s.io/kubernetes"); version != "" {
		named.GitVersion = version
		named.GitTreeState = ""
		parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
		if len(parts) == 3 {
			named.Major, named.Minor = parts[0], parts[1]
		}
	}
	return &named
}

// moduleVersion returns the version of a module that is linked into this program; empty when unknown.
func moduleVersion(path string) string {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range build.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return ""
}
