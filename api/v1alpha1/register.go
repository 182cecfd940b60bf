package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API group of every type here.
const Group = "skerry.dev"

// SchemeGroupVersion returns the group and version of every type here.
func SchemeGroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: "v1alpha1"}
}

// AddToScheme makes the types known to s.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(SchemeGroupVersion(),
		&Site{}, &SiteList{},
		&SiteGrant{}, &SiteGrantList{},
		&SiteClaim{}, &SiteClaimList{},
		&App{}, &AppList{},
		&Release{}, &ReleaseList{},
		&Task{}, &TaskList{},
		&CronTask{}, &CronTaskList{},
	)
	metav1.AddToGroupVersion(s, SchemeGroupVersion())
	return nil
}
