// Package backup saves a hub into one file and makes a hub of it again, the same one to the same sites. It
// joins what the drivers know of their directories; only the programs below cmd import it.
//
// A backup is a compressed tar archive: manifest.json first, then the files of the hub's data directory
// under their own names and a snapshot of the API server's store, then SHA256SUMS, which covers them all. It
// holds every key of the hub in the clear: who has it can be the hub.
//
// What sites are told and what they reported is not in it: the restored hub works the first out anew and
// tells it under a new epoch, and sites report again when they connect.
//
// Save leaves a whole file or none; Restore a whole directory or none. Errors wrap ErrDamaged, ErrNewer and
// ErrNotEmpty.
package backup
