package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	// most bounds the addresses of one object.
	most = 1000
	// truncated is what the over-capacity annotation says then.
	truncated = "truncated"
	// managed says whose object it is.
	managedBy, manager = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	Service *corev1.Service
	Pods    []*corev1.Pod     // those it selects
	Have    *corev1.Endpoints // nil if there is none
	Trigger time.Time         // when what is looked at last changed, zero if that is not known
}

// Plan is what is to be done.
type Plan struct {
	Create, Update *corev1.Endpoints
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	for _, x := range []struct {
		verb string
		e    *corev1.Endpoints
	}{{"create", p.Create}, {"update", p.Update}} {
		if x.e == nil {
			continue
		}
		fmt.Fprintf(&b, "%s %s\n", x.verb, x.e.Name)
		for _, k := range slices.Sorted(maps.Keys(x.e.Annotations)) {
			fmt.Fprintf(&b, "  %s=%s\n", k, x.e.Annotations[k])
		}
		for _, s := range x.e.Subsets {
			ports := make([]string, len(s.Ports))
			for i, port := range s.Ports {
				ports[i] = fmt.Sprintf("%s:%d/%s", port.Name, port.Port, port.Protocol)
			}
			fmt.Fprintf(&b, "  %s ready %s, not ready %s\n", strings.Join(ports, ","), ips(s.Addresses), ips(s.NotReadyAddresses))
		}
	}
	return b.String()
}

func ips(list []corev1.EndpointAddress) string {
	if len(list) > 10 {
		return fmt.Sprint(len(list))
	}
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.IP
	}
	return "[" + strings.Join(out, " ") + "]"
}

// decide brings the object of a service to the pods it selects.
func decide(s Snapshot) Plan {
	subsets := group(s)
	over := truncate(subsets)
	subsets = slices.DeleteFunc(subsets, func(x corev1.EndpointSubset) bool { return len(x.Addresses)+len(x.NotReadyAddresses) == 0 })
	next := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: s.Service.Namespace, Name: s.Service.Name}}
	if s.Have != nil {
		next = s.Have.DeepCopy()
	}
	next.Subsets = subsets
	next.Labels = maps.Clone(s.Service.Labels)
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	delete(next.Labels, corev1.IsHeadlessService)
	if s.Service.Spec.ClusterIP == corev1.ClusterIPNone {
		next.Labels[corev1.IsHeadlessService] = ""
	}
	next.Labels[managedBy] = manager
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	delete(next.Annotations, corev1.EndpointsOverCapacity)
	if over {
		next.Annotations[corev1.EndpointsOverCapacity] = truncated
	}
	if s.Have != nil && equality.Semantic.DeepEqual(s.Have.Subsets, next.Subsets) && equality.Semantic.DeepEqual(s.Have.Labels, next.Labels) &&
		s.Have.Annotations[corev1.EndpointsOverCapacity] == next.Annotations[corev1.EndpointsOverCapacity] {
		return Plan{}
	}
	delete(next.Annotations, corev1.EndpointsLastChangeTriggerTime)
	if !s.Trigger.IsZero() {
		next.Annotations[corev1.EndpointsLastChangeTriggerTime] = s.Trigger.UTC().Format(time.RFC3339Nano)
	}
	if s.Have == nil {
		return Plan{Create: next}
	}
	return Plan{Update: next}
}

// group gathers the pods' addresses by the ports they have: one subset for each different list.
func group(s Snapshot) []corev1.EndpointSubset {
	byPorts := map[string]*corev1.EndpointSubset{}
	for _, p := range s.Pods {
		a, ok := address(s.Service, p)
		if !ok {
			continue
		}
		ports, ok := portsOf(s.Service, p)
		if !ok {
			continue
		}
		key := name(ports)
		set := byPorts[key]
		if set == nil {
			set = &corev1.EndpointSubset{Ports: ports}
			byPorts[key] = set
		}
		switch {
		case s.Service.Spec.PublishNotReadyAddresses || ready(p):
			set.Addresses = append(set.Addresses, a)
		default:
			set.NotReadyAddresses = append(set.NotReadyAddresses, a)
		}
	}
	out := make([]corev1.EndpointSubset, 0, len(byPorts))
	for _, key := range slices.Sorted(maps.Keys(byPorts)) {
		set := byPorts[key]
		for _, list := range [][]corev1.EndpointAddress{set.Addresses, set.NotReadyAddresses} {
			slices.SortFunc(list, func(a, b corev1.EndpointAddress) int {
				return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(a.TargetRef.UID, b.TargetRef.UID))
			})
		}
		out = append(out, *set)
	}
	return out
}

// name is a list of ports by value.
func name(ports []corev1.EndpointPort) string {
	var b strings.Builder
	for _, p := range ports {
		protocol := ""
		if p.AppProtocol != nil {
			protocol = *p.AppProtocol
		}
		fmt.Fprintf(&b, "%s/%d/%s/%s ", p.Name, p.Port, p.Protocol, protocol)
	}
	return b.String()
}

// truncate takes addresses off until no more than most are left, the ones not ready first; it tells whether it had to.
func truncate(subsets []corev1.EndpointSubset) bool {
	up, down := 0, 0
	for _, s := range subsets {
		up, down = up+len(s.Addresses), down+len(s.NotReadyAddresses)
	}
	if up+down <= most {
		return false
	}
	roomUp, roomDown := min(up, most), max(0, most-up)
	for i := range subsets {
		s := &subsets[i]
		s.Addresses = s.Addresses[:min(len(s.Addresses), roomUp)]
		s.NotReadyAddresses = s.NotReadyAddresses[:min(len(s.NotReadyAddresses), roomDown)]
		roomUp, roomDown = roomUp-len(s.Addresses), roomDown-len(s.NotReadyAddresses)
	}
	return true
}

// address is a pod's address in the family of the service; a pod that leaves or ended has none.
func address(s *corev1.Service, p *corev1.Pod) (corev1.EndpointAddress, bool) {
	if len(p.Status.PodIPs) == 0 || finished(p) || p.DeletionTimestamp != nil && !s.Spec.PublishNotReadyAddresses {
		return corev1.EndpointAddress{}, false
	}
	six := strings.Contains(s.Spec.ClusterIP, ":")
	if len(s.Spec.IPFamilies) > 0 {
		six = s.Spec.IPFamilies[0] == corev1.IPv6Protocol
	}
	for _, ip := range p.Status.PodIPs {
		if strings.Contains(ip.IP, ":") != six {
			continue
		}
		a := corev1.EndpointAddress{IP: ip.IP, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}}
		if p.Spec.NodeName != "" {
			a.NodeName = new(p.Spec.NodeName)
		}
		if p.Spec.Hostname != "" && p.Spec.Subdomain == s.Name && p.Namespace == s.Namespace {
			a.Hostname = p.Spec.Hostname
		}
		return a, true
	}
	return corev1.EndpointAddress{}, false
}

// portsOf resolves the service's ports for one pod. A headless service may have none; another needs one that the pod has.
func portsOf(s *corev1.Service, p *corev1.Pod) ([]corev1.EndpointPort, bool) {
	if len(s.Spec.Ports) == 0 {
		return nil, s.Spec.ClusterIP == corev1.ClusterIPNone
	}
	var out []corev1.EndpointPort
	for _, sp := range s.Spec.Ports {
		n := sp.TargetPort.IntVal
		if sp.TargetPort.Type == intstr.String {
			n = named(p, sp.TargetPort.StrVal, sp.Protocol)
		}
		if n == 0 {
			continue
		}
		out = append(out, corev1.EndpointPort{Name: sp.Name, Port: n, Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
	}
	slices.SortFunc(out, func(a, b corev1.EndpointPort) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out, len(out) > 0
}

func named(p *corev1.Pod, name string, protocol corev1.Protocol) int32 {
	lists := [][]corev1.Container{p.Spec.Containers}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			lists = append(lists, []corev1.Container{c})
		}
	}
	for _, list := range lists {
		for _, c := range list {
			for _, port := range c.Ports {
				if port.Name == name && cmp.Or(port.Protocol, corev1.ProtocolTCP) == cmp.Or(protocol, corev1.ProtocolTCP) {
					return port.ContainerPort
				}
			}
		}
	}
	return 0
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
