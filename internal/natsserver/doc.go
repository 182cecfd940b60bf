// Package natsserver is the hub's bus: an embedded NATS server with JetStream on disk, and the issuer of
// the short-lived credentials with which members use it, for an external NATS too.
//
// It is a driver of the hub: it alone imports NATS' server, imports the kernel besides, and is imported by
// cmd alone. It opens no port of its own unless told to. The hub's own client connects in-process; members
// come through WebSocketHandler on the hub's port, or through a TLS listener. What comes from outside
// passes a guard that closes a hole in NATS' rights: see guard.
//
// Start fails with an error that names the file or the setting; a running server does not fail but logs.
package natsserver
