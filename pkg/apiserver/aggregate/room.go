package aggregate

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/cache"
	"github.com/sextant-k8s/sextant/pkg/apiserver/discovery"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/openapi"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

var apiServices = schema.GroupResource{Group: apiregistrationv1.GroupName, Resource: "apiservices"}

// Config is what a Room is made of.
type Config struct {
	Env   kind.Env
	Cache *cache.Cache
	// Rows are those that the server has from the start.
	Rows []*kind.Def
	// Identity is the front-proxy certificate; nil = none is shown.
	Identity func() (*tls.Certificate, error)
	// Dial, if set, is how backends are reached.
	Dial utilnet.DialFunc
	// Told is called with what backends serve, after it changed.
	Told func([]discovery.Foreign, []openapi.Foreign)
}

// Room keeps backends equal to the APIServices that are stored.
type Room struct {
	c     Config
	own   map[schema.GroupVersion]bool // from the start
	extra chan []schema.GroupVersion   // the latest of the custom ones

	mu       sync.RWMutex
	backends map[schema.GroupVersion]*backend
}

// New makes a Room; nothing is passed on before Run.
func New(c Config) *Room {
	r := &Room{c: c, own: map[schema.GroupVersion]bool{}, extra: make(chan []schema.GroupVersion, 1), backends: map[schema.GroupVersion]*backend{}}
	for _, d := range c.Rows {
		for i := range d.Versions {
			r.own[d.Versions[i].GV] = true
		}
	}
	return r
}

// Custom tells which rows custom resources have, now.
func (r *Room) Custom(rows []*kind.Def) {
	var gvs []schema.GroupVersion
	for _, d := range rows {
		for i := range d.Versions {
			if gv := d.Versions[i].GV; !slices.Contains(gvs, gv) {
				gvs = append(gvs, gv)
			}
		}
	}
	select { // only the latest counts
	case <-r.extra:
	default:
	}
	r.extra <- gvs
}

// Run follows the APIServices until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	res := r.c.Cache.Resource(apiServices)
	select {
	case <-res.Home().Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	var custom []schema.GroupVersion
	for ctx.Err() == nil {
		_, w := res.WatchNow(cache.Selector{})
		for err := error(nil); err == nil && ctx.Err() == nil; {
			var wake <-chan struct{}
			if _, wake, err = w.Poll(); err != nil {
				break
			}
			r.follow(ctx, &wg)
			retry := time.NewTimer(time.Minute)
			if err := r.keepLocal(ctx, custom); err != nil && ctx.Err() == nil {
				slog.Error("the local APIServices cannot be kept", "err", err)
				retry.Reset(time.Second)
			}
			select {
			case <-wake:
			case custom = <-r.extra:
			case <-retry.C:
			case <-ctx.Done():
			}
			retry.Stop()
		}
		w.Stop()
	}
	return ctx.Err()
}

// follow makes the backends what is stored.
func (r *Room) follow(ctx context.Context, wg *sync.WaitGroup) {
	objs, err := r.c.Env.List(ctx, apiServices, "")
	if err != nil {
		return
	}
	want := map[schema.GroupVersion]*apiregistrationv1.APIService{}
	for _, o := range objs {
		s := o.(*apiregistrationv1.APIService)
		gv := schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}
		if s.Spec.Service != nil && !r.own[gv] {
			want[gv] = s
		}
	}
	changed := false
	r.mu.Lock()
	for gv, b := range r.backends {
		if s := want[gv]; s == nil || s.UID != b.service.UID || !equality.Semantic.DeepEqual(s.Spec, b.service.Spec) {
			b.stop()
			delete(r.backends, gv)
			changed = true
		}
	}
	for gv, s := range want {
		if r.backends[gv] != nil {
			continue
		}
		b := newBackend(r, s)
		r.backends[gv] = b
		var run context.Context
		run, b.stop = context.WithCancel(ctx)
		wg.Go(func() { b.run(run) })
	}
	r.mu.Unlock()
	if changed {
		r.tell()
	}
}

// tell passes on what the backends serve.
func (r *Room) tell() {
	r.mu.RLock()
	var d []discovery.Foreign
	var o []openapi.Foreign
	for _, b := range r.backends {
		if f, ok := b.discovered(); ok {
			d = append(d, f)
		}
		if f, ok := b.described(); ok {
			o = append(o, f)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(d, func(a, b discovery.Foreign) int { return strings.Compare(a.GV.String(), b.GV.String()) })
	slices.SortFunc(o, func(a, b openapi.Foreign) int { return strings.Compare(a.Key, b.Key) })
	r.c.Told(d, o)
}

// Serve passes a request on if it is for a backend, and tells whether it was.
func (r *Room) Serve(w http.ResponseWriter, req *http.Request, info *request.Info) bool {
	gv, ok := groupVersion(info)
	if !ok {
		return false
	}
	r.mu.RLock()
	b := r.backends[gv]
	r.mu.RUnlock()
	if b == nil {
		return false
	}
	if d, ok := b.described(); ok && d.V3 != nil && strings.HasPrefix(info.Path, "/openapi/") {
		d.ServeHTTP(w, req)
		return true
	}
	b.serve(w, req)
	return true
}

// groupVersion is what a request is for: a resource, the list of a version's resources, or its OpenAPI document.
func groupVersion(info *request.Info) (schema.GroupVersion, bool) {
	if info.IsResource {
		return info.GVR.GroupVersion(), info.GVR.Group != ""
	}
	path, _ := strings.CutPrefix(info.Path, "/openapi/v3")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) != 3 || parts[0] != "apis" {
		return schema.GroupVersion{}, false
	}
	return schema.GroupVersion{Group: parts[1], Version: parts[2]}, true
}
