package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Release is an app's content and all inputs of its configuration, frozen. The hub makes it; it never
// changes. Its name ends in a digest of its spec, so that the same inputs have the same name.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=skerry,shortName=rel
// +kubebuilder:printcolumn:name="App",type=string,JSONPath=`.spec.app`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.spec.bundle.version`
// +kubebuilder:printcolumn:name="Runtime",type=string,JSONPath=`.spec.runtime`
// +kubebuilder:printcolumn:name="Bundle",type=string,priority=1,JSONPath=`.spec.bundle.digest`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Release struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a release never changes; change the app instead"
	Spec ReleaseSpec `json:"spec"`
}

// ReleaseSpec is what was frozen.
type ReleaseSpec struct {
	// App is the name of the App in the same namespace.
	// +kubebuilder:validation:MaxLength=63
	App string `json:"app"`

	// Bundle is the content, by digest.
	Bundle ReleaseBundle `json:"bundle"`

	// Runtime that the bundle asks for.
	// +kubebuilder:validation:MaxLength=63
	Runtime string `json:"runtime"`

	// Env, Route, Process and OnDelete are those of the app when it was frozen.
	// +optional
	Env map[string]EnvValue `json:"env,omitempty"`
	// SecretRefs name what the app gets of Secrets; their values are never part of a release.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	SecretRefs []SecretRef `json:"secretRefs,omitempty"`
	// +optional
	Route *Route `json:"route,omitempty"`
	// +optional
	Process *ProcessSpec `json:"process,omitempty"`
	// +optional
	OnDelete DeletePolicy `json:"onDelete,omitempty"`

	// Config is all else that the app's configuration is made of; nil when there is none.
	// +optional
	Config *ReleaseConfig `json:"config,omitempty"`
}

// ReleaseBundle names content by digest.
type ReleaseBundle struct {
	// Repository in the hub's registry.
	// +kubebuilder:validation:MaxLength=255
	Repository string `json:"repository"`
	// Version is the tag under which it was found, empty when it was named by digest.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Version string `json:"version,omitempty"`
	// Digest of the index, by which the content is fetched and verified.
	// +kubebuilder:validation:Pattern=`^sha256:[a-f0-9]{64}$`
	Digest string `json:"digest"`
	// Size of the index in bytes.
	// +kubebuilder:validation:Minimum=1
	Size int64 `json:"size"`
}

// ReleaseList is a list of releases.
//
// +kubebuilder:object:root=true
type ReleaseList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Release `json:"items"`
}
