// Package engine serves the API's verbs: one file per verb, asking the kind's row and never switching on a kind.
//
// The flow: ServeHTTP takes a request whose Info and user are in its context, finds row, version and subresource, and
// hands a call to the verb. Reads splice stored bytes from the cache. Writes go decode, mutating admission, the row's
// rules, validating admission, one etcd transaction (write.go); a conflict is reread and tried again. Every error
// becomes an API Status in one place (status.go).
//
// An Engine is shared by all requests; a call belongs to one.
package engine

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/fields"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Config is what an Engine is made of.
type Config struct {
	Cache     *cache.Cache
	Defs      []*kind.Def
	Admission admission.Chain
	// MaxBody bounds a request's body, in bytes; 0 = 3 MiB.
	MaxBody int64
	// MinWatch is the least time a watch without timeoutSeconds lasts; it is drawn from there to twice that. 0 = 30 min.
	MinWatch time.Duration
	// Deleters is how many objects of a collection are deleted at once; 0 = 8.
	Deleters int
	// Crowd is told when many watchers begin at once, as after an outage, and when most of them have begun; nil = nobody. It
	// must not wait.
	Crowd func(on bool)
}

// Engine serves resources.
type Engine struct {
	cache    *cache.Cache
	plugins  admission.Chain
	maxBody  int64
	minWatch time.Duration
	deleters int
	crowd    crowd
	choirs   choirs
	rows     atomic.Pointer[rows] // replaced under serving, never changed
	serving  sync.Mutex
	awaited  func(ctx context.Context, gvr schema.GroupVersionResource) bool
	stopping context.Context // ends when the server stops
	drain    context.CancelFunc
}

// rows are the resources by how they are found.
type rows struct {
	served map[schema.GroupVersionResource]*served
	byGR   map[schema.GroupResource]*kind.Def
	stored map[schema.GroupResource]*served // in the storage version, also what is not served at all
}

// served is one resource in one version.
type served struct {
	def  *kind.Def
	ver  *kind.Version
	res  *cache.Resource // nil for virtual kinds
	gone context.Context // ends when it is no longer served
	end  context.CancelFunc

	mu       sync.Mutex
	managers map[string]*fieldManager // by subresource
	fields   fields.Types
	seen     seen
}

// home is the cache of the etcd that the resource lies in.
func (s *served) home() *cache.Cache { return s.res.Home() }

// store is that etcd.
func (s *served) store() *store.Store { return s.res.Home().Store() }

// New makes an Engine of the rows. Its admission chain may ask the Engine itself: see SetAdmission.
func New(c Config) *Engine {
	boundCopies()
	e := &Engine{
		cache: c.Cache, plugins: c.Admission, maxBody: c.MaxBody, minWatch: c.MinWatch, deleters: cmp.Or(c.Deleters, 8),
		crowd: crowd{tell: c.Crowd},
	}
	e.stopping, e.drain = context.WithCancel(context.Background())
	all := &rows{served: map[schema.GroupVersionResource]*served{}, byGR: map[schema.GroupResource]*kind.Def{}, stored: map[schema.GroupResource]*served{}}
	if e.maxBody == 0 {
		e.maxBody = 3 << 20
	}
	if e.minWatch == 0 {
		e.minWatch = 30 * time.Minute
	}
	for _, d := range c.Defs {
		var res *cache.Resource
		if d.Virtual == nil {
			res = c.Cache.Resource(d.GroupResource())
		}
		all.add(d, res)
		if d.Virtual == nil {
			all.stored[d.GroupResource()] = newServed(d, &d.Storage, res)
		}
	}
	e.rows.Store(all)
	return e
}

func newServed(d *kind.Def, v *kind.Version, res *cache.Resource) *served {
	s := &served{def: d, ver: v, res: res, managers: map[string]*fieldManager{}}
	s.gone, s.end = context.WithCancel(context.Background())
	return s
}

// add serves a row's versions.
func (r *rows) add(d *kind.Def, res *cache.Resource) {
	r.byGR[d.GroupResource()] = d
	for i := range d.Versions {
		v := &d.Versions[i]
		r.served[v.GV.WithResource(d.Resource)] = newServed(d, v, res)
		r.byGR[schema.GroupResource{Group: v.GV.Group, Resource: d.Resource}] = d
	}
}

// SetAdmission sets the admission chain, before the first request: plugins are built with the Engine as their Env.
func (e *Engine) SetAdmission(c admission.Chain) { e.plugins = c }

// Drain ends all watches, so that the server can stop.
func (e *Engine) Drain() { e.drain() }

// ServeHTTP serves a resource request.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := request.InfoOf(r.Context())
	c := &call{e: e, w: w, r: r, ctx: r.Context(), info: info, now: time.Now()}
	err := e.serve(c)
	if err == errNotServed && !e.rows.Load().has(info.GVR.GroupVersion()) { //nolint:errorlint // it is that very value
		http.NotFound(w, r)
		return
	}
	if err != nil {
		c.fail(err)
	}
}

// serve finds what is asked and does it.
func (e *Engine) serve(c *call) error {
	if c.served = e.find(c.ctx, c.info.GVR); c.served == nil {
		return errNotServed
	}
	if c.def.Namespaced && c.info.Namespace == "" && c.info.Verb != "list" && c.info.Verb != "watch" && c.info.Verb != "deletecollection" && c.def.Virtual == nil {
		return errNotServed
	}
	if !c.def.Namespaced && c.info.Namespace != "" && c.info.GVR.GroupResource() != (schema.GroupResource{Resource: "namespaces"}) {
		return errNotServed // or rights in a namespace would reach what belongs to none
	}
	if c.ver.Deprecated != "" {
		c.deprecated()
	}
	if c.info.Sub != "" {
		return e.subresource(c)
	}
	if c.def.Virtual != nil {
		return e.virtual(c)
	}
	if !c.def.Serves(c.info.Verb) || !fits(c.info) {
		return methodNotSupported(c)
	}
	switch c.info.Verb {
	case "get":
		return e.get(c)
	case "list":
		return e.list(c)
	case "watch":
		return e.watch(c)
	case "create":
		return e.create(c)
	case "update":
		return e.update(c, &ruleset{})
	case "patch":
		return e.patch(c, &ruleset{})
	case "delete":
		return e.delete(c)
	case "deletecollection":
		return e.deleteCollection(c)
	}
	return methodNotSupported(c)
}

// fits tells whether the verb belongs to an object or to a collection as the path names one.
func fits(i *request.Info) bool {
	switch i.Verb {
	case "create":
		return i.Name == ""
	case "update", "patch":
		return i.Name != ""
	}
	return true
}

func methodNotSupported(*call) error {
	return apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false)
}
