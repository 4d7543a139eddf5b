// Package admission asks, after authorization and before storage, whether and how an object may be written.
//
// A plugin is a literal with a name and one or two functions; plugins stand in one list, in upstream's order. Mutating
// functions run one after another and may change Request.Object; validating ones run after all mutation and the row's
// own checks. Plugins are called from many goroutines at once; what they remember they guard themselves, and derive
// from Request.Env. An error that is neither an API status nor the request's own end becomes a 403 that names the object.
package admission

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Verb is what is done to the object.
type Verb string

// The verbs admission knows.
const (
	Create  Verb = "CREATE"
	Update  Verb = "UPDATE"
	Delete  Verb = "DELETE"
	Connect Verb = "CONNECT"
)

// Request is one write on its way to the store.
type Request struct {
	Verb      Verb
	Def       *kind.Def
	Resource  schema.GroupVersionResource // as asked for
	Sub       string
	Namespace string
	Name      string // may be "" on create with generateName
	User      user.Info
	Object    runtime.Object // hub type, or the body of an action; nil on delete
	Old       runtime.Object // hub type; nil on create and connect
	Options   runtime.Object // CreateOptions, UpdateOptions, DeleteOptions
	DryRun    bool
	Env       kind.Env
	// Warn adds a warning to the answer.
	Warn func(text string)
	// Annotate adds an annotation to the request's audit event; nil if nobody listens.
	Annotate func(key, value string)

	// Changed is set by those who changed the object as configured by users (webhooks, policies): what the row prepares
	// is then prepared anew.
	Changed bool
	// Again tells that the mutating plugins are asked a second time, since a webhook or policy changed the object after
	// others had seen it; Reinvoke asks for that.
	Again, Reinvoke bool
	// Memory is what plugins remember from the first time to the second, by their names.
	Memory map[string]any
}

// Plugin is one admission plugin. Nil functions are skipped.
type Plugin struct {
	Name     string // as upstream's: "LimitRanger"; "" = not to be left out
	Mutate   func(ctx context.Context, r *Request) error
	Validate func(ctx context.Context, r *Request) error

	meter *meter // nil = not timed
}

// Chain is the plugins in the order they are asked.
type Chain []Plugin

// Mutate asks every mutating plugin in turn, and once more if one of them wants that; the first error ends it.
func (c Chain) Mutate(ctx context.Context, r *Request) error {
	err := c.ask(ctx, r, mutating)
	if err == nil && r.Reinvoke {
		r.Again = true
		err = c.ask(ctx, r, mutating)
	}
	return err
}

// Validate asks every validating plugin in turn; the first error ends it.
func (c Chain) Validate(ctx context.Context, r *Request) error { return c.ask(ctx, r, validating) }

func (c Chain) ask(ctx context.Context, r *Request, s step) (err error) {
	begun := time.Now()
	last := begun
	for i := range c {
		p := &c[i]
		f := p.Mutate
		if s == validating {
			f = p.Validate
		}
		if f == nil {
			continue
		}
		err = f(ctx, r)
		now := time.Now() // where one ends the next begins
		p.meter.saw(r.Verb, s, now.Sub(last), err)
		last = now
		if err != nil {
			err = refusal(r, err)
			break
		}
	}
	stepMeter.saw(r.Verb, s, last.Sub(begun), err)
	return err
}

// refusal makes an API error of a plugin's error, in the words of upstream's.
func refusal(r *Request, err error) error {
	if _, ok := err.(apierrors.APIStatus); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	name := r.Name
	if name == "" {
		name = "Unknown"
	}
	return apierrors.NewForbidden(r.Resource.GroupResource(), name, err)
}
