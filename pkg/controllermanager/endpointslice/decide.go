package endpointslice

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// perSlice bounds the endpoints of one slice.
const perSlice = 100

// manager says whose slices these are.
const manager = "endpointslice-controller.k8s.io"

// Snapshot is what a decision is made on.
type Snapshot struct {
	Service *corev1.Service
	Pods    []*corev1.Pod                // those it selects
	Slices  []*discoveryv1.EndpointSlice // ours, of this service
	Zones   map[string]string            // zone by node
}

// Plan is what is to be done.
type Plan struct {
	Create, Update, Delete []*discoveryv1.EndpointSlice
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	show := func(verb string, list []*discoveryv1.EndpointSlice) {
		for _, s := range list {
			fmt.Fprintf(&b, "%s %s%s %s %d endpoints\n", verb, s.GenerateName, s.Name, s.AddressType, len(s.Endpoints))
		}
	}
	show("create", p.Create)
	show("update", p.Update)
	show("delete", p.Delete)
	return b.String()
}

// group is the endpoints that share family and ports.
type group struct {
	family    discoveryv1.AddressType
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
}

// decide brings the slices of a service to the pods it selects, touching as few as it can.
func decide(s Snapshot) Plan {
	var p Plan
	used := map[string]bool{}
	for _, family := range families(s.Service) {
		groups := map[string]*group{}
		for _, pod := range s.Pods {
			ip := address(pod, family)
			if ip == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
				continue
			}
			ports := portsOf(s.Service, pod)
			key := fmt.Sprint(plain(ports))
			g := groups[key]
			if g == nil {
				g = &group{family: family, ports: ports}
				groups[key] = g
			}
			g.endpoints = append(g.endpoints, endpoint(s, pod, ip))
		}
		for _, key := range sortedKeys(groups) {
			p.place(s, groups[key], used)
		}
		// A family without pods has one empty slice, so that readers know it was looked at.
		if len(groups) == 0 {
			p.place(s, &group{family: family}, used)
		}
	}
	for _, slice := range s.Slices {
		if !used[slice.Name] {
			p.Delete = append(p.Delete, slice)
		}
	}
	p.reuse(s.Service)
	return p
}

// reuse makes of a slice that is to go the one that is to come, if both are of one family: one write instead of two, and
// readers see no moment without or with both. So a service has one slice, whether it or its first pod was seen first.
func (p *Plan) reuse(svc *corev1.Service) {
	p.Create = slices.DeleteFunc(p.Create, func(fresh *discoveryv1.EndpointSlice) bool {
		i := slices.IndexFunc(p.Delete, func(old *discoveryv1.EndpointSlice) bool {
			return old.AddressType == fresh.AddressType && old.DeletionTimestamp == nil && owns(svc, old)
		})
		if i < 0 {
			return false
		}
		next := p.Delete[i].DeepCopy()
		next.Ports, next.Endpoints, next.Labels = fresh.Ports, fresh.Endpoints, fresh.Labels
		p.Update, p.Delete = append(p.Update, next), slices.Delete(p.Delete, i, i+1)
		return true
	})
}

// owns tells whether a slice goes with a service, and not with one before it that had the name.
func owns(svc *corev1.Service, slice *discoveryv1.EndpointSlice) bool {
	ref := metav1.GetControllerOfNoCopy(slice)
	return ref == nil || ref.UID == svc.UID
}

// identity tells endpoints apart: pods on their node's network share an address.
func identity(e discoveryv1.Endpoint) string {
	if e.TargetRef == nil {
		return e.Addresses[0]
	}
	return e.Addresses[0] + "/" + string(e.TargetRef.UID)
}

func sortedKeys(m map[string]*group) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// plain is ports by value.
func plain(ports []discoveryv1.EndpointPort) []string {
	out := make([]string, len(ports))
	for i, p := range ports {
		out[i] = fmt.Sprint(deref(p.Name), "/", deref(p.Protocol), "/", deref(p.Port), "/", deref(p.AppProtocol))
	}
	slices.Sort(out)
	return out
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

// place puts a group's endpoints into slices: those that are there keep what they hold, gaps are filled, the rest gets
// new ones.
func (p *Plan) place(s Snapshot, g *group, used map[string]bool) {
	left := map[string]discoveryv1.Endpoint{}
	for _, e := range g.endpoints {
		left[identity(e)] = e
	}
	var have []*discoveryv1.EndpointSlice
	for _, slice := range s.Slices {
		if slice.AddressType == g.family && owns(s.Service, slice) && slices.Equal(plain(slice.Ports), plain(g.ports)) && !used[slice.Name] {
			have = append(have, slice)
		}
	}
	slices.SortFunc(have, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	next := make([]*discoveryv1.EndpointSlice, len(have))
	for i, slice := range have {
		n := slice.DeepCopy()
		n.Endpoints = nil
		for _, e := range slice.Endpoints {
			if want, ok := left[identity(e)]; ok {
				n.Endpoints = append(n.Endpoints, want)
				delete(left, identity(e))
			}
		}
		next[i] = n
	}
	rest := make([]discoveryv1.Endpoint, 0, len(left))
	for _, e := range left {
		rest = append(rest, e)
	}
	slices.SortFunc(rest, func(a, b discoveryv1.Endpoint) int { return cmp.Compare(identity(a), identity(b)) })
	for _, n := range next {
		room := min(perSlice-len(n.Endpoints), len(rest))
		if room > 0 {
			n.Endpoints, rest = append(n.Endpoints, rest[:room]...), rest[room:]
		}
	}
	empty := len(g.endpoints) == 0
	for i, n := range next {
		if len(n.Endpoints) == 0 && !(empty && i == 0) {
			continue // deleted by the caller, as it is not marked as used
		}
		used[n.Name] = true
		dress(n, s.Service)
		if !equality.Semantic.DeepEqual(have[i].Endpoints, n.Endpoints) || !equality.Semantic.DeepEqual(have[i].Labels, n.Labels) {
			p.Update = append(p.Update, n)
		}
	}
	if empty && len(next) == 0 {
		p.Create = append(p.Create, fresh(s.Service, g, nil))
	}
	for len(rest) > 0 {
		n := min(perSlice, len(rest))
		p.Create = append(p.Create, fresh(s.Service, g, rest[:n]))
		rest = rest[n:]
	}
}

func fresh(svc *corev1.Service, g *group, endpoints []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, GenerateName: svc.Name + "-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: svc.Name, UID: svc.UID, Controller: new(true), BlockOwnerDeletion: new(true)}},
		},
		AddressType: g.family, Ports: g.ports, Endpoints: endpoints,
	}
	if s.Endpoints == nil {
		s.Endpoints = []discoveryv1.Endpoint{}
	}
	dress(s, svc)
	return s
}

// dress gives a slice the service's labels and our own.
func dress(s *discoveryv1.EndpointSlice, svc *corev1.Service) {
	s.Labels = map[string]string{}
	for k, v := range svc.Labels {
		s.Labels[k] = v
	}
	delete(s.Labels, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		s.Labels[corev1.IsHeadlessService] = ""
	}
	s.Labels[discoveryv1.LabelServiceName] = svc.Name
	s.Labels[discoveryv1.LabelManagedBy] = manager
}

func families(s *corev1.Service) []discoveryv1.AddressType {
	var out []discoveryv1.AddressType
	for _, f := range s.Spec.IPFamilies {
		out = append(out, discoveryv1.AddressType(f))
	}
	if len(out) == 0 {
		out = append(out, discoveryv1.AddressTypeIPv4)
	}
	return out
}

func address(p *corev1.Pod, family discoveryv1.AddressType) string {
	for _, ip := range p.Status.PodIPs {
		if strings.Contains(ip.IP, ":") == (family == discoveryv1.AddressTypeIPv6) {
			return ip.IP
		}
	}
	return ""
}

// portsOf resolves a service's ports for one pod: a port by name is the pod's own.
func portsOf(s *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for i := range s.Spec.Ports {
		sp := s.Spec.Ports[i]
		number := sp.TargetPort.IntVal
		if sp.TargetPort.Type == intstr.String {
			number = named(p, sp.TargetPort.StrVal, sp.Protocol)
			if number == 0 {
				continue
			}
		}
		out = append(out, discoveryv1.EndpointPort{Name: new(sp.Name), Protocol: new(sp.Protocol), Port: &number, AppProtocol: sp.AppProtocol})
	}
	return out
}

func named(p *corev1.Pod, name string, protocol corev1.Protocol) int32 {
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name && port.Protocol == protocol {
				return port.ContainerPort
			}
		}
	}
	for _, c := range p.Spec.InitContainers {
		for _, port := range c.Ports {
			if port.Name == name && port.Protocol == protocol && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
				return port.ContainerPort
			}
		}
	}
	return 0
}

func endpoint(s Snapshot, p *corev1.Pod, ip string) discoveryv1.Endpoint {
	serving, terminating := isReady(p), p.DeletionTimestamp != nil
	ready := s.Service.Spec.PublishNotReadyAddresses || serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if p.Spec.NodeName != "" {
		e.NodeName = new(p.Spec.NodeName)
		if z := s.Zones[p.Spec.NodeName]; z != "" {
			e.Zone = &z
		}
	}
	if p.Spec.Hostname != "" && p.Spec.Subdomain == s.Service.Name && p.Namespace == s.Service.Namespace {
		e.Hostname = new(p.Spec.Hostname)
	}
	return e
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
