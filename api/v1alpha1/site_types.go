package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Site is one place that runs apps on its own: a shop, a toll gate, a factory box. Its labels are what
// apps, grants and rings select it by.
//
// Deleting a Site removes its apps from it when it can be told, and refuses it when it returns later.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=skerry
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Link",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Belief",type=string,JSONPath=`.status.away.belief`
// +kubebuilder:printcolumn:name="Zone",type=string,JSONPath=`.spec.zone`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agent.phase`
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.gateway`
// +kubebuilder:printcolumn:name="Arch",type=string,priority=1,JSONPath=`.status.hardware.arch`
// +kubebuilder:printcolumn:name="Host",type=string,priority=1,JSONPath=`.status.hardware.hostname`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",message="the name of a site is at most 63 lower-case letters, digits and inner '-'"
type Site struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:default={}
	// +optional
	Spec SiteSpec `json:"spec,omitempty"`
	// +kubebuilder:default={"observedGeneration":-1}
	// +optional
	Status SiteStatus `json:"status,omitempty"`
}

// SiteSpec is what a person says of a site.
type SiteSpec struct {
	// Description is for people.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Description string `json:"description,omitempty"`

	// Zone is where the site is, such as a region or a street; apps read it as SKERRY_ZONE.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Zone string `json:"zone,omitempty"`

	// TimeZone is the site's, by its name in the IANA time zone database, such as Europe/Berlin. Schedules
	// follow it; apps read it as SKERRY_TIME_ZONE. Empty means UTC.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^$|^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$`
	// +optional
	TimeZone string `json:"timeZone,omitempty"`

	// Downloads bounds how much of the site's link content may take, and when. Content that comes from a
	// neighbour is not bounded.
	// +optional
	Downloads *SiteDownloads `json:"downloads,omitempty"`

	// Network names the local network that the site is on, such as a building. Sites that name the same one are
	// neighbours: their agents may take content from each other, and say at the hub whether they hear each other,
	// which tells a dead site from a dead link. An agent takes part when it is run with --neighbour-addr.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^$|^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`
	// +optional
	Network string `json:"network,omitempty"`

	// Fingerprint, if set, is that of the only machine that may join this site, as `skerry-site fingerprint`
	// prints it there. It keeps a token from being used at the wrong place; it is not a secret. Members that
	// joined before it was set stay.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{32}$`
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Fingerprint string `json:"fingerprint,omitempty"`

	// RevokedMembers are the ids of members that may not connect any more. `skerry site revoke` adds them.
	// A machine comes back with a new join token and a new id only. An id leaves this list when the member is
	// forgotten, after which it is refused as unknown.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	// +optional
	RevokedMembers []string `json:"revokedMembers,omitempty"`

	// Agent is the agent that the site is to run, from what `skerry site upgrade` pushed. Without it the site keeps the
	// one that it has.
	// +optional
	Agent *SiteAgent `json:"agent,omitempty"`
}

// SiteAgent is the agent that a site is to run.
type SiteAgent struct {
	// Version by which it was pushed.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9._-]*$`
	Version string `json:"version"`

	// Digest of what was pushed, so that it stays the same whatever is pushed later; `skerry site upgrade` sets it.
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	// +kubebuilder:validation:MaxLength=71
	// +optional
	Digest string `json:"digest,omitempty"`

	// MaxUnavailable is how many of the sites that are to run the same agent may be trying it, or have failed, at one
	// time; the least that any of them says counts.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxUnavailable int32 `json:"maxUnavailable,omitempty"`

	// DeadlineSeconds is how long the new agent may take until it and its apps are healthy; then the one before runs
	// again.
	// +kubebuilder:default=180
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=3600
	// +optional
	DeadlineSeconds int32 `json:"deadlineSeconds,omitempty"`

	// Attempt is a number that, when it changes, lets an agent be tried again that failed.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Attempt int32 `json:"attempt,omitempty"`
}

// Phases of a site's agent.
const (
	AgentWaiting = "Waiting"
	AgentFailed  = "Failed"
)

// SiteAgentStatus is what is known of a site's agent.
type SiteAgentStatus struct {
	// Version that the agent says of itself.
	// +optional
	Version string `json:"version,omitempty"`
	// Digest of the agent's program.
	// +optional
	Digest string `json:"digest,omitempty"`

	// Phase of what spec.agent asks for: Waiting, Fetching, Trying, Running, Failed or Unsupported; empty when it asks
	// for nothing.
	// +optional
	Phase string `json:"phase,omitempty"`

	// Message says why.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Message string `json:"message,omitempty"`
}

// SiteDownloads bounds what content takes of a site's link to the hub.
type SiteDownloads struct {
	// Bandwidth is how many bytes a second all downloads together may take, such as 512Ki; at least 1Ki. Unset
	// means no bound.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Ki')) >= 0",message="bandwidth is in bytes a second, at least 1Ki"
	// +optional
	Bandwidth *resource.Quantity `json:"bandwidth,omitempty"`

	// Hours are when downloads may run, in the site's time zone; none means always. Outside of them they wait,
	// also while the site does not know the time.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Hours []TimeWindow `json:"hours,omitempty"`
}

// TimeWindow is a part of some days.
//
// +kubebuilder:validation:XValidation:rule="self.from != self.to",message="from and to are the same, which is no time at all; leave the window out for always"
type TimeWindow struct {
	// Days on which the window begins; none means every day.
	// +kubebuilder:validation:MaxItems=7
	// +kubebuilder:validation:items:Enum=mon;tue;wed;thu;fri;sat;sun
	// +listType=set
	// +optional
	Days []string `json:"days,omitempty"`

	// From is when it begins, such as "22:00".
	// +kubebuilder:validation:Pattern=`^([01][0-9]|2[0-3]):[0-5][0-9]$`
	From string `json:"from"`

	// To is the first moment after it, such as "05:00"; a time before From is on the next day. "24:00" is the
	// day's end.
	// +kubebuilder:validation:Pattern=`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`
	To string `json:"to"`
}

// SiteStatus is what the hub knows of a site.
type SiteStatus struct {
	// ObservedGeneration is the generation of the spec that the status speaks of; -1 until the hub has seen
	// the object.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions: Ready is True while the site is connected. Its reason is Connected, Away, NeverConnected,
	// Revoked when every member is, or Progressing while a hub that just started does not know yet.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Away says since when the hub does not hear the site, and what it believes became of it. Absent while the
	// site is connected. Nothing is moved or deleted because of it.
	// +optional
	Away *SiteAway `json:"away,omitempty"`

	// Members are the machines that enrolled for this site.
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Members []SiteMember `json:"members,omitempty"`

	// Authorities are the hub's certificate authorities that the machine says it trusts: the SHA-256 of each
	// certificate in hexadecimal digits. An agent that is older than this says none, and trusts the one by which
	// it joined.
	// +listType=set
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=64
	// +optional
	Authorities []string `json:"authorities,omitempty"`

	// Authority is the one of Authorities that signed the machine's certificate.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Authority string `json:"authority,omitempty"`

	// Version of the agent that reports for this site.
	// +optional
	Version string `json:"version,omitempty"`

	// Agent is what is known of the site's agent, and of what spec.agent asks for.
	// +optional
	Agent *SiteAgentStatus `json:"agent,omitempty"`

	// Gateway is the URL at which the site answers callers.
	// +optional
	Gateway string `json:"gateway,omitempty"`

	// Hardware of the member that reports.
	// +optional
	Hardware Hardware `json:"hardware,omitempty"`
}

// SiteAway is what the hub believes of a site that it does not hear.
type SiteAway struct {
	// Since is when the site was last heard, by the hub's clock; where this hub never did, when it started.
	Since metav1.Time `json:"since"`

	// Belief is Stopped when the agent or its machine was stopped as it said; Restarting when it said that it
	// will be back; AgentDown when its machine closed the connection without a word of the agent; LinkDown when
	// a neighbour hears the site, or its whole zone fell silent; SiteDown when its neighbours do not hear it
	// either, or a restart did not end; Unknown when there is nobody to tell.
	// +kubebuilder:validation:MaxLength=63
	Belief string `json:"belief"`

	// Why is the evidence, for people.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Why string `json:"why,omitempty"`

	// Zone is set when the site is away together with its whole zone.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Zone string `json:"zone,omitempty"`
}

// SiteMember is one machine of a site.
type SiteMember struct {
	// ID that the hub gave the member; never used again.
	// +kubebuilder:validation:MaxLength=63
	ID string `json:"id"`

	// PublicKey is the member's own Ed25519 key (32 bytes); it is the member's identity.
	// +kubebuilder:validation:MaxLength=64
	PublicKey []byte `json:"publicKey"`

	// SealKey is the member's X25519 key (32 bytes); secrets for this member are sealed to it.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	SealKey []byte `json:"sealKey,omitempty"`

	// Fingerprint of the member's hardware, as it said when it joined; empty when it said none.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Fingerprint string `json:"fingerprint,omitempty"`

	// EnrolledAt is when the member joined, by the hub's clock.
	// +optional
	EnrolledAt metav1.Time `json:"enrolledAt,omitempty"`
}

// Hardware describes a machine.
type Hardware struct {
	// Hostname that the machine calls itself.
	// +optional
	Hostname string `json:"hostname,omitempty"`
	// OS is the operating system, as Go names it.
	// +optional
	OS string `json:"os,omitempty"`
	// Arch is the processor's architecture, as Go names it.
	// +optional
	Arch string `json:"arch,omitempty"`
	// Kernel is the release of the operating system's kernel.
	// +optional
	Kernel string `json:"kernel,omitempty"`
	// CPUs is the number of logical processors.
	// +optional
	CPUs int32 `json:"cpus,omitempty"`
	// MemoryBytes is the size of the machine's memory.
	// +optional
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
}

// SiteList is a list of sites.
//
// +kubebuilder:object:root=true
type SiteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Site `json:"items"`
}
