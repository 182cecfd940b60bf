package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// ValuesSource is an object of the app's namespace from which values come.
type ValuesSource struct {
	// ConfigMapRef names a ConfigMap.
	ConfigMapRef ConfigMapValues `json:"configMapRef"`
}

// ConfigMapValues are values in a ConfigMap. A change of the ConfigMap makes a new release.
type ConfigMapValues struct {
	// Name of the ConfigMap, in the app's own namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name"`
	// Key of the entry that holds the values: an object in YAML or JSON. Without it the whole ConfigMap is
	// taken as an object of strings.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]*$`
	// +optional
	Key string `json:"key,omitempty"`
	// Optional lets the ConfigMap or the key be missing.
	// +optional
	Optional bool `json:"optional,omitempty"`
}

// ValuesOverride changes values at some sites.
//
// +kubebuilder:validation:XValidation:rule="has(self.sites) != has(self.site)",message="set one of sites and site"
type ValuesOverride struct {
	// Sites that the values are for, by label. An empty selector ({}) is every site.
	// +optional
	Sites *metav1.LabelSelector `json:"sites,omitempty"`
	// Site is the name of the one site that the values are for. It wins over overrides by label.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	Site string `json:"site,omitempty"`
	// Values are merged over those before: maps key by key, everything else as a whole; null removes.
	// +kubebuilder:pruning:PreserveUnknownFields
	Values runtime.RawExtension `json:"values"`
}

// ConfigFile is a file of an app's configuration.
type ConfigFile struct {
	// Path below the directory of the app's configuration, whose path is in SKERRY_CONFIG_DIR.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`
	// +kubebuilder:validation:XValidation:rule="self != 'values.json'",message="values.json is the file of all values, which the agent writes"
	Path string `json:"path"`
	// Content of the file. References such as ${values.port} and ${site.name} are filled in at each site;
	// $${ stands for ${.
	// +kubebuilder:validation:MaxLength=65536
	Content string `json:"content"`
}

// ReleaseConfig is the configuration that a release freezes, with what is the same at every site merged.
type ReleaseConfig struct {
	// Env are the variables of the bundle that hold references.
	// +optional
	Env map[string]string `json:"env,omitempty"`
	// Values of the bundle, of valuesFrom and of the app, merged in this order.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Values *runtime.RawExtension `json:"values,omitempty"`
	// Overrides are those of the app.
	// +listType=atomic
	// +optional
	Overrides []ValuesOverride `json:"overrides,omitempty"`
	// Files of the bundle and of the app, in the order of their paths.
	// +listType=map
	// +listMapKey=path
	// +optional
	Files []ConfigFile `json:"files,omitempty"`
}
