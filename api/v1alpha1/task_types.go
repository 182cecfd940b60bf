package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Task is something that runs once at each of the sites that it selects, to its end. It never changes but
// for being cancelled: another run is another Task.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories={skerry,all}
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Sites",type=integer,JSONPath=`.status.sites.matched`
// +kubebuilder:printcolumn:name="Running",type=integer,JSONPath=`.status.sites.running`
// +kubebuilder:printcolumn:name="Succeeded",type=integer,JSONPath=`.status.sites.succeeded`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.sites.failed`
// +kubebuilder:printcolumn:name="Missed",type=integer,JSONPath=`.status.sites.missed`
// +kubebuilder:printcolumn:name="Away",type=integer,priority=1,JSONPath=`.status.sites.away`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$')",message="the name of a task is at most 52 lower-case letters, digits and inner '-'"
type Task struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec TaskSpec `json:"spec"`
	// +kubebuilder:default={"observedGeneration":-1}
	// +optional
	Status TaskStatus `json:"status,omitempty"`
}

// TaskWork is what runs at a site, and how long it may.
//
// +kubebuilder:validation:XValidation:rule="has(self.source) != has(self.app)",message="set one of source and app"
// +kubebuilder:validation:XValidation:rule="!has(self.values) || has(self.source)",fieldPath=".values",message="an app has values of its own: set them in the App"
// +kubebuilder:validation:XValidation:rule="!has(self.process) || has(self.source)",fieldPath=".process",message="the App says whether its programs may run as root"
type TaskWork struct {
	// Source is the bundle to run.
	// +optional
	Source *AppSource `json:"source,omitempty"`

	// App is the name of an App of the same namespace: the task runs in the bundle, configuration, data and
	// secrets of the release that the app has at each site, at sites of the app alone.
	// +kubebuilder:validation:MaxLength=52
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	App string `json:"app,omitempty"`

	// Command replaces that of the bundle. The first entry is a path inside the bundle: a program, or with
	// runtime wasm a module. There is no shell.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="size(self) == 0 || (self[0].matches('^[^/]') && !self[0].matches('(^|/)\\\\.\\\\.(/|$)'))",message="the first entry is a path inside the bundle"
	// +listType=atomic
	// +optional
	Command []TaskArg `json:"command,omitempty"`

	// Args follow the command.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Args []TaskArg `json:"args,omitempty"`

	// Env is added to the environment and overrides that of the bundle and of the app. With source,
	// references such as ${values.port} and ${site.name} are filled in at each site.
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",message="the name of a variable is letters, digits and '_', not beginning with a digit"
	// +kubebuilder:validation:XValidation:rule="self.all(k, k != 'PORT' && !k.startsWith('SKERRY_'))",message="PORT and SKERRY_* are set by the agent"
	// +optional
	Env map[string]EnvValue `json:"env,omitempty"`

	// Values configure the bundle, as those of an App do.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Values *runtime.RawExtension `json:"values,omitempty"`

	// Process holds what applies to programs alone.
	// +optional
	Process *ProcessSpec `json:"process,omitempty"`

	// Deadline of one run. What still runs then is ended, which is a failure.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('168h')",message="must be 1s to 168h"
	// +kubebuilder:default="10m0s"
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`

	// Retries is how often a site tries again after a run that failed or was interrupted. The first pause is
	// 10 s; each is twice the one before.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	// +kubebuilder:default=0
	// +optional
	Retries int32 `json:"retries"`
}

// TaskArg is one argument. It holds no zero byte.
//
// +kubebuilder:validation:MaxLength=4096
// +kubebuilder:validation:Pattern=`^[^\x00]*$`
type TaskArg string

// TaskSpec is what runs once, and where.
//
// +kubebuilder:validation:XValidation:rule="self.cancel == oldSelf.cancel || self.cancel",fieldPath=".cancel",message="a task that was cancelled stays so: make another"
// +kubebuilder:validation:XValidation:rule="has(self.startBy) == has(oldSelf.startBy) && (!has(self.startBy) || self.startBy == oldSelf.startBy) && self.parallelism == oldSelf.parallelism && has(self.ttlAfterFinished) == has(oldSelf.ttlAfterFinished) && (!has(self.ttlAfterFinished) || duration(self.ttlAfterFinished) == duration(oldSelf.ttlAfterFinished))",message="a task does not change: make another"
type TaskSpec struct {
	// Work is what runs at each site.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task does not change: make another"
	Work TaskWork `json:"work"`

	// Placement says at which sites the task runs. Sites that come to match while the task is not finished
	// run it too.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task does not change: make another"
	Placement Placement `json:"placement"`

	// Parallelism is how many connected sites may be at it at once; zero for all. A site that is away holds
	// up no other.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	// +kubebuilder:default=0
	// +optional
	Parallelism int32 `json:"parallelism"`

	// StartBy is until when a site may begin. One that hears of the task later does not run it, and counts as
	// missed. Without it a site that was away runs it when it returns.
	// +optional
	StartBy *metav1.Time `json:"startBy,omitempty"`

	// TTLAfterFinished is how long after its end the task, with its results at the hub and at the sites, is
	// deleted. Without it, it stays.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="must not be negative"
	// +optional
	TTLAfterFinished *metav1.Duration `json:"ttlAfterFinished,omitempty"`

	// Cancel ends the task: runs under way are ended, others do not begin.
	// +kubebuilder:default=false
	// +optional
	Cancel bool `json:"cancel"`
}

// TaskStatus is where a task stands over all its sites.
type TaskStatus struct {
	// ObservedGeneration is the generation of the spec that the status speaks of; -1 until the hub has seen
	// the object.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions: Ready is True once the task ran everywhere. Complete is True when every site succeeded;
	// Failed when all sites are done and some failed, missed it or were cancelled. Reconciling and Stalled are
	// present while they hold.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Bundle is what source was found to be, once and for all sites.
	// +optional
	Bundle *ReleaseBundle `json:"bundle,omitempty"`

	// Sites counts the sites.
	// +optional
	Sites TaskCounts `json:"sites,omitempty"`

	// Failing names the first sites that failed or missed it, with the reason.
	// +kubebuilder:validation:MaxItems=10
	// +listType=map
	// +listMapKey=site
	// +optional
	Failing []FailingSite `json:"failing,omitempty"`

	// FinishedAt is when the last site was done, by the hub's clock.
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
}

// TaskCounts counts the sites of a task. Every matched site is in one of the others.
type TaskCounts struct {
	// Matched is how many sites the task selects and may use.
	// +kubebuilder:default=0
	// +optional
	Matched int32 `json:"matched"`
	// Waiting is how many are connected, and not told or not begun.
	// +kubebuilder:default=0
	// +optional
	Waiting int32 `json:"waiting"`
	// Away is how many are away, so that nothing is known of them.
	// +kubebuilder:default=0
	// +optional
	Away int32 `json:"away"`
	// Running is how many are at it.
	// +kubebuilder:default=0
	// +optional
	Running int32 `json:"running"`
	// Succeeded is how many ended with exit code 0.
	// +kubebuilder:default=0
	// +optional
	Succeeded int32 `json:"succeeded"`
	// Failed is how many ended otherwise, or were cancelled.
	// +kubebuilder:default=0
	// +optional
	Failed int32 `json:"failed"`
	// Missed is how many did not begin in time.
	// +kubebuilder:default=0
	// +optional
	Missed int32 `json:"missed"`
}

// TaskList is a list of tasks.
//
// +kubebuilder:object:root=true
type TaskList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Task `json:"items"`
}
