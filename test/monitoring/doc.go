// Package monitoring checks what deploy/monitoring gives to Prometheus and Grafana: that each alert fires on
// what it is for and has a runbook, and that every metric that rules and panels name is one that a running
// fleet tells to a real Prometheus.
package monitoring
