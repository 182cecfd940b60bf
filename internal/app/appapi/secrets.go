package appapi

import (
	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
)

// SecretRefs returns what refs say in the core's words; nil when there are none.
func SecretRefs(refs []v1alpha1.SecretRef) []app.SecretRef {
	var out []app.SecretRef
	for _, r := range refs {
		ref := app.SecretRef{Name: r.Name, Optional: r.Optional, OnChange: app.SecretChange(r.OnChange), Signal: r.Signal}
		if r.OnChange == v1alpha1.SecretSignal && r.Signal == "" {
			ref.Signal = defaultSignal
		}
		for _, e := range r.Env {
			ref.Env = append(ref.Env, app.SecretEnv{Name: e.Name, Key: string(e.Key)})
		}
		for _, f := range r.Files {
			ref.Files = append(ref.Files, app.SecretFile{Path: f.Path, Key: string(f.Key)})
		}
		out = append(out, ref)
	}
	return out
}

// defaultSignal is what programs take by custom for "read your files again".
const defaultSignal = "SIGHUP"
