package rules

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func milli(n int64) *resource.Quantity { return resource.NewMilliQuantity(n, resource.DecimalSI) }
func bytes(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.BinarySI) }

// Node is a node with the sums of what stands on it.
type Node struct {
	*v1.Node         // nil while only pods of it have been seen
	Name     string  // also where Node is nil
	Capacity Amounts // allocatable
	MaxPods  int64
	Used     Amounts
	Scored   Amounts
	Pods     map[string]*Pod
	Ports    map[Port]int
	Images   map[string]int64 // size by name

	anti int // pods here with required anti-affinity
}

// Table is the cluster as the rules see it: kept up by each event, never rebuilt. Its owner serializes all use.
type Table struct {
	nodes  []*Node // those with a Node object, by name
	byName map[string]*Node
	pods   map[string]*Node
	images map[string]int // how many nodes hold an image
	anti   int
	pulls  int // pods with any preference or need about other pods
	// Nominated pods will stand on a node once its victims are gone.
	nominated map[string]map[string]*Pod
	waiting   map[string]string
}

// NewTable answers an empty table.
func NewTable() *Table {
	return &Table{byName: map[string]*Node{}, pods: map[string]*Node{}, images: map[string]int{},
		nominated: map[string]map[string]*Pod{}, waiting: map[string]string{}}
}

// Len answers the numbers of nodes and of pods on them.
func (t *Table) Len() (nodes, pods int) { return len(t.nodes), len(t.pods) }

// Node answers a node, nil when it is unknown.
func (t *Table) Node(name string) *Node {
	if n := t.byName[name]; n != nil && n.Node != nil {
		return n
	}
	return nil
}

func (t *Table) row(name string) *Node {
	n := t.byName[name]
	if n == nil {
		n = &Node{Name: name, Pods: map[string]*Pod{}, Ports: map[Port]int{}}
		t.byName[name] = n
	}
	return n
}

// SetNode adds or replaces a node.
func (t *Table) SetNode(node *v1.Node) {
	n := t.row(node.Name)
	if n.Node == nil {
		i, _ := slices.BinarySearchFunc(t.nodes, node.Name, func(n *Node, name string) int { return strings.Compare(n.Name, name) })
		t.nodes = slices.Insert(t.nodes, i, n)
	}
	t.forgetImages(n)
	n.Node = node
	n.Capacity = amountsOf(node.Status.Allocatable)
	n.MaxPods = node.Status.Allocatable.Pods().Value()
	n.Images = make(map[string]int64, len(node.Status.Images))
	for _, image := range node.Status.Images {
		for _, name := range image.Names {
			name = normalImage(name)
			if _, ok := n.Images[name]; !ok {
				t.images[name]++
			}
			n.Images[name] = image.SizeBytes
		}
	}
}

func (t *Table) forgetImages(n *Node) {
	for name := range n.Images {
		if t.images[name]--; t.images[name] <= 0 {
			delete(t.images, name)
		}
	}
}

// DeleteNode forgets a node; the pods that stand on it stay counted until they go too.
func (t *Table) DeleteNode(name string) {
	n := t.byName[name]
	if n == nil || n.Node == nil {
		return
	}
	t.forgetImages(n)
	n.Images, n.Node = nil, nil
	t.nodes = slices.DeleteFunc(t.nodes, func(m *Node) bool { return m == n })
	t.dropIfEmpty(n)
}

func (t *Table) dropIfEmpty(n *Node) {
	if n.Node == nil && len(n.Pods) == 0 {
		delete(t.byName, n.Name)
	}
}

// SetPod puts a pod on a node, whatever was known of it before.
func (t *Table) SetPod(p *Pod, node string) {
	t.DeletePod(p.Key)
	t.Unnominate(p.Key)
	n := t.row(node)
	t.pods[p.Key] = n
	t.count(n, p, 1)
}

// DeletePod takes a pod off its node.
func (t *Table) DeletePod(key string) {
	n := t.pods[key]
	if n == nil {
		return
	}
	delete(t.pods, key)
	t.count(n, n.Pods[key], -1)
	t.dropIfEmpty(n)
}

func (t *Table) count(n *Node, p *Pod, sign int) {
	if sign > 0 {
		n.Pods[p.Key] = p
	} else {
		delete(n.Pods, p.Key)
	}
	n.Used.add(p.Request, int64(sign))
	n.Scored.add(p.Scored, int64(sign))
	for _, port := range p.Ports {
		if n.Ports[port] += sign; n.Ports[port] <= 0 {
			delete(n.Ports, port)
		}
	}
	if len(p.anti) > 0 {
		n.anti += sign
		t.anti += sign
	}
	if len(p.affinity)+len(p.preferred)+len(p.avoided) > 0 {
		t.pulls += sign
	}
}

// Nominate keeps room on a node for a pod whose victims are leaving.
func (t *Table) Nominate(p *Pod, node string) {
	t.Unnominate(p.Key)
	if t.nominated[node] == nil {
		t.nominated[node] = map[string]*Pod{}
	}
	t.nominated[node][p.Key] = p
	t.waiting[p.Key] = node
}

// Unnominate gives that room up.
func (t *Table) Unnominate(key string) {
	node, ok := t.waiting[key]
	if !ok {
		return
	}
	delete(t.waiting, key)
	if delete(t.nominated[node], key); len(t.nominated[node]) == 0 {
		delete(t.nominated, node)
	}
}

// promised sums what stands or is promised on n before a pod of this priority may have it.
func (t *Table) promised(n *Node, p *Pod) (Amounts, int64) {
	used, pods := n.Used, int64(len(n.Pods))
	nominated := t.nominated[n.Name]
	if len(nominated) == 0 {
		return used, pods
	}
	sum := Amounts{CPU: used.CPU, Memory: used.Memory, Storage: used.Storage, Extended: map[v1.ResourceName]int64{}}
	for name, q := range used.Extended {
		sum.Extended[name] = q
	}
	for key, other := range nominated {
		if key != p.Key && other.Priority >= p.Priority {
			sum.add(other.Request, 1)
			pods++
		}
	}
	return sum, pods
}
