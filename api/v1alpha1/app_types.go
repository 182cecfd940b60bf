package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// App is something that runs at sites: which content, where, under which path, and how it is updated.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories={skerry,all}
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Sites",type=integer,JSONPath=`.status.sites.placed`
// +kubebuilder:printcolumn:name="Updated",type=integer,JSONPath=`.status.sites.updated`
// +kubebuilder:printcolumn:name="Healthy",type=integer,JSONPath=`.status.sites.healthy`
// +kubebuilder:printcolumn:name="Waiting",type=integer,priority=1,JSONPath=`.status.sites.waiting`
// +kubebuilder:printcolumn:name="Failed",type=integer,priority=1,JSONPath=`.status.sites.failed`
// +kubebuilder:printcolumn:name="Release",type=string,priority=1,JSONPath=`.status.release`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$')",message="the name of an app is at most 52 lower-case letters, digits and inner '-'"
type App struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec AppSpec `json:"spec"`
	// +kubebuilder:default={"observedGeneration":-1}
	// +optional
	Status AppStatus `json:"status,omitempty"`
}

// AppSpec is what should run where.
//
// +kubebuilder:validation:XValidation:rule="!has(self.env) || !has(self.secretRefs) || self.secretRefs.all(r, !has(r.env) || r.env.all(e, !(e.name in self.env)))",fieldPath=".secretRefs",message="a variable is in spec.env and in env of a secret: name it once"
type AppSpec struct {
	// Source is where the app's content comes from.
	Source AppSource `json:"source"`

	// Placement says on which sites the app runs.
	Placement Placement `json:"placement"`

	// Route gives the app a place in the site's gateway. Without it the app answers nobody from outside.
	// +optional
	Route *Route `json:"route,omitempty"`

	// Env is added to the environment of the app's programs and overrides that of the bundle. PORT and
	// names that begin with SKERRY_ are the agent's own. References such as ${values.port} and ${site.name}
	// are filled in at each site; $${ stands for ${.
	// +kubebuilder:validation:MaxProperties=256
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",message="the name of a variable is letters, digits and '_', not beginning with a digit"
	// +kubebuilder:validation:XValidation:rule="self.all(k, k != 'PORT' && !k.startsWith('SKERRY_'))",message="PORT and SKERRY_* are set by the agent"
	// +optional
	Env map[string]EnvValue `json:"env,omitempty"`

	// Values configure the app: any object. They are merged over those of the bundle and of valuesFrom: maps
	// key by key, everything else as a whole; null removes what was there. The app finds them in
	// values.json of its configuration, and in references.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Values *runtime.RawExtension `json:"values,omitempty"`

	// ValuesFrom are further values, merged in the order of the list, before Values.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	ValuesFrom []ValuesSource `json:"valuesFrom,omitempty"`

	// Overrides change values at some sites: first those by label in the order of the list, then those for one
	// site by name.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	Overrides []ValuesOverride `json:"overrides,omitempty"`

	// Files of the app's configuration. They replace those of the bundle with the same path.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=path
	// +optional
	Files []ConfigFile `json:"files,omitempty"`

	// SecretRefs are the Secrets of the app's own namespace that its programs get. Their names are part of a
	// release; their values are not, and reach the app's own sites alone, sealed.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	SecretRefs []SecretRef `json:"secretRefs,omitempty"`

	// Process holds what applies to programs alone.
	// +optional
	Process *ProcessSpec `json:"process,omitempty"`

	// Update says how a new release replaces the last one.
	// +kubebuilder:default={}
	// +optional
	Update UpdatePolicy `json:"update,omitempty"`

	// OnDelete says what becomes of the app's data directories when the app leaves a site.
	// +kubebuilder:validation:Enum=KeepData;RemoveData
	// +kubebuilder:default=KeepData
	// +optional
	OnDelete DeletePolicy `json:"onDelete,omitempty"`
}

// EnvValue is the value of an environment variable. It holds no zero byte.
//
// +kubebuilder:validation:MaxLength=4096
// +kubebuilder:validation:Pattern=`^[^\x00]*$`
type EnvValue string

// AppSource names content.
type AppSource struct {
	// Bundle is NAME:VERSION or NAME@sha256:DIGEST in the hub's registry, in the repository of that name
	// in the app's own namespace, as `skerry push` prints it.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[a-f0-9]{64})$`
	Bundle string `json:"bundle"`
}

// Placement selects sites.
type Placement struct {
	// Sites on which the app runs. An empty selector ({}) selects every site that the namespace is
	// granted.
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'])",fieldPath=".matchExpressions",message="operator must be In, NotIn, Exists or DoesNotExist"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, !(e.operator in ['In', 'NotIn']) || has(e.values) && size(e.values) > 0)",fieldPath=".matchExpressions",message="operators In and NotIn need values"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, !(e.operator in ['Exists', 'DoesNotExist']) || !has(e.values) || size(e.values) == 0)",fieldPath=".matchExpressions",message="operators Exists and DoesNotExist take no values"
	Sites metav1.LabelSelector `json:"sites"`
}

// Route is which requests at a site's gateway belong to the app.
type Route struct {
	// Host that callers name; empty answers for every host.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +optional
	Host string `json:"host,omitempty"`

	// Path is a prefix in whole segments; it is passed on to the app unchanged.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^/[^?#\s]*$`
	// +kubebuilder:default="/"
	// +optional
	Path string `json:"path,omitempty"`
}

// ProcessSpec holds what applies to programs alone.
type ProcessSpec struct {
	// AllowRoot asks to run as the agent's own user. A SiteGrant with host.root must allow it.
	// +optional
	AllowRoot bool `json:"allowRoot,omitempty"`
}

// UpdatePolicy says how a new release replaces the last one.
type UpdatePolicy struct {
	// MaxUnavailable is how many of the app's connected sites may be without a healthy release at once
	// because of an update: a number, or a part of the sites rounded up to at least one. Sites that are
	// away take the newest release when they return and do not count.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 : self.matches('^(100|[1-9][0-9]?)%$')",message="must be a number from 1, or 1% to 100%"
	// +kubebuilder:default="10%"
	// +optional
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
}

// DeletePolicy says what becomes of an app's data.
type DeletePolicy string

// The delete policies.
const (
	KeepData   DeletePolicy = "KeepData"
	RemoveData DeletePolicy = "RemoveData"
)

// AppStatus is where an app stands over all its sites.
type AppStatus struct {
	// ObservedGeneration is the generation of the spec that the status speaks of; -1 until the hub has seen
	// the object.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions: Ready is True when every placed site that is connected serves the newest release.
	// Reconciling and Stalled are present while they hold.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Release is the name of the newest release.
	// +optional
	Release string `json:"release,omitempty"`
	// Version is what the newest release's author called it.
	// +optional
	Version string `json:"version,omitempty"`

	// Sites counts the placed sites.
	// +optional
	Sites SiteCounts `json:"sites,omitempty"`

	// Failing names the first sites that cannot run the newest release, with the reason.
	// +kubebuilder:validation:MaxItems=10
	// +listType=map
	// +listMapKey=site
	// +optional
	Failing []FailingSite `json:"failing,omitempty"`
}

// SiteCounts counts the sites of an app. Every placed site is in Healthy, Progressing, Waiting or Failed.
type SiteCounts struct {
	// Placed is how many sites the app selects and may use.
	// +kubebuilder:default=0
	// +optional
	Placed int32 `json:"placed"`
	// Updated is how many were told of the newest release.
	// +kubebuilder:default=0
	// +optional
	Updated int32 `json:"updated"`
	// Healthy is how many serve the newest release.
	// +kubebuilder:default=0
	// +optional
	Healthy int32 `json:"healthy"`
	// Progressing is how many are on their way to it.
	// +kubebuilder:default=0
	// +optional
	Progressing int32 `json:"progressing"`
	// Waiting is how many are away, so that nothing is known of them.
	// +kubebuilder:default=0
	// +optional
	Waiting int32 `json:"waiting"`
	// Failed is how many cannot run it.
	// +kubebuilder:default=0
	// +optional
	Failed int32 `json:"failed"`
}

// FailingSite is one site that cannot run a release.
type FailingSite struct {
	// Site is the name of the site.
	Site string `json:"site"`
	// Message is the site's own reason.
	Message string `json:"message"`
}

// AppList is a list of apps.
//
// +kubebuilder:object:root=true
type AppList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []App `json:"items"`
}
