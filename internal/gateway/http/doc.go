// Package httpgateway is a site's HTTP gateway: one listener that passes requests on to the site's apps.
//
// It implements site.Router for runtimes and site.Module for the agent, is imported by cmd alone, and
// imports the kernel, site and its core. It speaks plain HTTP on loopback only; any other address needs
// TLS. Start fails when it cannot listen; later faults are answered to callers: 404 for what no app serves,
// 413 for a body that is too large, 503 with Retry-After for an app that is not there yet, 502 and 504 for
// one that does not answer.
//
// What the client says of itself in Forwarded, X-Forwarded-* and X-Real-Ip is replaced: the gateway is the
// first hop that an app may trust.
package httpgateway
