package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
	"k8s.io/apimachinery/pkg/runtime"
)

// call is one request on its way through a verb.
type call struct {
	*served
	e        *Engine
	w        http.ResponseWriter
	r        *http.Request
	ctx      context.Context
	info     *request.Info
	now      time.Time
	query    url.Values
	dryRun   bool
	manager  string // field manager of this write
	applied  bool   // managedFields are already as they should be
	name     string // of the object; known late for generateName
	warnings map[string]bool
	written  written
}

func (c *call) values() url.Values {
	if c.query == nil {
		c.query = c.r.URL.Query()
	}
	return c.query
}

// gvk is the kind asked for.
func (c *call) gvk() schema.GroupVersionKind { return c.def.GVK(c.ver) }

// gr is how errors name the resource.
func (c *call) gr() schema.GroupResource { return c.info.GVR.GroupResource() }

func (c *call) gk() schema.GroupKind { return c.gvk().GroupKind() }

// warn adds a Warning header, once per text.
func (c *call) warn(text string) {
	if c.warnings[text] {
		return
	}
	if c.warnings == nil {
		c.warnings = map[string]bool{}
	}
	c.warnings[text] = true
	if h, err := net.NewWarningHeader(299, "-", text); err == nil {
		c.w.Header().Add("Warning", h)
	}
}

// op is the request as the row's hooks see it.
func (c *call) op() *kind.Op {
	return &kind.Op{
		Ctx: c.ctx, Env: c.e, Verb: c.info.Verb, Def: c.def, GV: c.ver.GV, Sub: c.info.Sub, Namespace: c.info.Namespace,
		Name: c.name, User: request.UserOf(c.ctx), DryRun: c.dryRun, Now: c.now, Warn: c.warn,
	}
}

// admit is the request as admission sees it.
func (c *call) admit(v admission.Verb, obj, old, options runtime.Object) *admission.Request {
	r := &admission.Request{
		Verb: v, Def: c.def, Resource: c.info.GVR, Sub: c.info.Sub, Namespace: c.info.Namespace, Name: c.name,
		User: request.UserOf(c.ctx), Object: obj, Old: old, Options: options, DryRun: c.dryRun, Env: c.e, Warn: c.warn,
	}
	if t := request.TrailOf(c.ctx); t != nil {
		r.Annotate = t.Annotate
	}
	return r
}

// bodyGuess bounds what is made ready for a body before any of it came.
const bodyGuess = 64 << 10

// body reads the request's body, bounded.
func (c *call) body() ([]byte, error) {
	limit := c.e.maxBody
	// With room for bytes.MinRead more than was announced, the end is seen without growing.
	buf := bytes.NewBuffer(make([]byte, 0, min(max(c.r.ContentLength, 0)+bytes.MinRead, bodyGuess)))
	_, err := buf.ReadFrom(io.LimitReader(c.r.Body, limit+1))
	b := buf.Bytes()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, context.DeadlineExceeded // the client had its time
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("reading the request body: %v", err))
	}
	if int64(len(b)) > limit {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", limit))
	}
	return b, nil
}

// decode reads the body as an object of the version asked for, defaulted, in the hub type.
func (c *call) decode() (kind.Object, error) {
	b, err := c.body()
	if err != nil {
		return nil, err
	}
	m, err := codec.BodyMedia(c.r)
	if err != nil {
		return nil, err
	}
	fields, err := codec.CheckFieldValidation(c.r, c.values().Get("fieldValidation"))
	if err != nil {
		return nil, err
	}
	obj, warnings, err := codec.DecodeAs(c.def, c.ver, b, m, fields)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		c.warn(w)
	}
	if t := request.TrailOf(c.ctx); t != nil {
		t.Sent(obj)
	}
	return c.toHub(obj)
}

// toHub defaults an object of the version asked for and converts it.
func (c *call) toHub(obj kind.Object) (kind.Object, error) {
	if c.ver.Default != nil {
		c.ver.Default(obj)
	}
	return c.ver.Hub(obj)
}

// setWrite takes over what all writes' options share. A wrong option is a 422.
func (c *call) setWrite(optionsKind string, dryRun []string, manager string, errs field.ErrorList) error {
	if len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: optionsKind}, "", errs)
	}
	c.dryRun = len(dryRun) > 0
	c.manager = manager
	if manager == "" {
		c.manager = managerOf(c.r.UserAgent())
	}
	return nil
}

// managerOf names the writer after its program when it does not say: what stands before the first slash.
func managerOf(agent string) string {
	for i, r := range agent {
		if r == '/' {
			return clip(agent[:i])
		}
	}
	if agent == "" {
		return "unknown"
	}
	return clip(agent)
}

func clip(s string) string {
	if len(s) > 128 {
		return s[:128]
	}
	return s
}
