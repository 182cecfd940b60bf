// Package kubeapi finds what Kubernetes itself does not serve: objects of versions that are gone, and rules, webhooks
// and references that still name them.
//
// What was served when stands in catalog/kubernetes/apis.json, which is made from Kubernetes' own data. The package is a
// leaf of package check; the command line imports it. It does no input or output beyond the table that is linked in.
package kubeapi
