// Package discovery tells clients what is served: groups, versions and resources, one document at a time or all at once.
//
// Everything follows from the rows: New builds it, and Extend builds it anew with what came later. A document's bytes are
// made on first need per media type and kept. A Handler may serve any number of requests at once.
package discovery

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilversion "k8s.io/apimachinery/pkg/version"

	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/engine"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// order is how groups are ranked: clients that know a resource by its bare name take the first.
var order = []string{
	"", "apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch",
	"certificates.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io", "admissionregistration.k8s.io",
	"apiextensions.k8s.io", "scheduling.k8s.io", "coordination.k8s.io", "node.k8s.io", "discovery.k8s.io", "resource.k8s.io",
	"flowcontrol.apiserver.k8s.io",
}

// Handler serves /api, /apis and what is below them down to a version.
type Handler struct {
	address string
	rows    []*kind.Def
	now     atomic.Pointer[documents]

	mu      sync.Mutex
	more    []*kind.Def
	foreign []Foreign
}

// documents is everything that is told at one time; it never changes.
type documents struct {
	docs map[string]*document // by path

	// all at once, as /api and /apis answer to those who ask for it
	core, groups *aggregated
}

// document is one discovery object, encoded on need.
type document struct {
	obj runtime.Object
	gvk schema.GroupVersionKind

	mu    sync.Mutex
	bytes map[codec.Target][]byte
}

// version is what one group and version holds.
type version struct {
	gv   schema.GroupVersion
	list *metav1.APIResourceList
	agg  apidiscoveryv2.APIVersionDiscovery
	// rank is that of a foreign version's group.
	rank int32
	// loose tells that its kinds came later; subresources then stand behind their resource as the row has them.
	loose bool
}

// New builds every document. address is how clients reach the server, host and port.
func New(defs []*kind.Def, address string) *Handler {
	h := &Handler{address: address, rows: defs}
	h.Extend(nil)
	return h
}

// Extend tells of these rows too, and no longer of those told to it before.
func (h *Handler) Extend(more []*kind.Def) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.more = slices.Clone(more)
	slices.SortFunc(h.more, func(a, b *kind.Def) int { return strings.Compare(a.Resource, b.Resource) })
	h.rebuildLocked()
}

func (h *Handler) rebuildLocked() {
	byGV := map[schema.GroupVersion]*version{}
	groups := map[string][]*version{}
	for _, d := range slices.Concat(h.rows, h.more) {
		for i := range d.Versions {
			v := &d.Versions[i]
			ver := byGV[v.GV]
			if ver == nil {
				ver = &version{gv: v.GV, list: &metav1.APIResourceList{GroupVersion: v.GV.String()}}
				ver.agg.Version, ver.agg.Freshness = v.GV.Version, apidiscoveryv2.DiscoveryFreshnessCurrent
				byGV[v.GV] = ver
				groups[v.GV.Group] = append(groups[v.GV.Group], ver)
			}
			ver.add(d, v)
		}
	}
	sortForeign(h.foreign)
	for i := range h.foreign {
		f := &h.foreign[i]
		if byGV[f.GV] == nil {
			groups[f.GV.Group] = append(groups[f.GV.Group], &version{gv: f.GV, agg: f.aggregate(), rank: f.GroupPriority})
		}
	}
	h.now.Store(build(groups, h.address))
}

// ranked are the groups in the order in which they are told: the server's own, then the others by name.
func ranked(groups map[string][]*version) []string {
	names := slices.Clone(order)
	var others []string
	for g, versions := range groups {
		if slices.Contains(order, g) {
			continue
		}
		others = append(others, g)
		slices.SortStableFunc(versions, func(a, b *version) int {
			if a.list == nil || b.list == nil {
				return 0 // foreign ones stand as they are ranked
			}
			return utilversion.CompareKubeAwareVersionStrings(b.gv.Version, a.gv.Version)
		})
	}
	slices.SortFunc(others, func(a, b string) int {
		if d := rank(groups[b]) - rank(groups[a]); d != 0 {
			return int(d)
		}
		return strings.Compare(a, b)
	})
	return append(names, others...)
}

// customRank is that of the groups of custom resources.
const customRank = 1000

// rank is that of a group which the server does not have by itself: the best that any of its versions gives it.
func rank(versions []*version) int32 {
	best := int32(0)
	for _, v := range versions {
		if v.list != nil {
			best = max(best, customRank)
		}
		best = max(best, v.rank)
	}
	return best
}

func build(groups map[string][]*version, address string) *documents {
	h := &documents{docs: map[string]*document{}}
	v1 := func(kind string) schema.GroupVersionKind { return schema.GroupVersionKind{Version: "v1", Kind: kind} }
	h.docs["/api"] = &document{gvk: schema.GroupVersionKind{Kind: "APIVersions"}, obj: &metav1.APIVersions{
		Versions:                   []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: address}},
	}}
	list := &metav1.APIGroupList{}
	core, named := &apidiscoveryv2.APIGroupDiscoveryList{}, &apidiscoveryv2.APIGroupDiscoveryList{}
	for _, name := range ranked(groups) {
		versions := groups[name]
		if len(versions) == 0 {
			continue
		}
		agg := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: name}}
		group := &metav1.APIGroup{Name: name}
		for _, v := range versions {
			if v.list != nil && !v.loose {
				slices.SortFunc(v.list.APIResources, func(a, b metav1.APIResource) int { return strings.Compare(a.Name, b.Name) })
			}
			slices.SortFunc(v.agg.Resources, func(a, b apidiscoveryv2.APIResourceDiscovery) int { return strings.Compare(a.Resource, b.Resource) })
			agg.Versions = append(agg.Versions, v.agg)
			group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: v.gv.String(), Version: v.gv.Version})
			if v.list == nil {
				continue // its own server tells it
			}
			path := "/apis/" + v.gv.String()
			if name == "" {
				path = "/api/" + v.gv.Version
			}
			h.docs[path] = &document{gvk: v1("APIResourceList"), obj: v.list}
		}
		group.PreferredVersion = group.Versions[0]
		if name == "" {
			core.Items = append(core.Items, agg)
			continue
		}
		named.Items = append(named.Items, agg)
		list.Groups = append(list.Groups, *group)
		h.docs["/apis/"+name] = &document{gvk: v1("APIGroup"), obj: group}
	}
	h.docs["/apis"] = &document{gvk: v1("APIGroupList"), obj: list}
	h.core, h.groups = newAggregated(core), newAggregated(named)
	return h
}

// add puts a row's resource and subresources into the version.
func (v *version) add(d *kind.Def, ver *kind.Version) {
	gvk := d.GVK(ver)
	v.loose = v.loose || d.Loose != nil
	r := metav1.APIResource{
		Name: d.Resource, SingularName: d.Singular, Namespaced: d.Namespaced, Kind: gvk.Kind, Verbs: slices.Clone(d.ShownVerbs()),
		ShortNames: d.ShortNames, Categories: d.Categories,
	}
	if d.Virtual == nil {
		r.StorageVersionHash = storageHash(d)
	}
	v.list.APIResources = append(v.list.APIResources, r)
	agg := apidiscoveryv2.APIResourceDiscovery{
		Resource: d.Resource, ResponseKind: &metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind},
		Scope: apidiscoveryv2.ScopeCluster, SingularResource: d.Singular, Verbs: r.Verbs, ShortNames: d.ShortNames, Categories: d.Categories,
	}
	if d.Namespaced {
		agg.Scope = apidiscoveryv2.ScopeNamespace
	}
	for i := range d.Subs {
		s := &d.Subs[i]
		kind, verbs := subKind(d, ver, s), subVerbs(s)
		sub := metav1.APIResource{Name: d.Resource + "/" + s.Name, Namespaced: d.Namespaced, Kind: kind.Kind, Verbs: verbs}
		if kind.GroupVersion() != ver.GV {
			sub.Group, sub.Version = kind.Group, kind.Version
		}
		v.list.APIResources = append(v.list.APIResources, sub)
		agg.Subresources = append(agg.Subresources, apidiscoveryv2.APISubresourceDiscovery{
			Subresource: s.Name, ResponseKind: &metav1.GroupVersionKind{Group: kind.Group, Version: kind.Version, Kind: kind.Kind}, Verbs: verbs,
		})
	}
	slices.SortFunc(agg.Subresources, func(a, b apidiscoveryv2.APISubresourceDiscovery) int {
		return strings.Compare(a.Subresource, b.Subresource)
	})
	v.agg.Resources = append(v.agg.Resources, agg)
}

func subKind(d *kind.Def, v *kind.Version, s *kind.Sub) schema.GroupVersionKind {
	switch {
	case s.Scale != nil:
		return schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
	case s.Action != nil:
		return s.Action.GV.WithKind(s.Action.Kind)
	case s.Connect != nil && s.Name != "log":
		return v.GV.WithKind(s.Connect.OptionsKind)
	}
	return d.GVK(v)
}

// subVerbs are the verbs a subresource shows.
func subVerbs(s *kind.Sub) []string {
	switch {
	case s.Action != nil:
		return []string{"create"}
	case s.Connect != nil:
		var verbs []string
		for method, verb := range map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"} {
			if slices.Contains(s.Connect.Methods, method) {
				verbs = append(verbs, verb)
			}
		}
		slices.Sort(verbs)
		return verbs
	case s.AspectVerbs != nil:
		return s.AspectVerbs
	}
	return []string{"get", "patch", "update"}
}

// storageHash tells clients whether two servers store a resource alike.
func storageHash(d *kind.Def) string {
	gvk := d.GVK(&d.Storage)
	sum := sha256.Sum256([]byte(gvk.Group + "/" + gvk.Version + "/" + gvk.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// Serves tells whether path is a discovery document.
func (h *Handler) Serves(path string) bool {
	return h.now.Load().docs[strings.TrimSuffix(path, "/")] != nil
}

// ServeHTTP answers a document.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimSuffix(r.URL.Path, "/")
	if r.Method != http.MethodGet {
		engine.WriteError(w, r, apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false))
		return
	}
	now := h.now.Load()
	switch path {
	case "/api":
		if now.core.serve(w, r) {
			return
		}
	case "/apis":
		if now.groups.serve(w, r) {
			return
		}
	}
	d := now.docs[path]
	if d == nil {
		http.NotFound(w, r)
		return
	}
	t, err := codec.Negotiate(r, false)
	if err != nil {
		engine.WriteError(w, r, err)
		return
	}
	b, err := d.encode(t)
	if err != nil {
		engine.WriteError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", t.Media.ContentType())
	w.Header().Set("Cache-Control", "no-cache, private")
	_, _ = w.Write(b) // a client that went has nothing to be told
}

func (d *document) encode(t codec.Target) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.bytes[t]; b != nil {
		return b, nil
	}
	b, err := codec.Encode(d.obj, d.gvk, t)
	if err != nil {
		return nil, err
	}
	if d.bytes == nil {
		d.bytes = map[codec.Target][]byte{}
	}
	d.bytes[t] = b
	return b, nil
}

// etag is the tag of a document's content.
func etag(b []byte) string { return fmt.Sprintf("%X", sha512.Sum512(b)) }

// Paths are the documents' paths, sorted.
func (h *Handler) Paths() []string {
	now := h.now.Load()
	out := make([]string, 0, len(now.docs))
	for p := range now.docs {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}
