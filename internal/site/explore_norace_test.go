//go:build !race

package site_test

// deviations is how often a run may differ from the plain one.
const deviations = 2
