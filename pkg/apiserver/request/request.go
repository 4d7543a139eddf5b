// Package request carries who asks and what is asked through one request's context.
//
// The http chain parses the path once into an Info, authentication adds the user; everything after reads them. Both are
// written before the request reaches another goroutine and never change afterwards; how long it waited for others adds up.
package request

import (
	"context"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	scopeKey struct{}
	// scope is one request's place in its context.
	scope struct {
		info  *Info
		user  user.Info
		trail Trail
		notes Notes
		apart atomic.Int64 // nanoseconds
	}
)

// Trail takes what is to be remembered of a request: its audit event.
type Trail interface {
	// Annotate adds a fact under a key.
	Annotate(key, value string)
	// Sent tells which object the client sent.
	Sent(m metav1.Object)
}

func scopeOf(ctx context.Context) *scope {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	return s
}

// WithInfo returns ctx with i.
func WithInfo(ctx context.Context, i *Info) context.Context {
	return context.WithValue(ctx, scopeKey{}, &scope{info: i})
}

// InfoOf returns the Info of ctx, nil if there is none.
func InfoOf(ctx context.Context) *Info {
	if s := scopeOf(ctx); s != nil {
		return s.info
	}
	return nil
}

// WithUser returns ctx with the user who asks.
func WithUser(ctx context.Context, u user.Info) context.Context {
	return context.WithValue(ctx, scopeKey{}, &scope{info: InfoOf(ctx), user: u, trail: TrailOf(ctx)})
}

// SetUser sets who asks in a context that has an Info, before anybody else has the context: a request's context is made
// once.
func SetUser(ctx context.Context, u user.Info) { scopeOf(ctx).user = u }

// SetTrail sets where facts about the request go, as SetUser does.
func SetTrail(ctx context.Context, t Trail) { scopeOf(ctx).trail = t }

// TrailOf returns the trail of ctx, nil if nobody keeps one.
func TrailOf(ctx context.Context) Trail {
	if s := scopeOf(ctx); s != nil {
		return s.trail
	}
	return nil
}

// UserOf returns the user of ctx, nil before authentication.
func UserOf(ctx context.Context) user.Info {
	if s := scopeOf(ctx); s != nil {
		return s.user
	}
	return nil
}

// SetApart notes time that a request waited for others: for its turn, or for webhooks. It may be called by many at once.
func SetApart(ctx context.Context, d time.Duration) {
	if s := scopeOf(ctx); s != nil {
		s.apart.Add(int64(d))
	}
}

// ApartOf is how long the request of ctx waited for others.
func ApartOf(ctx context.Context) time.Duration {
	if s := scopeOf(ctx); s != nil {
		return time.Duration(s.apart.Load())
	}
	return 0
}

// Notes are what authentication has to say of a request beside its answer. A nil *Notes forgets.
type Notes struct {
	Warnings    []string
	Annotations [][2]string // of the audit event: key and value
}

// Warn adds a warning to the answer.
func (n *Notes) Warn(text string) {
	if n != nil {
		n.Warnings = append(n.Warnings, text)
	}
}

// Annotate adds an annotation to the request's audit event.
func (n *Notes) Annotate(key, value string) {
	if n != nil {
		n.Annotations = append(n.Annotations, [2]string{key, value})
	}
}

type notesKey struct{}

// WithNotes returns ctx with a place for notes.
func WithNotes(ctx context.Context, n *Notes) context.Context {
	return context.WithValue(ctx, notesKey{}, n)
}

// NotesOf returns the place for notes of ctx: one that was made for them, or the request's own; nil if there is none.
func NotesOf(ctx context.Context) *Notes {
	if n, ok := ctx.Value(notesKey{}).(*Notes); ok {
		return n
	}
	if s := scopeOf(ctx); s != nil {
		return &s.notes
	}
	return nil
}
