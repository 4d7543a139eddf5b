// Package webhook asks services outside of this server: admission webhooks, and the converters of custom resources.
//
// The flow of admission: the plugins (plugins.go) take the configured webhooks (hook.go), read anew only when a configuration
// changed, ask each that a request concerns (package match) by a review (review.go), and take its no, its patch, its
// warnings. A Caller (client.go) posts to a URL or to a ready endpoint of a service in the cluster, over TLS that is checked
// against the webhook's own CA bundle, and keeps the connection.
//
// Plugins and Callers are used by any number of requests at once; mutating webhooks of one request are asked one after
// another, validating ones together.
package webhook
