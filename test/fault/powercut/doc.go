// Package powercut is a disk whose power can be cut: a file system in memory, mounted by FUSE, that knows what
// was synced. A cut freezes it between two operations; what a program could still see until then but did
// not sync survives in part or not at all, by a seeded chance, down to single sectors.
//
// A Strict one keeps the letter of POSIX, where real file systems promise more: a file's content is safe
// after fsync of the file, a name (made, renamed or removed) after fsync of its directory. A Journal one
// promises of names what ext4 and XFS do. Renames are atomic. Modes, owners and times are safe at once.
//
// The process that mounts a disk must not start programs with a working directory on it: it waits for them
// to begin, and they for it.
//
// A disk can be full, read-only, and flip bits as well, and counts what is written. Only tests import it.
package powercut
