package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SiteGrant says what the apps of some namespaces may do on some sites. What no grant allows is refused:
// without any grant no app is placed anywhere.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=skerry,shortName=sg
// +kubebuilder:printcolumn:name="Namespaces",type=string,JSONPath=`.spec.namespaces`
// +kubebuilder:printcolumn:name="Runtimes",type=string,JSONPath=`.spec.runtimes`
// +kubebuilder:printcolumn:name="Root",type=boolean,JSONPath=`.spec.host.root`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SiteGrant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec SiteGrantSpec `json:"spec"`
}

// SiteGrantSpec is one permission.
type SiteGrantSpec struct {
	// Namespaces whose apps are granted this. "*" grants it to every namespace.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:Pattern=`^(\*|[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)$`
	// +listType=set
	Namespaces []string `json:"namespaces"`

	// Sites on which it is granted. An empty selector ({}) selects every site.
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'])",fieldPath=".matchExpressions",message="operator must be In, NotIn, Exists or DoesNotExist"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, !(e.operator in ['In', 'NotIn']) || has(e.values) && size(e.values) > 0)",fieldPath=".matchExpressions",message="operators In and NotIn need values"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, !(e.operator in ['Exists', 'DoesNotExist']) || !has(e.values) || size(e.values) == 0)",fieldPath=".matchExpressions",message="operators Exists and DoesNotExist take no values"
	Sites metav1.LabelSelector `json:"sites"`

	// Runtimes that apps may use there.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:Enum=process;wasm;cluster
	// +listType=set
	Runtimes []string `json:"runtimes"`

	// Host is what apps may do to the machine itself. Nothing by default.
	// +kubebuilder:default={}
	// +optional
	Host HostAccess `json:"host,omitempty"`
}

// HostAccess is what apps may do to the machine that they run on.
type HostAccess struct {
	// Root lets processes run as the agent's own user, which is root on most boxes. Without it each app
	// has an unprivileged user of its own.
	// +kubebuilder:default=false
	// +optional
	Root bool `json:"root,omitempty"`
}

// SiteGrantList is a list of grants.
//
// +kubebuilder:object:root=true
type SiteGrantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SiteGrant `json:"items"`
}
