// Package enroll is how a machine becomes a member of a site: the join token, and what hub, site and
// command line say to each other about it.
//
// It is a feature's core and imports the kernel alone. Its two halves are enrollhub and enrollsite. What
// it parses comes from people's terminals, so every error says what to do.
package enroll
