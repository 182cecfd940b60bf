package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SiteClaim is a machine that asks, with a claim code, to become a site. The hub makes it; a person approves it
// for a site, or denies it. It goes a day after the machine has joined.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=skerry
// +kubebuilder:printcolumn:name="Fingerprint",type=string,JSONPath=`.spec.request.fingerprint`
// +kubebuilder:printcolumn:name="Hostname",type=string,JSONPath=`.spec.request.hostname`
// +kubebuilder:printcolumn:name="Arch",type=string,JSONPath=`.spec.request.arch`
// +kubebuilder:printcolumn:name="From",type=string,JSONPath=`.spec.request.from`
// +kubebuilder:printcolumn:name="Decision",type=string,JSONPath=`.spec.decision`
// +kubebuilder:printcolumn:name="Site",type=string,JSONPath=`.spec.site`
// +kubebuilder:printcolumn:name="Member",type=string,priority=1,JSONPath=`.status.member`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SiteClaim struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec SiteClaimSpec `json:"spec"`
	// +optional
	Status SiteClaimStatus `json:"status,omitempty"`
}

// SiteClaimSpec is what the machine said, and what a person says to it.
//
// +kubebuilder:validation:XValidation:rule="self.decision != 'Approved' || has(self.site) && size(self.site) > 0",message="an approved claim names its site"
type SiteClaimSpec struct {
	// Request is what the machine said when it first asked. Only the key is proven.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="what the machine said does not change"
	Request SiteClaimRequest `json:"request"`

	// Decision of a person: Pending, Approved or Denied.
	// +kubebuilder:validation:Enum=Pending;Approved;Denied
	// +kubebuilder:default=Pending
	// +optional
	Decision string `json:"decision,omitempty"`

	// Site that the machine becomes a member of when it is approved; it must be there.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$`
	// +optional
	Site string `json:"site,omitempty"`

	// Replace lets the machine take the place of the one that the site has. Without it, a site that has a machine
	// keeps it, and the claim waits.
	// +optional
	Replace bool `json:"replace,omitempty"`
}

// SiteClaimRequest is what a machine says of itself.
type SiteClaimRequest struct {
	// Code is the id of the claim code that it used.
	// +kubebuilder:validation:MaxLength=32
	Code string `json:"code"`

	// PublicKey is the machine's own Ed25519 key, which it proved to hold, as 64 hexadecimal digits. (A rule
	// cannot compare bytes: the API reads their base64 as that of URLs.)
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	PublicKey string `json:"publicKey"`

	// Fingerprint of its hardware; empty when it has none.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Fingerprint string `json:"fingerprint,omitempty"`

	// Hostname that the machine calls itself.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Hostname string `json:"hostname,omitempty"`

	// Arch is the processor's architecture, as Go names it.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Arch string `json:"arch,omitempty"`

	// Version of its agent.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Version string `json:"version,omitempty"`

	// From is the network address from which it first asked, as the hub saw it.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	From string `json:"from,omitempty"`
}

// SiteClaimStatus is what became of the claim.
type SiteClaimStatus struct {
	// Member is the id under which the machine joined; empty until it did.
	// +optional
	Member string `json:"member,omitempty"`

	// AdmittedAt is when it joined, by the hub's clock.
	// +optional
	AdmittedAt *metav1.Time `json:"admittedAt,omitempty"`
}

// Decisions about a SiteClaim.
const (
	ClaimPending  = "Pending"
	ClaimApproved = "Approved"
	ClaimDenied   = "Denied"
)

// LabelClaimCode is on each SiteClaim, with the id of the code that made it.
const LabelClaimCode = Group + "/claim-code"

// SiteClaimList is a list of claims.
//
// +kubebuilder:object:root=true
type SiteClaimList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SiteClaim `json:"items"`
}
