package proxy

import (
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/netpol"
	"github.com/sextant-k8s/sextant/pkg/proxy/podnet"
)

// store is a reflector's store: it slims every object and hands it on, so that nothing larger is ever kept.
type store struct {
	name string
	slim func(any) any // nil for what need not be held
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
	} else {
		t.drop(held.key)
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

// policyStores answers the stores of what network policies follow from.
func (s *state) policyStores() (policies, pods, namespaces *store) {
	ofPolicies := func(c *netpol.Changes) map[string]*netpol.Policy { return c.Policies }
	ofPods := func(c *netpol.Changes) map[string]*netpol.Pod { return c.Pods }
	ofNamespaces := func(c *netpol.Changes) map[string]*netpol.Namespace { return c.Namespaces }
	policies = &store{name: "networkpolicies", s: s, drop: func(key string) { dropAny(s, s.policies, ofPolicies, key) }, keys: func() []string { return keys(s.policies) },
		set: func(o any) { p := o.(*netpol.Policy); setAny(s, s.policies, ofPolicies, p.Key, p) },
		slim: func(o any) any {
			if p, ok := o.(*networkingv1.NetworkPolicy); ok {
				return netpol.NewPolicy(p)
			}
			return nil
		}}
	pods = &store{name: "pods", s: s, drop: func(key string) { dropAny(s, s.pods, ofPods, key) }, keys: func() []string { return keys(s.pods) },
		set: func(o any) {
			p := o.(*netpol.Pod)
			s.mu.Lock()
			held := s.pods[p.Key]
			s.mu.Unlock()
			if held == nil || !held.Equal(p) {
				setAny(s, s.pods, ofPods, p.Key, p)
			}
		},
		slim: func(o any) any {
			if pod, ok := o.(*v1.Pod); ok {
				if p := netpol.NewPod(pod); p != nil {
					return p
				}
			}
			return nil
		}}
	namespaces = &store{name: "namespaces", s: s, drop: func(key string) { dropAny(s, s.namespaces, ofNamespaces, key) }, keys: func() []string { return keys(s.namespaces) },
		set: func(o any) { n := o.(*netpol.Namespace); setAny(s, s.namespaces, ofNamespaces, n.Name, n) },
		slim: func(o any) any {
			if n, ok := o.(*v1.Namespace); ok {
				return &netpol.Namespace{Name: n.Name, Labels: n.Labels}
			}
			return nil
		}}
	return policies, pods, namespaces
}
