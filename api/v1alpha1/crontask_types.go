package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CronTask runs something at certain times at each of the sites that it selects. Each site keeps the schedule
// by itself, in its own time zone, whether or not it reaches the hub.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories={skerry,all}
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Schedule",type=string,JSONPath=`.spec.schedule`
// +kubebuilder:printcolumn:name="Suspend",type=boolean,JSONPath=`.spec.suspend`
// +kubebuilder:printcolumn:name="Sites",type=integer,JSONPath=`.status.sites.matched`
// +kubebuilder:printcolumn:name="Running",type=integer,JSONPath=`.status.sites.running`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.sites.failed`
// +kubebuilder:printcolumn:name="Away",type=integer,priority=1,JSONPath=`.status.sites.away`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$')",message="the name of a task is at most 52 lower-case letters, digits and inner '-'"
type CronTask struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec CronTaskSpec `json:"spec"`
	// +kubebuilder:default={"observedGeneration":-1}
	// +optional
	Status CronTaskStatus `json:"status,omitempty"`
}

// CronTaskSpec is what runs when, and where.
type CronTaskSpec struct {
	// Schedule is five fields (minute, hour, day of month, month, day of week) or @hourly, @daily, @weekly,
	// @monthly or @yearly, in the site's time zone (Site.spec.timeZone; UTC without one).
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Schedule string `json:"schedule"`

	// Concurrency says what happens at a time at which an earlier run is still under way: Allow runs beside
	// it, Forbid leaves the new one out, Replace ends the old one.
	// +kubebuilder:validation:Enum=Allow;Forbid;Replace
	// +kubebuilder:default=Forbid
	// +optional
	Concurrency ConcurrencyPolicy `json:"concurrency,omitempty"`

	// Missed says what becomes of times that passed while the site was off or did not know the time: Skip
	// leaves them out, RunOnce makes up for all of them with one run, RunAll with one each, the newest 20,
	// one after the other.
	// +kubebuilder:validation:Enum=Skip;RunOnce;RunAll
	// +kubebuilder:default=Skip
	// +optional
	Missed MissedPolicy `json:"missed,omitempty"`

	// StartingDeadline is how late a run may begin; one that is later is left out. Without it there is no
	// bound.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="must be at least 10s"
	// +optional
	StartingDeadline *metav1.Duration `json:"startingDeadline,omitempty"`

	// Suspend keeps runs from beginning. Times that pass meanwhile are not made up for.
	// +kubebuilder:default=false
	// +optional
	Suspend bool `json:"suspend"`

	// History is how many runs a site keeps, with their output.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	// +kubebuilder:default=3
	// +optional
	History int32 `json:"history,omitempty"`

	// Work is what runs at each site.
	Work TaskWork `json:"work"`

	// Placement says at which sites.
	Placement Placement `json:"placement"`
}

// ConcurrencyPolicy says what happens when runs of one schedule meet.
type ConcurrencyPolicy string

// The concurrency policies.
const (
	ConcurrencyAllow   ConcurrencyPolicy = "Allow"
	ConcurrencyForbid  ConcurrencyPolicy = "Forbid"
	ConcurrencyReplace ConcurrencyPolicy = "Replace"
)

// MissedPolicy says what becomes of times that passed.
type MissedPolicy string

// The policies for missed times.
const (
	MissedSkip    MissedPolicy = "Skip"
	MissedRunOnce MissedPolicy = "RunOnce"
	MissedRunAll  MissedPolicy = "RunAll"
)

// CronTaskStatus is where a schedule stands over all its sites.
type CronTaskStatus struct {
	// ObservedGeneration is the generation of the spec that the status speaks of; -1 until the hub has seen
	// the object.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions: Ready is True when every connected site keeps the newest schedule and no last run failed.
	// Reconciling and Stalled are present while they hold.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Bundle is what source was found to be.
	// +optional
	Bundle *ReleaseBundle `json:"bundle,omitempty"`

	// Sites counts the sites.
	// +optional
	Sites CronTaskCounts `json:"sites,omitempty"`

	// Failing names the first sites whose last run failed, or which cannot keep the schedule, with the reason.
	// +kubebuilder:validation:MaxItems=10
	// +listType=map
	// +listMapKey=site
	// +optional
	Failing []FailingSite `json:"failing,omitempty"`
}

// CronTaskCounts counts the sites of a schedule. Every matched site is in Scheduled, Waiting, Away or Failed.
type CronTaskCounts struct {
	// Matched is how many sites the schedule selects and may use.
	// +kubebuilder:default=0
	// +optional
	Matched int32 `json:"matched"`
	// Scheduled is how many keep it, and did well the last time, if ever.
	// +kubebuilder:default=0
	// +optional
	Scheduled int32 `json:"scheduled"`
	// Waiting is how many are connected and do not keep it yet.
	// +kubebuilder:default=0
	// +optional
	Waiting int32 `json:"waiting"`
	// Away is how many are away: they keep what they were told last.
	// +kubebuilder:default=0
	// +optional
	Away int32 `json:"away"`
	// Failed is how many had a last run that failed, or cannot keep the schedule.
	// +kubebuilder:default=0
	// +optional
	Failed int32 `json:"failed"`
	// Running is how many of them are at a run now.
	// +kubebuilder:default=0
	// +optional
	Running int32 `json:"running"`
}

// CronTaskList is a list of schedules.
//
// +kubebuilder:object:root=true
type CronTaskList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CronTask `json:"items"`
}
