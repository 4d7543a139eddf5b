// Package request carries who asks and what is asked through one request's context.
//
// The http chain parses the path once into an Info, authentication adds the user; everything after reads them. Both are
// written before the request reaches another goroutine and never change afterwards.
package request

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Info is what a request's method and path say.
type Info struct {
	// Resource is false for paths such as /healthz; then only Verb (the lower-case method) and Path are set.
	IsResource bool
	Path       string
	Verb       string // get, list, watch, create, update, patch, delete, deletecollection; proxied: as the method
	Prefix     string // api or apis
	GVR        schema.GroupVersionResource
	Sub        string
	Namespace  string
	Name       string
	// Rest is the path after the subresource, for proxies, with its leading slash.
	Rest string
	// FieldSelector and LabelSelector as given in the query, for authorization by selectors.
	FieldSelector, LabelSelector string
}

type (
	infoKey struct{}
	userKey struct{}
)

// WithInfo returns ctx with i.
func WithInfo(ctx context.Context, i *Info) context.Context {
	return context.WithValue(ctx, infoKey{}, i)
}

// InfoOf returns the Info of ctx, nil if there is none.
func InfoOf(ctx context.Context) *Info {
	i, _ := ctx.Value(infoKey{}).(*Info)
	return i
}

// WithUser returns ctx with the user who asks.
func WithUser(ctx context.Context, u user.Info) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

// UserOf returns the user of ctx, nil before authentication.
func UserOf(ctx context.Context) user.Info {
	u, _ := ctx.Value(userKey{}).(user.Info)
	return u
}
