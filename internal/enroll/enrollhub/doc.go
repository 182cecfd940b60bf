// Package enrollhub is the hub's half of enrolment: it makes join tokens, admits and renews members, says
// which member made a request, and cuts off those who are revoked. It also holds the hub's authority.
//
// It imports package hub, its core and the kernel; the bus credential comes from an Issuer that cmd hands
// in. What comes from outside is bounded in size and rate, answered with a reason of package wire, and
// audited; secrets and challenges are never logged.
package enrollhub
