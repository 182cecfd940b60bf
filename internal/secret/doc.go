// Package secret is the core of the feature that brings the values of Secrets to the sites whose apps use
// them: the section in which they travel, and how they are sealed to a member and opened by it.
//
// It imports the kernel alone and is imported by the feature's hub half (secrethub) and site half
// (secretsite). Section and what Seal yields cross the bus, lie on the disks of hub and site, and are frozen
// per protocol version. Nothing here logs, and no error holds a value.
package secret
