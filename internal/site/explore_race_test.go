//go:build race

package site_test

// deviations is how often a run may differ from the plain one: under the race detector a run takes ten times as long.
const deviations = 1
