package proxy

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/netpol"
	"github.com/sextant-k8s/sextant/pkg/proxy/podnet"
)

// state is what the watches saw, in the form that the tables need, and which Services were touched since the loop last took them. Its
// methods may be called from any goroutine; what it holds is never changed, only replaced.
type state struct {
	node string
	wake func()

	mu       sync.Mutex
	services map[string]*desired.Service
	slices   map[string]*desired.Slice   // by their own key
	of       map[string][]*desired.Slice // by their Service's key
	nodes    map[string]*podnet.Node     // by name
	touched  map[string]bool             // Services whose ports may differ
	triggers map[string]time.Time        // of touched Services: the oldest change that endpoints carry
	since    time.Time                   // the oldest touch
	zone     string                      // of this node
	filled   map[string]bool             // watches that have listed once
	seen     seen                        // changes, ever
	taken    seen                        // those that the loop has taken

	// What network policies follow from; pods and namespaces are watched once there is a policy.
	policies   map[string]*netpol.Policy
	pods       map[string]*netpol.Pod
	namespaces map[string]*netpol.Namespace
	changed    netpol.Changes // of these, since the loop last took them
}

// seen counts changes of Services and EndpointSlices.
type seen struct{ services, endpoints uint64 }

// counts answers how many changes were seen, and how many of them wait for the loop.
func (s *state) counts() (all, pending seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen, seen{s.seen.services - s.taken.services, s.seen.endpoints - s.taken.endpoints}
}

func newState(node string, wake func()) *state {
	return &state{node: node, wake: wake, services: map[string]*desired.Service{}, slices: map[string]*desired.Slice{}, of: map[string][]*desired.Slice{},
		nodes: map[string]*podnet.Node{}, touched: map[string]bool{}, triggers: map[string]time.Time{}, filled: map[string]bool{},
		policies: map[string]*netpol.Policy{}, pods: map[string]*netpol.Pod{}, namespaces: map[string]*netpol.Namespace{}, changed: noChanges()}
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

// whole says that these watches have listed once.
func (s *state) whole(names ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(names, func(name string) bool { return !s.filled[name] })
}

// setAny and dropAny keep what network policies follow from, and note that it changed.
func setAny[T any](s *state, held map[string]T, of func(*netpol.Changes) map[string]T, key string, o T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held[key], of(&s.changed)[key] = o, o
}

func dropAny[T any](s *state, held map[string]T, of func(*netpol.Changes) map[string]T, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := held[key]; ok {
		var gone T
		delete(held, key)
		of(&s.changed)[key] = gone
	}
}

// policed says whether there is any network policy.
func (s *state) policed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.policies) > 0
}

// takePolicies answers what changed, since the last time, of what network policies follow from. It is the caller's.
func (s *state) takePolicies() netpol.Changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.changed
	s.changed = noChanges()
	return c
}

func noChanges() netpol.Changes {
	return netpol.Changes{Policies: map[string]*netpol.Policy{}, Pods: map[string]*netpol.Pod{}, Namespaces: map[string]*netpol.Namespace{}}
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
	s.since, s.taken = time.Time{}, s.seen
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
