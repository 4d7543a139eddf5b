package rules

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/resource"
	corev1 "k8s.io/component-helpers/scheduling/corev1"
)

// What a container that asks for nothing is scored as, so that such pods spread too.
const (
	scoredMilliCPU = 100
	scoredMemory   = 200 * 1024 * 1024
)

// Amounts are quantities of resources: CPU in thousandths, everything else in units.
type Amounts struct {
	CPU, Memory, Storage int64
	Extended             map[v1.ResourceName]int64
}

func (a *Amounts) add(b Amounts, sign int64) {
	a.CPU += sign * b.CPU
	a.Memory += sign * b.Memory
	a.Storage += sign * b.Storage
	for name, n := range b.Extended {
		if a.Extended == nil {
			a.Extended = map[v1.ResourceName]int64{}
		}
		if a.Extended[name] += sign * n; a.Extended[name] == 0 {
			delete(a.Extended, name)
		}
	}
}

func amountsOf(list v1.ResourceList) Amounts {
	var a Amounts
	for name, q := range list {
		switch name {
		case v1.ResourceCPU:
			a.CPU = q.MilliValue()
		case v1.ResourceMemory:
			a.Memory = q.Value()
		case v1.ResourceEphemeralStorage:
			a.Storage = q.Value()
		case v1.ResourcePods:
		default:
			if a.Extended == nil {
				a.Extended = map[v1.ResourceName]int64{}
			}
			a.Extended[name] = q.Value()
		}
	}
	return a
}

// Port is a port of the node that a pod holds. An empty or 0.0.0.0 address holds it on every address.
type Port struct {
	Protocol v1.Protocol
	Address  string
	Number   int32
}

func (p Port) conflicts(q Port) bool {
	return p.Number == q.Number && p.Protocol == q.Protocol && (p.Address == q.Address || p.Address == "0.0.0.0" || q.Address == "0.0.0.0")
}

// Claim is what scheduling must know of one PersistentVolumeClaim of a pod.
type Claim struct {
	// Problem refuses every node, in the words of the reason; empty when the claim is bound.
	Problem string
	// Where the bound volume can be reached; nil is everywhere.
	Where *v1.NodeSelector
}

// Pod is a pod with what the rules read of it, worked out once. It is immutable.
type Pod struct {
	*v1.Pod
	Key      string // namespace/name
	Priority int32
	Request  Amounts
	Scored   Amounts // Request, with a default where a container asks for no CPU or memory
	Ports    []Port

	affinity, anti     []term
	preferred, avoided []weightedTerm
	labels             labels.Set
}

// term is one pod affinity term of a pod in namespace `own`.
type term struct {
	key        string
	pods       labels.Selector
	names      map[string]bool
	namespaces labels.Selector // nil: names alone
}

type weightedTerm struct {
	term
	weight int64
}

// matches says whether the term means the pod p.
func (t *term) matches(p *Pod, namespaceLabels map[string]labels.Set) bool {
	if !t.names[p.Namespace] && (t.namespaces == nil || !t.namespaces.Matches(namespaceLabels[p.Namespace])) {
		return false
	}
	return t.pods.Matches(p.labels)
}

// NewPod digests a pod.
func NewPod(p *v1.Pod) *Pod {
	d := &Pod{Pod: p, Key: p.Namespace + "/" + p.Name, Priority: corev1.PodPriority(p), labels: p.Labels}
	options := resource.PodResourcesOptions{UseStatusResources: true}
	d.Request = amountsOf(resource.PodRequests(p, options))
	options.NonMissingContainerRequests = missing
	d.Scored = amountsOf(resource.PodRequests(p, options))
	for _, containers := range [][]v1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range containers {
			c := &containers[i]
			for _, cp := range c.Ports {
				if cp.HostPort <= 0 {
					continue
				}
				port := Port{Protocol: cp.Protocol, Address: cp.HostIP, Number: cp.HostPort}
				if port.Protocol == "" {
					port.Protocol = v1.ProtocolTCP
				}
				if port.Address == "" {
					port.Address = "0.0.0.0"
				}
				d.Ports = append(d.Ports, port)
			}
		}
	}
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			d.affinity = terms(p, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
			d.preferred = weightedTerms(p, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if a.PodAntiAffinity != nil {
			d.anti = terms(p, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
			d.avoided = weightedTerms(p, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
	return d
}

var missing = v1.ResourceList{
	v1.ResourceCPU:    *milli(scoredMilliCPU),
	v1.ResourceMemory: *bytes(scoredMemory),
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
		out = append(out, weightedTerm{newTerm(p, &from[i].PodAffinityTerm), int64(from[i].Weight)})
	}
	return out
}

func newTerm(p *v1.Pod, t *v1.PodAffinityTerm) term {
	out := term{key: t.TopologyKey, pods: selector(t.LabelSelector), names: map[string]bool{}}
	for _, n := range t.Namespaces {
		out.names[n] = true
	}
	if t.NamespaceSelector != nil {
		out.namespaces = selector(t.NamespaceSelector)
	} else if len(t.Namespaces) == 0 {
		out.names[p.Namespace] = true
	}
	return out
}

// selector reads a label selector; nil, or one the API should have refused, selects nothing.
func selector(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return out
}
