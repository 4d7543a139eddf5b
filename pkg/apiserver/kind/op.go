package kind

import (
	"context"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Op is one request on one object, as hooks see it.
type Op struct {
	Ctx       context.Context
	Env       Env
	Verb      string // create, update, patch, delete
	Def       *Def
	GV        schema.GroupVersion // the version asked for
	Sub       string
	Namespace string
	Name      string
	User      user.Info // who asks
	DryRun    bool
	Now       time.Time // the server's clock at the start of the request
	// Warn adds a warning to the answer.
	Warn func(text string)
}

// ConnectRequest is a Connect subresource's request.
type ConnectRequest struct {
	Op     *Op
	Path   string // below the subresource, "" or with its leading slash
	Writer http.ResponseWriter
	HTTP   *http.Request
}

// On makes a typed hook untyped: rows are written with their own Go type. old is the nil T on create.
func On[T Object](f func(op *Op, obj, old T)) func(*Op, Object, Object) {
	return func(op *Op, obj, old Object) {
		o, _ := old.(T)
		f(op, obj.(T), o)
	}
}

// Ask is On for hooks that answer something (errors, warnings).
func Ask[T Object, R any](f func(op *Op, obj, old T) R) func(*Op, Object, Object) R {
	return func(op *Op, obj, old Object) R {
		o, _ := old.(T)
		return f(op, obj.(T), o)
	}
}

// Of makes a typed function of one object untyped (Row, Fields).
func Of[T Object, R any](f func(obj T) R) func(Object) R {
	return func(obj Object) R { return f(obj.(T)) }
}
