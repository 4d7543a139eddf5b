package endpointslicemirroring

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// manager says whose slices these are.
	manager = "endpointslicemirroring-controller.k8s.io"
	// perSubset bounds the addresses that are mirrored of one subset.
	perSubset = 1000
	// leaderNote is on objects that are a leader's record, not a service's endpoints.
	leaderNote = "control-plane.alpha.kubernetes.io/leader"
	// skipped and true say that an object is not to be mirrored.
	skipped = discoveryv1.LabelSkipMirror
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	Endpoints *corev1.Endpoints //nolint:staticcheck // mirroring it is what this is for
	Service   *corev1.Service   // of the same name, nil if there is none
	Slices    []*discoveryv1.EndpointSlice
}

// Plan is what is to be done.
type Plan struct {
	Create, Update, Delete []*discoveryv1.EndpointSlice
	Skipped                int // addresses that are none, or too many
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	for _, x := range []struct {
		verb string
		list []*discoveryv1.EndpointSlice
	}{{"create", p.Create}, {"update", p.Update}, {"delete", p.Delete}} {
		for _, s := range x.list {
			fmt.Fprintf(&b, "%s %s%s %s %v", x.verb, s.GenerateName, s.Name, s.AddressType, names(s.Ports))
			for _, e := range s.Endpoints {
				fmt.Fprintf(&b, " %s", e.Addresses[0])
				if e.Conditions.Ready != nil && !*e.Conditions.Ready {
					b.WriteString("(not ready)")
				}
			}
			b.WriteString("\n")
		}
	}
	if p.Skipped > 0 {
		fmt.Fprintf(&b, "%d addresses are left out\n", p.Skipped)
	}
	return b.String()
}

func names(ports []discoveryv1.EndpointPort) []string {
	out := make([]string, 0, len(ports))
	for _, p := range ports {
		out = append(out, fmt.Sprintf("%s:%d/%s", *p.Name, *p.Port, *p.Protocol))
	}
	return out
}

// mirrored tells whether endpoints are a user's own: those of a service without a selector, and no leader's record.
func mirrored(e *corev1.Endpoints, svc *corev1.Service) bool { //nolint:staticcheck // see Snapshot
	if e == nil || e.DeletionTimestamp != nil || e.Labels[skipped] == "true" || svc == nil || svc.Spec.Selector != nil || svc.DeletionTimestamp != nil {
		return false
	}
	_, leader := e.Annotations[leaderNote]
	return !leader
}

// decide brings slices to what endpoints say: one for each family and set of ports.
func decide(s Snapshot) Plan {
	var p Plan
	if !mirrored(s.Endpoints, s.Service) {
		p.Delete = s.Slices
		return p
	}
	want := map[string]*discoveryv1.EndpointSlice{}
	for i := range s.Endpoints.Subsets {
		p.subset(s.Endpoints, &s.Endpoints.Subsets[i], want)
	}
	have := slices.Clone(s.Slices)
	slices.SortFunc(have, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	for _, old := range have {
		key := keyOf(old)
		next := want[key]
		if next == nil {
			p.Delete = append(p.Delete, old)
			continue
		}
		delete(want, key)
		if equality.Semantic.DeepEqual(old.Endpoints, next.Endpoints) && maps.Equal(old.Labels, next.Labels) && maps.Equal(old.Annotations, next.Annotations) {
			continue
		}
		x := old.DeepCopy()
		x.Endpoints, x.Labels, x.Annotations = next.Endpoints, next.Labels, next.Annotations
		p.Update = append(p.Update, x)
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		p.Create = append(p.Create, want[key])
	}
	return p
}

func keyOf(s *discoveryv1.EndpointSlice) string {
	ports := make([]string, 0, len(s.Ports))
	for _, p := range s.Ports {
		text := ""
		if p.Name != nil {
			text = *p.Name
		}
		if p.Port != nil {
			text += fmt.Sprint(":", *p.Port)
		}
		if p.Protocol != nil {
			text += "/" + string(*p.Protocol)
		}
		if p.AppProtocol != nil {
			text += "/" + *p.AppProtocol
		}
		ports = append(ports, text)
	}
	slices.Sort(ports)
	return string(s.AddressType) + " " + strings.Join(ports, ",")
}

// subset adds one subset's addresses to the slices of its ports.
func (p *Plan) subset(e *corev1.Endpoints, sub *corev1.EndpointSubset, want map[string]*discoveryv1.EndpointSlice) { //nolint:staticcheck // see Snapshot
	ports := make([]discoveryv1.EndpointPort, 0, len(sub.Ports))
	for _, x := range sub.Ports {
		protocol := x.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		ports = append(ports, discoveryv1.EndpointPort{Name: &x.Name, Port: &x.Port, Protocol: &protocol, AppProtocol: x.AppProtocol})
	}
	n := 0
	add := func(list []corev1.EndpointAddress, ready bool) {
		for i := range list {
			a := &list[i]
			ip, err := netip.ParseAddr(a.IP)
			if err != nil || n == perSubset {
				p.Skipped++
				continue
			}
			n++
			family := discoveryv1.AddressTypeIPv4
			if !ip.Is4() && !ip.Is4In6() {
				family = discoveryv1.AddressTypeIPv6
			}
			fresh := empty(e, family, ports)
			slice := want[keyOf(fresh)]
			if slice == nil {
				slice = fresh
				want[keyOf(fresh)] = slice
			}
			x := discoveryv1.Endpoint{Addresses: []string{a.IP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: a.TargetRef, NodeName: a.NodeName}
			if a.Hostname != "" {
				x.Hostname = &a.Hostname
			}
			slice.Endpoints = append(slice.Endpoints, x)
		}
	}
	add(sub.Addresses, true)
	add(sub.NotReadyAddresses, false)
}

// empty is a slice of an object, with its labels and notes but those that are about the object alone.
func empty(e *corev1.Endpoints, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice { //nolint:staticcheck // see Snapshot
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace, GenerateName: e.Name + "-", Labels: map[string]string{}, Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: family, Ports: ports,
	}
	maps.Copy(s.Labels, e.Labels)
	maps.Copy(s.Annotations, e.Annotations)
	s.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelManagedBy] = e.Name, manager
	delete(s.Annotations, corev1.LastAppliedConfigAnnotation)
	delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
	if len(s.Annotations) == 0 {
		s.Annotations = nil
	}
	return s
}
