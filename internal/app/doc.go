// Package app is the core of the feature that brings apps to sites: what a bundle is, what a site is
// told of an app, how a release is named, and how many sites change at once.
//
// It holds plain types and pure functions, imports the kernel alone, and is imported by the feature's
// hub half (apphub), site half (appsite), runtimes and leaves. What stands in Section and Report crosses
// the bus and is frozen per protocol version.
package app
