// Package v1alpha1 holds the Kubernetes types of Skerry, group skerry.dev.
//
// It imports apimachinery alone, so that a client links nothing else of Skerry. Defaults and validation
// stand in the markers and are enforced by the API server; controllers do not repeat them.
//
// +kubebuilder:object:generate=true
// +groupName=skerry.dev
package v1alpha1
