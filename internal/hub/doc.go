// Package hub is the control plane's host: it keeps what every feature of the hub shares. That is the
// desired state of each site (Desired), what sites report and whether they are there (Fleet), calls to
// members (Caller), who a person is and may do (People), and the Site objects themselves.
//
// Features implement Feature and are handed in by cmd. The package imports the kernel, the API types and
// controller-runtime; the bus and the API server reach it as wire.Bus and a rest.Config. A loss of the
// bus or of the API is waited out; Run returns an error only when the hub cannot go on.
package hub
