// Package outbox keeps what happened at a site on its disk until the hub has it: numbered, in order, within a
// budget of bytes. It belongs to the agent (package site); features reach it as site.Events.
//
// Below its directory each class of events has files of its own, so that what is worth less can go first and
// give its room on the disk back at once. A file holds records one after the other, each with its length and a
// checksum; a file "head" holds the epoch, how far the hub acknowledged, and what was dropped.
//
// Nothing is lost silently: what the budget, a full disk or a burst made it drop is counted by class, and its
// numbers are missing from the sequence. A torn or damaged record is left out in the same way. Add never fails
// and never waits for the disk; what the disk refuses is an error of Flush.
package outbox
