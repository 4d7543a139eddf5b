package proxy

import (
	"cmp"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/podnet"
)

// state is what the watches saw, in the form that the tables need, and which Services were touched since the loop last took them. Its
// methods may be called from any goroutine; what it holds is never changed, only replaced.
type state struct {
	node string
	wake func()

	mu       sync.Mutex
	services map[string]*desired.Service
	slices   map[string]*desired.Slice            // by their own key
	of       map[string][]*desired.Slice          // by their Service's key
	nodes    map[string]*podnet.Node              // by name
	touched  map[string]bool                      // Services whose ports may differ
	triggers map[string]time.Time                 // of touched Services: the oldest change that endpoints carry
	since    time.Time                            // the oldest touch
	zone     string                               // of this node
	filled   map[string]bool                      // watches that have listed once
	seen     struct{ services, endpoints uint64 } // changes
}

func newState(node string, wake func()) *state {
	return &state{node: node, wake: wake, services: map[string]*desired.Service{}, slices: map[string]*desired.Slice{}, of: map[string][]*desired.Slice{},
		nodes: map[string]*podnet.Node{}, touched: map[string]bool{}, triggers: map[string]time.Time{}, filled: map[string]bool{}}
}

func (s *state) touchLocked(service string) {
	s.touched[service] = true
	if s.since.IsZero() {
		s.since = time.Now()
	}
}

func (s *state) setService(svc *desired.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.services[svc.Key]; old == nil || old.Version != svc.Version || svc.Version == "" {
		s.services[svc.Key] = svc
		s.seen.services++
		s.touchLocked(svc.Key)
	}
}

func (s *state) dropService(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.services[key]; ok {
		delete(s.services, key)
		s.seen.services++
		s.touchLocked(key)
	}
}

func (s *state) setSlice(slice *desired.Slice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.slices[slice.Key]; old != nil && old.Version == slice.Version && slice.Version != "" {
		return
	}
	s.unlinkLocked(slice.Key)
	s.slices[slice.Key] = slice
	s.of[slice.Service] = append(slices.Clone(s.of[slice.Service]), slice)
	if at := slice.Triggered; !at.IsZero() {
		if first, ok := s.triggers[slice.Service]; !ok || at.Before(first) {
			s.triggers[slice.Service] = at
		}
	}
	s.seen.endpoints++
	s.touchLocked(slice.Service)
}

func (s *state) dropSlice(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.slices[key]; ok {
		s.seen.endpoints++
		s.unlinkLocked(key)
	}
}

func (s *state) unlinkLocked(key string) {
	old := s.slices[key]
	if old == nil {
		return
	}
	delete(s.slices, key)
	left := slices.DeleteFunc(slices.Clone(s.of[old.Service]), func(other *desired.Slice) bool { return other.Key == key })
	if len(left) == 0 {
		delete(s.of, old.Service)
	} else {
		s.of[old.Service] = left
	}
	s.touchLocked(old.Service)
}

func (s *state) setNode(n *podnet.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.nodes[n.Name]; old != nil && old.Equal(n) {
		return
	}
	s.nodes[n.Name] = n
	if n.Name == s.node && n.Zone != s.zone {
		s.zone = n.Zone
		for key := range s.services {
			s.touchLocked(key)
		}
	}
	s.touchLocked("")
}

func (s *state) dropNode(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes, name)
	s.touchLocked("")
}

// whole says that every watch has listed once.
func (s *state) whole(watches int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.filled) == watches
}

// batch is what the loop takes: the touched Services with all that their ports follow from.
type batch struct {
	since    time.Time // zero where nothing was touched
	triggers []time.Time
	zone     string
	parts    []part
	nodes    []*podnet.Node // in the order of their names
	self     *podnet.Node   // nil where this node is not registered
}

type part struct {
	key     string
	service *desired.Service
	slices  []*desired.Slice
}

// take answers what was touched since the last take.
func (s *state) take() batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := batch{since: s.since, zone: s.zone, self: s.nodes[s.node], parts: make([]part, 0, len(s.touched))}
	for key := range s.touched {
		if key != "" {
			b.parts = append(b.parts, part{key, s.services[key], s.of[key]})
		}
	}
	slices.SortFunc(b.parts, func(x, y part) int { return cmp.Compare(x.key, y.key) })
	for _, at := range s.triggers {
		b.triggers = append(b.triggers, at)
	}
	for _, n := range s.nodes {
		b.nodes = append(b.nodes, n)
	}
	slices.SortFunc(b.nodes, func(x, y *podnet.Node) int { return cmp.Compare(x.Name, y.Name) })
	clear(s.triggers)
	if len(s.touched) > 1000 {
		s.touched = map[string]bool{} // a map never shrinks
	} else {
		clear(s.touched)
	}
	s.since = time.Time{}
	return b
}

// apply decides the ports of the touched Services and puts them into the table.
func (b batch) apply(t *desired.Table) []desired.Change {
	var out []desired.Change
	for _, p := range b.parts {
		if c, changed := t.Set(p.key, desired.Decide(p.service, p.slices, b.zone)); changed {
			out = append(out, c)
		}
	}
	return out
}

// store is a reflector's store: it slims every object and hands it on, so that nothing larger is ever kept.
type store struct {
	name string
	slim func(any) any // nil for what it does not know
	set  func(any)
	drop func(key string)
	keys func() []string // of what is held; called under the state's lock
	s    *state
}

// Transformer lets the reflector slim what it lists, too.
func (t *store) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		if _, ok := o.(runtime.Object); ok {
			return &slimmed{key: keyOf(o), object: t.slim(o)}, nil
		}
		return o, nil
	}
}

// slimmed stands in the reflector's list for an object.
type slimmed struct {
	key    string
	object any
}

func (t *store) put(o any) string {
	held, ok := o.(*slimmed)
	if !ok {
		held = &slimmed{key: keyOf(o), object: t.slim(o)}
	}
	if held.object != nil {
		t.set(held.object)
	}
	return held.key
}

// Add is part of cache.ReflectorStore.
func (t *store) Add(o any) error { return t.Update(o) }

// Update is part of cache.ReflectorStore.
func (t *store) Update(o any) error {
	t.put(o)
	t.s.wake()
	return nil
}

// Delete is part of cache.ReflectorStore.
func (t *store) Delete(o any) error {
	t.drop(keyOf(o))
	t.s.wake()
	return nil
}

// Replace is part of cache.ReflectorStore: what is not in the list has gone.
func (t *store) Replace(all []any, _ string) error {
	t.s.mu.Lock()
	gone := map[string]bool{}
	for _, key := range t.keys() {
		gone[key] = true
	}
	t.s.mu.Unlock()
	for _, o := range all {
		delete(gone, t.put(o))
	}
	for key := range gone {
		t.drop(key)
	}
	t.s.mu.Lock()
	t.s.filled[t.name] = true
	t.s.mu.Unlock()
	t.s.wake()
	return nil
}

// Resync is part of cache.ReflectorStore.
func (t *store) Resync() error { return nil }

func keyOf(o any) string {
	if held, ok := o.(*slimmed); ok {
		return held.key
	}
	key, _ := cache.DeletionHandlingMetaNamespaceKeyFunc(o) // every object of the API has a name
	return key
}

func keys[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for key := range m {
		out = append(out, key)
	}
	return out
}

// stores answers the store of each watch.
func (s *state) stores() (services, endpoints, nodes *store) {
	services = &store{name: "services", s: s, drop: s.dropService, keys: func() []string { return keys(s.services) },
		set: func(o any) { s.setService(o.(*desired.Service)) },
		slim: func(o any) any {
			if svc, ok := o.(*v1.Service); ok {
				return desired.NewService(svc)
			}
			return nil
		}}
	endpoints = &store{name: "endpointslices", s: s, drop: s.dropSlice, keys: func() []string { return keys(s.slices) },
		set: func(o any) { s.setSlice(o.(*desired.Slice)) },
		slim: func(o any) any {
			if slice, ok := o.(*discoveryv1.EndpointSlice); ok {
				return desired.NewSlice(slice, s.node)
			}
			return nil
		}}
	nodes = &store{name: "nodes", s: s, drop: s.dropNode, keys: func() []string { return keys(s.nodes) },
		set: func(o any) { s.setNode(o.(*podnet.Node)) },
		slim: func(o any) any {
			if n, ok := o.(*v1.Node); ok {
				return podnet.NewNode(n)
			}
			return nil
		}}
	return services, endpoints, nodes
}
