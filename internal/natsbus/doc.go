// Package natsbus is wire.Bus over NATS, for hub and sites, and wire.Store for the hub.
//
// It is a driver: it imports nats.go and the kernel, and is imported by cmd alone. A Client stays: it
// connects when it can, again and again, and says through OnLink how that goes. While it is not connected
// every method fails with wire.ErrDisconnected at once, and what was under way fails so too. Every buffer
// has a bound; what a slow subscriber loses is counted.
package natsbus
