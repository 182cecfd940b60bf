// Package process runs programs of bundles on Linux. It implements appsite.Runtime for the runtime "process".
//
// A program is started from its bundle's directory, never through a shell, in a process group and, where
// the machine allows it, a control group of its own, always with no_new_privs. When the agent is root and
// the placement does not allow root, each app has an unprivileged user id of its own, kept in the store.
//
// That user must reach the bundle, its scratch and its data. The directories on the way there that lie
// below Options.StateDir are therefore made enterable, but not listable, by others (mode 0711); what lies
// in them keeps its own mode. Directories above StateDir belong to the machine and are never changed:
// Start refuses an instance whose user could not pass one of them, and names it.
//
// The package is imported by cmd alone. Start fails with an error that wraps ErrSpec for what cannot be
// run as declared; everything that happens later is told by Instance.Status.
package process
