// Package server puts the apiserver together: flags, TLS, the chain every request goes through, health, metrics.
//
// The flow of a request: panic net, audit id, path, metrics, time limit, who (authn), its trail (audit), as whom
// (impersonation), whose turn (fairness), may they (authz), then discovery, OpenAPI, health or the engine. Run starts store, cache and
// bootstrap beside the listener and returns when all of them have ended. Everything is built before the first request
// and not changed after.
package server
