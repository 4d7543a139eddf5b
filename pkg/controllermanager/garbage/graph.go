package garbage

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Node is one object as the graph knows it.
type Node struct {
	GVR             schema.GroupVersionResource
	Namespace, Name string
	UID             types.UID
	Owners          []metav1.OwnerReference
	Finalizers      []string
	Deleting        bool
}

// has tells whether a finalizer stands on the object.
func (n *Node) has(finalizer string) bool { return slices.Contains(n.Finalizers, finalizer) }

// graph is who owns whom. Nodes in it are replaced, never changed.
type graph struct {
	mu         sync.RWMutex
	nodes      map[types.UID]*Node
	dependents map[types.UID]map[types.UID]bool // by owner
	// gone are owners that were seen to go, while they have dependents; one that appears is taken off.
	gone map[types.UID]bool
}

func newGraph() *graph {
	return &graph{nodes: map[types.UID]*Node{}, dependents: map[types.UID]map[types.UID]bool{}, gone: map[types.UID]bool{}}
}

// put notes an object and answers what it was before, nil if it is new.
func (g *graph) put(n *Node) (before *Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before = g.nodes[n.UID]
	if before != nil {
		g.unlink(before)
	}
	g.nodes[n.UID] = n
	delete(g.gone, n.UID)
	for _, o := range n.Owners {
		if g.dependents[o.UID] == nil {
			g.dependents[o.UID] = map[types.UID]bool{}
		}
		g.dependents[o.UID][n.UID] = true
	}
	return before
}

// drop forgets an object.
func (g *graph) drop(uid types.UID) *Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return nil
	}
	g.unlink(n)
	delete(g.nodes, uid)
	if len(g.dependents[uid]) > 0 { // nobody asks for one without dependents, and nobody would forget it
		g.gone[uid] = true
	}
	return n
}

func (g *graph) unlink(n *Node) {
	for _, o := range n.Owners {
		if d := g.dependents[o.UID]; d != nil {
			delete(d, n.UID)
			if len(d) == 0 {
				delete(g.dependents, o.UID)
				delete(g.gone, o.UID)
			}
		}
	}
}

// get answers an object.
func (g *graph) get(uid types.UID) *Node {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.nodes[uid]
}

// of answers the objects that uid owns.
func (g *graph) of(uid types.UID) []*Node {
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := make([]*Node, 0, len(g.dependents[uid]))
	for d := range g.dependents[uid] {
		if n := g.nodes[d]; n != nil {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *Node) int { return compare(string(a.UID), string(b.UID)) })
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// isGone tells whether an owner was there and is no more.
func (g *graph) isGone(uid types.UID) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.gone[uid]
}
