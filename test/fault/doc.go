// Package fault kills real processes of a real installation at random moments while releases go out, and
// checks afterwards that everything converged, nothing was lost, and nobody who asked a healthy app noticed
// that the hub was gone. The seed is printed; SKERRY_SEED replays it.
package fault
