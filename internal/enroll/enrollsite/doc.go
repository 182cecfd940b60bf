// Package enrollsite is the site's half of enrolment: the identity of one member, which it makes itself,
// joins with once, keeps in one file and renews; and how a site recognises its hub.
//
// It imports its core and the kernel. Nothing here trusts the machine's clock: what a certificate is
// judged by is the hub's own time, which only moves forward. A hub that cannot be reached is an error of a
// single attempt; one that refuses is a *RefusedError with its reason.
package enrollsite
