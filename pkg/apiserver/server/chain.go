package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/audit"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authn"
	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// chain is what every request goes through before it is served.
type chain struct {
	s         *Server
	reads     chan struct{} // one place per read being served; nil = unbounded
	writes    chan struct{}
	timeLimit time.Duration
	security  string // of the Strict-Transport-Security header; "" = none
	origins   origins
}

// lateAnswer is how much longer than the request's time its client may take over the answer, which may say that time is up.
const lateAnswer = 5 * time.Second

func newChain(s *Server) *chain {
	c := &chain{s: s, timeLimit: s.c.RequestTimeout, security: strings.Join(s.c.StrictTransportSecurity, "; ")}
	c.origins, _ = newOrigins(s.c.CORSAllowedOrigins) // Check told of faults
	s.metrics.of(s)
	if s.fairness != nil {
		return c // whose turn it is is decided once it is known who asks
	}
	if n := s.c.MaxInflight; n > 0 {
		c.reads = make(chan struct{}, n)
	}
	if n := s.c.MaxMutatingInflight; n > 0 {
		c.writes = make(chan struct{}, n)
	}
	return c
}

func (c *chain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	id := r.Header.Get("Audit-Id")
	if id == "" {
		id = string(uuid.NewUUID())
	}
	h.Set("Audit-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	if c.security != "" {
		h.Set("Strict-Transport-Security", c.security)
	}
	if g := c.s.c.GoawayChance; g > 0 && r.ProtoMajor == 2 && rand.Float64() < g {
		h.Set("Connection", "close") // HTTP/2 sends a GOAWAY for it; what is being served goes on
	}
	info := request.Parse(r)
	done := c.s.metrics.start(info, r)
	rec := &recorder{ResponseWriter: w}
	begun := time.Now()
	ctx := request.WithInfo(r.Context(), info)
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // it is that very value
				panic(p)
			}
			slog.Error("a request panicked", "path", r.URL.Path, "method", r.Method, "panic", p, "stack", string(debug.Stack()))
			if rec.code == 0 {
				engine.WriteError(rec, r, apierrors.NewInternalError(fmt.Errorf("this request caused apiserver to panic. Look in the logs for details")))
			}
		}
		done(rec, time.Since(begun), request.ApartOf(ctx))
		if !slog.Default().Enabled(r.Context(), slog.LevelDebug) {
			return
		}
		slog.Debug("request", "method", r.Method, "path", r.URL.Path, "code", rec.status(), "took", time.Since(begun), "audit", id, "agent", r.UserAgent())
	}()
	if !info.LongRunning() && c.timeLimit > 0 {
		limit := c.timeLimit
		if strings.Contains(r.URL.RawQuery, "timeout=") {
			if t, err := time.ParseDuration(r.URL.Query().Get("timeout")); err == nil && t > 0 {
				limit = min(limit, t)
			}
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
		if r.ProtoMajor == 2 {
			// Neither does a client that sends no body, or takes no answer, keep its place. (A connection of HTTP/1.1 would keep the
			// deadlines for its next request.)
			rc := http.NewResponseController(w)
			_ = rc.SetReadDeadline(begun.Add(limit))               // what cannot be told in time
			_ = rc.SetWriteDeadline(begun.Add(limit + lateAnswer)) // waits, as it does in HTTP/1.1
		}
	}
	r = r.WithContext(ctx)
	if len(c.origins) > 0 && c.origins.allow(rec, r) {
		return
	}
	if !info.LongRunning() && !strings.HasPrefix(info.Path, "/healthz") && !strings.HasPrefix(info.Path, "/livez") && !strings.HasPrefix(info.Path, "/readyz") {
		leave, ok := c.enter(info)
		if !ok {
			h.Set("Retry-After", "1")
			engine.WriteError(rec, r, apierrors.NewTooManyRequests("the server has received too many requests and has asked us to try again later", 1))
			return
		}
		defer leave()
	}
	c.identify(rec, r, info, id, begun)
}

// enter takes a place among those served at once.
func (c *chain) enter(info *request.Info) (leave func(), ok bool) {
	places := c.reads
	if info.Mutating() {
		places = c.writes
	}
	if places == nil {
		return func() {}, true
	}
	select {
	case places <- struct{}{}:
		return func() { <-places }, true
	default:
		return nil, false
	}
}

// identify finds out who asks, and begins to keep a trail of it.
func (c *chain) identify(w http.ResponseWriter, r *http.Request, info *request.Info, id string, begun time.Time) {
	resp, ok, err := c.s.authn.AuthenticateRequest(r)
	if err != nil || !ok {
		if err != nil {
			slog.Debug("authentication failed", "path", r.URL.Path, "err", err)
		}
		if trail := c.s.audit.Begin(r, id, begun, attributes(info, nil), info.LongRunning()); trail != nil {
			out := trail.Wrap(w)
			annotate(r, trail)
			trail.Unauthenticated(authn.Tried(r))
			w = out
		}
		engine.WriteError(w, r, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	for _, text := range request.NotesOf(r.Context()).Warnings {
		if h, err := utilnet.NewWarningHeader(299, "-", text); err == nil {
			w.Header().Add("Warning", h)
		}
	}
	// What proved the user is not for whoever serves the request.
	r.Header.Del("Authorization")
	u := resp.User
	if trail := c.s.audit.Begin(r, id, begun, attributes(info, u), info.LongRunning()); trail != nil {
		request.SetTrail(r.Context(), trail)
		annotate(r, trail)
		out, returned := trail.Wrap(w), false
		defer func() { trail.End(out, !returned) }()
		if err := trail.Received(); err != nil {
			engine.WriteError(out, r, apierrors.NewInternalError(err))
		} else {
			c.admit(out, r, info, u, trail)
		}
		returned = true
		return
	}
	c.admit(w, r, info, u, nil)
}

// annotate passes on what authentication noted.
func annotate(r *http.Request, trail *audit.Trail) {
	for _, a := range request.NotesOf(r.Context()).Annotations {
		trail.Annotate(a[0], a[1])
	}
}

// admit finds out on whose behalf somebody asks, and whether they may.
func (c *chain) admit(w http.ResponseWriter, r *http.Request, info *request.Info, u user.Info, trail *audit.Trail) {
	if impersonates(r) {
		as, constraint, err := c.impersonate(r, attributes(info, u))
		if err != nil {
			trail.Annotate("authorization.k8s.io/decision", "forbid")
			engine.WriteError(w, r, err)
			return
		}
		if as != u {
			u = as
			trail.Impersonated(u, constraint)
		}
	}
	request.SetUser(r.Context(), u)
	a := attributes(info, u)
	if c.s.fairness != nil {
		leave, ok := c.takeTurn(w, r, info, a)
		if !ok {
			return
		}
		defer leave()
	}
	d, reason, err := c.s.authz.Authorize(r.Context(), a)
	if d != authorizer.DecisionAllow {
		// A role granted a moment ago may not be in the cache yet: a no counts once the cache has caught up with etcd.
		if ferr := c.s.cache.FreshAll(r.Context()); ferr == nil {
			d, reason, err = c.s.authz.Authorize(r.Context(), a)
		}
	}
	trail.Decided(d == authorizer.DecisionAllow, reason)
	if d != authorizer.DecisionAllow {
		if err != nil {
			slog.Debug("authorization had trouble", "path", r.URL.Path, "user", u.GetName(), "err", err)
		}
		engine.WriteError(w, r, forbidden(a, reason))
		return
	}
	c.s.route(w, r, info)
}

// takeTurn waits for the seats of a request, says in the answer which rules it fell under, and turns it away if there is
// no place. Streams take none: they last.
func (c *chain) takeTurn(w http.ResponseWriter, r *http.Request, info *request.Info, a authorizer.AttributesRecord) (leave func(), ok bool) {
	if info.LongRunning() && info.Verb != "watch" {
		return func() {}, true
	}
	f := c.s.fairness.Classify(r.Context(), &a)
	h := w.Header()
	h.Set("X-Kubernetes-Pf-Flowschema-Uid", f.UID)
	h.Set("X-Kubernetes-Pf-Prioritylevel-Uid", f.LevelUID())
	if info.LongRunning() {
		return func() {}, true
	}
	width := 1
	if info.Verb == "list" {
		var limit int64
		if strings.Contains(r.URL.RawQuery, "limit=") {
			limit, _ = strconv.ParseInt(r.URL.Query().Get("limit"), 10, 64) // a wrong one is refused later
		}
		width = c.s.fairness.Width(&a, limit)
	}
	begun := time.Now()
	leave, why, ok := f.Enter(r.Context(), &a, width)
	request.SetApart(r.Context(), time.Since(begun))
	if !ok {
		slog.Debug("a request was turned away", "path", r.URL.Path, "schema", f.Name, "why", why)
		h.Set("Retry-After", "1")
		engine.WriteError(w, r, apierrors.NewTooManyRequests("too many requests, please try again later.", 1))
	}
	return leave, ok
}

// attributes are a request as authorizers see it.
func attributes(i *request.Info, u user.Info) authorizer.AttributesRecord {
	a := authorizer.AttributesRecord{User: u, Verb: i.Verb, Path: i.Path, ResourceRequest: i.IsResource}
	if !i.IsResource {
		return a
	}
	a.APIGroup, a.APIVersion, a.Resource, a.Subresource = i.GVR.Group, i.GVR.Version, i.GVR.Resource, i.Sub
	a.Namespace, a.Name = i.Namespace, i.Name
	if i.FieldSelector != "" {
		f, err := fields.ParseSelector(i.FieldSelector)
		if err == nil {
			a.FieldSelectorRequirements = f.Requirements()
			// A list of one name is a question about that object.
			if name, ok := f.RequiresExactMatch("metadata.name"); ok && a.Name == "" {
				a.Name = name
			}
		} else {
			a.FieldSelectorParsingErr = err
		}
	}
	if i.LabelSelector != "" {
		if l, err := labels.Parse(i.LabelSelector); err == nil {
			a.LabelSelectorRequirements, _ = l.Requirements()
		} else {
			a.LabelSelectorParsingErr = err
		}
	}
	return a
}

// forbidden is a refusal as upstream words it.
func forbidden(a authorizer.AttributesRecord, reason string) error {
	who := "unknown user"
	if a.User != nil {
		who = fmt.Sprintf("User %q", a.User.GetName())
	}
	text := fmt.Sprintf("%s cannot %s path %q", who, a.Verb, a.Path)
	if a.ResourceRequest {
		res := a.Resource
		if a.Subresource != "" {
			res += "/" + a.Subresource
		}
		text = fmt.Sprintf("%s cannot %s resource %q in API group %q", who, a.Verb, res, a.APIGroup)
		if a.Namespace != "" && !(a.Resource == "namespaces" && a.APIGroup == "") {
			text += fmt.Sprintf(" in the namespace %q", a.Namespace)
		} else {
			text += " at the cluster scope"
		}
	}
	if reason != "" {
		text += ": " + reason
	}
	err := apierrors.NewForbidden(groupResource(a), a.Name, errors.New(text))
	if !a.ResourceRequest {
		err.ErrStatus.Message = "forbidden: " + text
	}
	return err
}

// recorder remembers the code of an answer.
type recorder struct {
	http.ResponseWriter
	code int
	size int64 // bytes of the body
}

// WriteHeader notes the code.
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write notes that the answer is a plain one.
func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	r.size += int64(len(b))
	return r.ResponseWriter.Write(b)
}

// Unwrap lets flushing and hijacking through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack hands the connection over to a stream; HTTP/2 has none to hand over.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if r.code == 0 {
		r.code = http.StatusSwitchingProtocols
	}
	return http.NewResponseController(r.ResponseWriter).Hijack()
}

// Flush sends what has been written so far.
func (r *recorder) Flush() { _ = r.FlushError() } // a client that went notices by itself

// FlushError is Flush for those who want to know.
func (r *recorder) FlushError() error {
	if f, ok := r.ResponseWriter.(interface{ FlushError() error }); ok {
		return f.FlushError()
	}
	return http.NewResponseController(r.ResponseWriter).Flush()
}

func (r *recorder) status() int {
	if r.code == 0 {
		return http.StatusOK
	}
	return r.code
}
