// Package fault lets real faults happen to real processes of a real installation while releases go out: kills,
// links that lose and delay, power cuts, bad disks, wrong clocks. It checks afterwards that everything
// converged, nothing was lost, and nobody who asked a healthy app noticed that the hub was gone. The seed of
// what is chosen by chance is printed; SKERRY_SEED replays it. See docs/guides/faults.md.
package fault
