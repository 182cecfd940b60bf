package kube

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics/legacyregistry"
)

// Metrics are the registries of the API server and of etcd, which their libraries keep for the whole process.
func Metrics() []prometheus.Gatherer {
	return []prometheus.Gatherer{legacyregistry.DefaultGatherer, prometheus.DefaultGatherer}
}
