package rules

import (
	"cmp"
	"crypto/sha256"
	"hash/fnv"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Table is the cluster as the rules see it: a row per node, kept as arrays, changed by each event and never rebuilt. Every change
// of a row is written in a journal, so that a view knows which rows to look at again. Its owner serializes all use.
type Table struct {
	Storage *Storage
	Devices *Devices

	seed   uint64
	rows   []row
	byName map[string]int32
	free   []int32
	came   int // rows since they were last arranged
	nodes  int
	pods   map[string]*Pod

	kinds           map[v1.ResourceName]int32
	names           []v1.ResourceName // by the number of a resource
	journal         []int32           // rows in the order of their changes; the first entry is change number `began`
	began           uint64
	meter           *Meter // while a decision is measured
	thinking        bool   // changes will be taken back, and are not written down
	classes         map[[sha256.Size224]byte]*Class
	byNamespace     map[string]map[*Class]struct{}
	counters        map[string]*counter
	carriers        carriers
	topologies      map[string]*topology
	images          map[string]image
	namespaces      map[string]labels.Set
	services        map[string]map[string]labels.Selector
	owners          map[ownerKey]labels.Selector
	budgets         map[string]*Budget
	waiting         map[string]int32 // nominated pods, and the row
	views           *views
	epoch           uint64 // changes that no journal entry tells
	siblingsVersion uint64 // the first is 1
	budgetsVersion  uint64
}

type ownerKey struct{ kind, namespace, name string }

// row is a node, or a place pods stand on whose node has not been seen. What every look at a row reads stands together, for on many
// nodes the way to memory is what a decision costs.
type row struct {
	node     *v1.Node // nil: no such node
	version  uint32   // counts the row's changes
	cordoned bool
	taints   []v1.Taint
	pods     []*Pod
	maxPods  int64
	base     [firstExtended]amount
	scored   [2]int64         // CPU and memory as they are scored
	rank     uint64           // breaks ties
	images   map[string]int64 // size by name

	name      string
	more      []amount // of the other resources, as far as they were seen here
	ports     map[Port]int
	nominated []*Pod
}

// image is one by its name, of which all rows share one string, and how many nodes hold it.
type image struct {
	name  string
	nodes int
}

// amount is what a row has of a resource, and what its pods asked for.
type amount struct{ capacity, used int64 }

// amount answers the row's amount of a resource by its number.
func (n *row) amount(kind int32) amount {
	if kind < firstExtended {
		return n.base[kind]
	}
	if kind -= firstExtended; int(kind) < len(n.more) {
		return n.more[kind]
	}
	return amount{}
}

// keep is amount, to be changed.
func (n *row) keep(kind int32) *amount {
	if kind < firstExtended {
		return &n.base[kind]
	}
	kind -= firstExtended
	for int(kind) >= len(n.more) {
		n.more = append(n.more, amount{})
	}
	return &n.more[kind]
}

// setCapacity writes what a node has; nil is nothing.
func (t *Table) setCapacity(n *row, list v1.ResourceList) {
	for k := range n.base {
		n.base[k].capacity = 0
	}
	for k := range n.more {
		n.more[k].capacity = 0
	}
	for _, a := range amountsOf(list) {
		n.keep(t.kind(a.Name)).capacity = a.N
	}
	n.maxPods = list.Pods().Value()
}

// hasCapacity says whether that is what a row has already.
func (t *Table) hasCapacity(n *row, list v1.ResourceList) bool {
	kinds := 0
	for _, has := range [][]amount{n.base[:], n.more} {
		for k := range has {
			if has[k].capacity != 0 {
				kinds++
			}
		}
	}
	amounts := amountsOf(list)
	for _, a := range amounts {
		if k, ok := t.kinds[a.Name]; !ok || n.amount(k).capacity != a.N {
			return false
		}
	}
	return kinds == len(amounts) && n.maxPods == list.Pods().Value()
}

// NewTable answers an empty table. The same seed breaks ties in the same way.
func NewTable(seed uint64) *Table {
	t := &Table{
		seed: seed, byName: map[string]int32{}, pods: map[string]*Pod{}, kinds: map[v1.ResourceName]int32{},
		classes: map[[sha256.Size224]byte]*Class{}, byNamespace: map[string]map[*Class]struct{}{}, counters: map[string]*counter{},
		carriers: newCarriers(), topologies: map[string]*topology{}, images: map[string]image{}, namespaces: map[string]labels.Set{},
		services: map[string]map[string]labels.Selector{}, owners: map[ownerKey]labels.Selector{}, budgets: map[string]*Budget{},
		waiting: map[string]int32{}, views: newViews(), siblingsVersion: 1,
	}
	t.Storage, t.Devices = newStorage(t), newDevices(t)
	for _, name := range builtin {
		t.kind(name)
	}
	return t
}

// Len answers the numbers of nodes and of pods on them.
func (t *Table) Len() (nodes, pods int) { return t.nodes, len(t.pods) }

// Node answers a node, nil when it is unknown.
func (t *Table) Node(name string) *v1.Node {
	if r, ok := t.byName[name]; ok {
		return t.rows[r].node
	}
	return nil
}

// Domains answers the nodes with a label, by its value.
func (t *Table) Domains(key string) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for r := range t.rows {
		if n := t.rows[r].node; n != nil {
			if value, ok := n.Labels[key]; ok {
				if out[value] == nil {
					out[value] = map[string]bool{}
				}
				out[value][t.rows[r].name] = true
			}
		}
	}
	return out
}

// Pod answers a standing pod and its node's name; nil when it is unknown.
func (t *Table) Pod(key string) (*Pod, string) {
	p := t.pods[key]
	if p == nil {
		return nil, ""
	}
	return p, t.rows[p.row].name
}

// Pods answers the keys of all standing pods. The table must not change meanwhile.
func (t *Table) Pods() iter.Seq[string] { return maps.Keys(t.pods) }

func (t *Table) kind(name v1.ResourceName) int32 {
	k, ok := t.kinds[name]
	if !ok {
		k = int32(len(t.names))
		t.kinds[name] = k
		t.names = append(t.names, name)
	}
	return k
}

// row answers the row of a name, a new one if need be.
func (t *Table) row(name string) int32 {
	if r, ok := t.byName[name]; ok {
		return r
	}
	fresh := row{name: name, rank: t.hash(name)}
	t.came++
	var r int32
	if last := len(t.free) - 1; last >= 0 {
		r, t.free = t.free[last], t.free[:last]
		fresh.version = t.rows[r].version
		t.rows[r] = fresh
	} else {
		r = int32(len(t.rows))
		t.rows = append(t.rows, fresh)
		for _, c := range t.counters {
			c.rows = append(c.rows, 0)
		}
		for _, o := range t.topologies {
			o.of = append(o.of, -1)
		}
	}
	t.byName[name] = r
	return r
}

// arrange numbers the rows by rank, the order in which ties between them are broken, once half of them came since it last did. A burst of
// pods on like nodes changes row after row in that order, so in all that is kept by row what changed lies side by side. Nobody may hold
// a row's number meanwhile; views and counters are made anew.
func (t *Table) arrange() {
	if 2*t.came <= len(t.rows) {
		return
	}
	t.forgetCounts()
	rows := slices.DeleteFunc(t.rows, func(n row) bool { return n.name == "" })
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.name, b.name)) })
	t.rows, t.free, t.came = rows, nil, 0
	clear(t.topologies)
	for r := range rows {
		t.byName[rows[r].name] = int32(r)
		for _, p := range rows[r].pods {
			p.row = int32(r)
		}
		for _, p := range rows[r].nominated {
			t.waiting[p.Key] = int32(r)
		}
	}
	t.began += uint64(len(t.journal))
	t.journal = t.journal[:0]
}

// hash answers the seed's number for a name.
func (t *Table) hash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte{byte(t.seed), byte(t.seed >> 8), byte(t.seed >> 16), byte(t.seed >> 24), byte(t.seed >> 32)})
	_, _ = h.Write([]byte(name))
	return mix(h.Sum64())
}

// mix spreads the bits of a hash, whose last letters differ little between names.
func mix(h uint64) uint64 {
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// touch writes down that a row changed.
func (t *Table) touch(r int32) {
	if t.thinking {
		return
	}
	t.rows[r].version++
	if limit := 2*len(t.rows) + 1024; len(t.journal) >= 2*limit {
		t.journal = slices.Delete(t.journal, 0, limit)
		t.began += uint64(limit)
	}
	t.journal = append(t.journal, r)
}

// SetNode adds or replaces a node, and says whether anything changed that the rules read.
func (t *Table) SetNode(node *v1.Node) bool {
	r := t.row(node.Name)
	n := &t.rows[r]
	var images map[string]int64
	if len(node.Status.Images) > 0 {
		images = make(map[string]int64, len(node.Status.Images))
	}
	for _, held := range node.Status.Images {
		for _, name := range held.Names {
			images[normalImage(name)] = held.SizeBytes
		}
	}
	if old := n.node; old != nil && old.Spec.Unschedulable == node.Spec.Unschedulable && reflect.DeepEqual(old.Spec.Taints, node.Spec.Taints) &&
		maps.Equal(old.Labels, node.Labels) && t.hasCapacity(n, node.Status.Allocatable) &&
		old.UID == node.UID && maps.Equal(n.images, images) && slices.Equal(old.Status.DeclaredFeatures, node.Status.DeclaredFeatures) {
		return false
	}
	if n.node == nil {
		t.nodes++
	}
	slim := &v1.Node{}
	slim.Name, slim.UID, slim.Labels = node.Name, node.UID, node.Labels
	slim.Spec.Taints, slim.Spec.Unschedulable = node.Spec.Taints, node.Spec.Unschedulable
	slim.Status.DeclaredFeatures = node.Status.DeclaredFeatures
	n.node, n.taints, n.cordoned = slim, slim.Spec.Taints, slim.Spec.Unschedulable
	t.setImages(n, images)
	t.setCapacity(n, node.Status.Allocatable)
	for _, o := range t.topologies {
		o.set(r, node.Labels)
	}
	t.touch(r)
	return true
}

func sameAmounts(a, b v1.ResourceList) bool {
	if len(a) != len(b) {
		return false
	}
	for name, q := range a {
		other, ok := b[name]
		if !ok || q.Cmp(other) != 0 {
			return false
		}
	}
	return true
}

func (t *Table) setImages(n *row, images map[string]int64) {
	count := func(name string, nodes int) {
		i := t.images[name]
		if i.nodes += nodes; i.nodes <= 0 {
			delete(t.images, name)
			return
		}
		if i.name == "" {
			i.name = name
		}
		t.images[name] = i
	}
	for name := range images {
		count(name, 1)
	}
	for name := range n.images {
		count(name, -1)
	}
	n.images = images
}

// ShareImages has a node that is about to be set use the names of images that the table holds: most nodes hold the same ones.
func (t *Table) ShareImages(node *v1.Node) {
	for _, held := range node.Status.Images {
		for j, name := range held.Names {
			i, ok := t.images[name]
			if !ok && name == normalImage(name) {
				i.name = name
				t.images[name] = i
			}
			if i.name != "" {
				held.Names[j] = i.name
			}
		}
	}
}

// DeleteNode forgets a node; the pods that stand on it stay counted until they go too.
func (t *Table) DeleteNode(name string) {
	r, ok := t.byName[name]
	if !ok || t.rows[r].node == nil {
		return
	}
	n := &t.rows[r]
	t.setImages(n, nil)
	n.node, n.taints, n.cordoned = nil, nil, false
	t.nodes--
	t.setCapacity(n, nil)
	for _, o := range t.topologies {
		o.set(r, nil)
	}
	t.touch(r)
	t.dropIfEmpty(r)
}

func (t *Table) dropIfEmpty(r int32) {
	n := &t.rows[r]
	if n.node == nil && len(n.pods) == 0 && len(n.nominated) == 0 && n.name != "" {
		delete(t.byName, n.name)
		t.rows[r] = row{version: n.version}
		t.free = append(t.free, r)
	}
}

// SetPod puts a pod on a node, whatever was known of it before.
func (t *Table) SetPod(p *Pod, node string) {
	t.DeletePod(p.Key)
	t.Unnominate(p.Key)
	t.intern(p)
	r := t.row(node)
	t.pods[p.Key] = p
	p.row = r
	t.count(r, p, 1)
	t.touch(r)
}

// DeletePod takes a pod off its node.
func (t *Table) DeletePod(key string) {
	p := t.pods[key]
	if p == nil {
		return
	}
	delete(t.pods, key)
	t.count(p.row, p, -1)
	t.touch(p.row)
	t.dropIfEmpty(p.row)
	t.release(p.Class)
}

// count adds a pod to a row's sums, or takes it out again.
func (t *Table) count(r int32, p *Pod, sign int) {
	n, c := &t.rows[r], p.Class
	if sign > 0 {
		p.at, p.member = int32(len(n.pods)), int32(len(c.members))
		n.pods, c.members = append(n.pods, p), append(c.members, p)
	} else {
		last := n.pods[len(n.pods)-1]
		n.pods[p.at], last.at = last, p.at
		n.pods[len(n.pods)-1] = nil
		n.pods = n.pods[:len(n.pods)-1]
		last = c.members[len(c.members)-1]
		c.members[p.member], last.member = last, p.member
		c.members[len(c.members)-1] = nil
		c.members = c.members[:len(c.members)-1]
		p.at = -1
	}
	for _, w := range c.want {
		n.keep(w.kind).used += int64(sign) * w.n
	}
	n.scored[0] += int64(sign) * c.scored[0]
	n.scored[1] += int64(sign) * c.scored[1]
	for _, port := range c.ports {
		if n.ports == nil {
			n.ports = map[Port]int{}
		}
		if n.ports[port] += sign; n.ports[port] <= 0 {
			delete(n.ports, port)
		}
	}
	if len(c.claims) > 0 {
		t.Storage.use(c, sign)
	}
	for i := 0; i < len(c.counted); i++ {
		x := c.counted[i]
		switch {
		case x.by.dropped:
			c.counted[i] = c.counted[len(c.counted)-1]
			c.counted = c.counted[:len(c.counted)-1]
			i--
		case !p.Leaving || !x.by.staying:
			x.by.add(r, int64(sign)*x.weight)
		}
	}
}

// intern gives a pod the class the table knows already, or makes the table know its own.
func (t *Table) intern(p *Pod) {
	if c, ok := t.classes[p.Class.id]; ok {
		p.Class = c
		return
	}
	c := p.Class
	t.classes[c.id] = c
	c.known, c.counted, c.want = true, nil, c.want[:0]
	for _, a := range c.Request {
		c.want = append(c.want, want{t.kind(a.Name), a.N})
	}
	if t.byNamespace[c.Namespace] == nil {
		t.byNamespace[c.Namespace] = map[*Class]struct{}{}
	}
	t.byNamespace[c.Namespace][c] = struct{}{}
	if len(c.affinity)+len(c.anti)+len(c.preferred)+len(c.avoided) > 0 {
		t.carriers.add(c)
	}
	for _, k := range t.counters {
		if weight := k.weight(c); weight != 0 {
			c.counted = append(c.counted, counted{k, weight})
		}
	}
}

// release forgets a class that nobody needs any more.
func (t *Table) release(c *Class) {
	if len(c.members) > 0 || !c.known || c.views > 0 || c.promised > 0 {
		return
	}
	c.known = false
	delete(t.classes, c.id)
	delete(t.carriers.all, c)
	if delete(t.byNamespace[c.Namespace], c); len(t.byNamespace[c.Namespace]) == 0 {
		delete(t.byNamespace, c.Namespace)
	}
}

// Nominate keeps room on a node for a pod whose victims are leaving.
func (t *Table) Nominate(p *Pod, node string) {
	t.Unnominate(p.Key)
	t.intern(p)
	p.Class.promised++ // its terms hold as if it stood there
	r := t.row(node)
	t.rows[r].nominated = append(t.rows[r].nominated, p)
	t.waiting[p.Key] = r
	t.touch(r)
}

// Unnominate gives that room up and answers the node, empty when there was none.
func (t *Table) Unnominate(key string) string {
	r, ok := t.waiting[key]
	if !ok {
		return ""
	}
	delete(t.waiting, key)
	n := &t.rows[r]
	name := n.name
	at := slices.IndexFunc(n.nominated, func(p *Pod) bool { return p.Key == key })
	c := n.nominated[at].Class
	n.nominated = slices.Delete(n.nominated, at, at+1)
	c.promised--
	t.release(c)
	t.touch(r)
	t.dropIfEmpty(r)
	return name
}

// SetNamespace tells a namespace's labels.
func (t *Table) SetNamespace(name string, l map[string]string) {
	if old, ok := t.namespaces[name]; ok && maps.Equal(old, labels.Set(l)) {
		return
	}
	t.namespaces[name] = l
	if len(t.byNamespace[name]) > 0 {
		t.forgetCounts()
	}
}

// DeleteNamespace forgets a namespace's labels.
func (t *Table) DeleteNamespace(name string) { delete(t.namespaces, name) }

// forgetCounts drops every counter and view: what they were made from has changed.
func (t *Table) forgetCounts() {
	t.views.clear()
	clear(t.counters)
	t.carriers.forget()
	for _, c := range t.classes {
		c.counted = nil
	}
	t.epoch++
}

// Forget drops what was worked out, after a plugin panicked half way through.
func (t *Table) Forget() { t.views.clear() }
