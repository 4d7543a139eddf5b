package rules

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1 "k8s.io/component-helpers/scheduling/corev1"
)

// Pod is a pod as the table keeps it: who it is, and the class it shares with all pods like it.
type Pod struct {
	Key     string // namespace/name
	UID     types.UID
	Class   *Class
	Start   int64 // when it started, seconds since 1970; 0 not yet
	Leaving bool  // it has a deletion timestamp

	spec       *wishes // nil for one that was seen standing; that of its view once there was one
	row        int32   // the node it stands on, when at >= 0
	at, member int32   // its place among the row's pods and the class's members
}

// Name answers the pod's name.
func (p *Pod) Name() string { return p.Key[strings.IndexByte(p.Key, '/')+1:] }

// Class is all that the rules read of a pod, but for who it is. Pods with the same class fit the same nodes, so what is worked out
// for one holds for all: a view is kept per class. A class is immutable but for its lower part, which belongs to the table.
type Class struct {
	id        [sha256.Size224]byte
	shape     [sha256.Size224]byte // what is left of id without namespace, owner and labels
	Namespace string
	Scheduler string
	Priority  int32
	Never     bool // it evicts nobody
	Request   []Amount
	scored    [2]int64 // CPU and memory, with a default where a container asks for none
	labels    labelSet
	ports     []Port
	affinity  []term
	anti      []term
	preferred []weightedTerm
	avoided   []weightedTerm
	claims    []claimUse
	devices   []DeviceClaim
	extended  []demand
	disks     []v1.Volume // volumes that only one pod of a node, or of the cluster, may write
	owner     owner
	spreads   bool // it has topology spread constraints

	known        bool // to the table
	views        int
	promised     int     // pods nominated to a node
	spec         *wishes // what only pods without a node need; there while there is a view
	want         []want
	members      []*Pod
	counted      []counted
	ties         ties
	siblingsSeen uint64 // the table's version of who selects whom, when siblings said whether anything selects the pods
	siblings     bool
}

// wishes are what is read of a pod's spec while it has no node: the few fields of a large object.
type wishes struct {
	NodeName                  string
	NodeSelector              map[string]string
	Affinity                  *v1.Affinity
	Tolerations               []v1.Toleration
	TopologySpreadConstraints []v1.TopologySpreadConstraint
	images                    []string // of init containers, then of the others
	needs                     []string // features that the node must declare
}

// owner is the controller of a pod.
type owner struct{ kind, name string }

// want is a requested amount by the table's number of the resource.
type want struct {
	kind int32
	n    int64
}

// claimUse is a PersistentVolumeClaim that the pods of a class use.
type claimUse struct {
	name string
	// pod names the pod that an ephemeral claim must have been made for; empty for a claim of the user.
	pod string
	uid types.UID
}

// DeviceClaim is a ResourceClaim of a pod: the name in the pod, and of the object, empty while it is not made yet.
type DeviceClaim struct{ Name, Object string }

// term is one pod affinity term, with the namespaces it names.
type term struct {
	key        string
	pods       labelsSelector
	names      []string
	namespaces labelsSelector // nil: names alone
}

type weightedTerm struct {
	term
	weight int32
}

// matches says whether the term means pods of class c.
func (x *term) matches(t *Table, c *Class) bool {
	if !slices.Contains(x.names, c.Namespace) && (x.namespaces == nil || !x.namespaces.Matches(t.namespaces[c.Namespace])) {
		return false
	}
	return x.pods.Matches(c.labels)
}

// String is the same for terms that mean the same pods and places.
func (x *term) String() string {
	out := x.key + "|" + strings.Join(x.names, ",") + "|" + x.pods.String()
	if x.namespaces != nil {
		out += "|" + x.namespaces.String()
	}
	return out
}

// NewPod digests a pod. It touches nothing of the table, so it needs no lock. Of a pod that has its node less is kept.
func NewPod(p *v1.Pod) *Pod {
	spec := wishesOf(p)
	d := digest(p, spec)
	if p.Spec.NodeName == "" {
		d.spec = spec
	}
	return d
}

// NewWaiting digests a pod to be decided about. That it names a node in its spec is no more than a wish, which NodeName reads.
func NewWaiting(p *v1.Pod) *Pod {
	spec := wishesOf(p)
	spec.NodeName = p.Spec.NodeName
	d := digest(p, spec)
	d.spec = spec
	return d
}

func digest(p *v1.Pod, spec *wishes) *Pod {
	d := &Pod{Key: p.Namespace + "/" + p.Name, UID: p.UID, Class: newClass(p, spec), Leaving: p.DeletionTimestamp != nil, at: -1}
	if p.Status.StartTime != nil {
		d.Start = p.Status.StartTime.Unix()
	}
	return d
}

func newClass(p *v1.Pod, spec *wishes) *Class {
	c := &Class{
		Namespace: p.Namespace, Scheduler: p.Spec.SchedulerName, Priority: corev1.PodPriority(p), labels: labelsOf(p.Labels),
		Never: p.Spec.PreemptionPolicy != nil && *p.Spec.PreemptionPolicy == v1.PreemptNever,
		ports: portsOf(p), spreads: len(p.Spec.TopologySpreadConstraints) > 0,
	}
	c.Request, c.scored = requestOf(p)
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
		c.owner = owner{ref.Kind, ref.Name}
	}
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			c.affinity = terms(p, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
			c.preferred = weightedTerms(p, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if a.PodAntiAffinity != nil {
			c.anti = terms(p, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
			c.avoided = weightedTerms(p, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
	c.readVolumes(p)
	c.readDevices(p)
	c.readExtended(p)
	c.identify(spec)
	return c
}

func wishesOf(p *v1.Pod) *wishes {
	w := &wishes{
		NodeSelector: p.Spec.NodeSelector, Affinity: p.Spec.Affinity, Tolerations: p.Spec.Tolerations,
		TopologySpreadConstraints: p.Spec.TopologySpreadConstraints,
		images:                    make([]string, 0, len(p.Spec.InitContainers)+len(p.Spec.Containers)),
		needs:                     needs(p),
	}
	for _, containers := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			w.images = append(w.images, normalImage(containers[i].Image))
		}
	}
	return w
}

// identify hashes all that tells classes apart, and first what tells their shapes apart.
func (c *Class) identify(s *wishes) {
	buf := make([]byte, 0, 1024)
	text := func(s ...string) {
		for _, s := range s {
			buf = append(binary.AppendUvarint(buf, uint64(len(s))), s...)
		}
	}
	number := func(n int64) { buf = binary.AppendVarint(buf, n) }
	wire := func(m interface{ Marshal() ([]byte, error) }) {
		raw, err := m.Marshal()
		if err != nil {
			panic(err) // what came over the wire can go back
		}
		buf = append(binary.AppendUvarint(buf, uint64(len(raw))), raw...)
	}
	text(c.Scheduler, s.NodeName)
	number(int64(len(s.images)))
	text(s.images...)
	number(int64(len(s.needs)))
	text(s.needs...)
	number(int64(len(s.NodeSelector)))
	for _, l := range labelsOf(s.NodeSelector) {
		text(l.key, l.value)
	}
	number(int64(len(s.Tolerations)))
	for i := range s.Tolerations {
		wire(&s.Tolerations[i])
	}
	number(int64(len(s.TopologySpreadConstraints)))
	for i := range s.TopologySpreadConstraints {
		wire(&s.TopologySpreadConstraints[i])
	}
	if s.Affinity != nil {
		wire(s.Affinity)
	}
	number(int64(c.Priority))
	if c.Never {
		text("never")
	}
	number(int64(len(c.Request)))
	for _, a := range c.Request {
		text(string(a.Name))
		number(a.N)
	}
	number(c.scored[0])
	number(c.scored[1])
	for _, p := range c.ports {
		text("port", string(p.Protocol), p.Address)
		number(int64(p.Number))
	}
	c.shape = sha256.Sum224(buf)
	buf = append(buf[:0], c.shape[:]...)
	text(c.Namespace, c.owner.kind, c.owner.name)
	number(int64(len(c.labels)))
	for _, l := range c.labels {
		text(l.key, l.value)
	}
	for _, u := range c.claims {
		text("claim", u.name, u.pod, string(u.uid))
	}
	for _, d := range c.devices {
		text("device", d.Name, d.Object)
	}
	for _, x := range c.extended {
		text("extended", x.container, string(x.resource), x.request)
		number(x.n)
	}
	for i := range c.disks {
		disk, err := c.disks[i].Marshal()
		if err == nil {
			text("disk", string(disk))
		}
	}
	c.id = sha256.Sum224(buf)
}

func terms(p *v1.Pod, from []v1.PodAffinityTerm) []term {
	out := make([]term, 0, len(from))
	for i := range from {
		out = append(out, newTerm(p, &from[i]))
	}
	return out
}

func weightedTerms(p *v1.Pod, from []v1.WeightedPodAffinityTerm) []weightedTerm {
	out := make([]weightedTerm, 0, len(from))
	for i := range from {
		out = append(out, weightedTerm{newTerm(p, &from[i].PodAffinityTerm), from[i].Weight})
	}
	return out
}

func newTerm(p *v1.Pod, t *v1.PodAffinityTerm) term {
	out := term{key: t.TopologyKey, pods: selector(t.LabelSelector), names: slices.Sorted(slices.Values(t.Namespaces))}
	// The API server writes these two into the selector; once more changes nothing.
	out.pods = addKeys(out.pods, p.Labels, t.MatchLabelKeys, true)
	out.pods = addKeys(out.pods, p.Labels, t.MismatchLabelKeys, false)
	if t.NamespaceSelector != nil {
		out.namespaces = selector(t.NamespaceSelector)
	} else if len(t.Namespaces) == 0 {
		out.names = []string{p.Namespace}
	}
	return out
}

// ID tells a class from others; pods with equal IDs fit the same nodes.
func (c *Class) ID() string { return string(c.id[:]) }

// Share lets a pod use the class that the table knows, so that many pods digested at once weigh little.
func (t *Table) Share(p *Pod) { t.intern(p) }
