// Package webhook asks services outside of this server: admission webhooks, and the converters of custom resources.
//
// The flow: a Caller (client.go) posts a review to a URL or to a ready endpoint of a service in the cluster, over TLS that is
// checked against the webhook's own CA bundle, and keeps the connection. A Caller is safe for concurrent use; it remembers
// nothing but connections.
package webhook
