// Package kube runs the real Kubernetes API server inside this process: the generic control plane
// (namespaces, secrets, config maps, events, RBAC, leases, custom resources; no pods and no nodes) on an
// embedded etcd, with the few controllers that such an API cannot do without.
//
// It alone imports k8s.io/kubernetes and etcd's server, and only cmd and kubetest import it. Kubernetes
// keeps process-wide state (feature gates, metrics, the klog logger), so a process starts one Server, once.
//
// It fails by returning errors; it never exits the process itself. Everything it needs is made at the
// first start below Options.Dir, files 0600: certificate authorities, certificates (renewed when two
// thirds of their life are over), the key that encrypts Secrets at rest, and etcd's data.
package kube
