package kubelet

import (
	"context"
	"fmt"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
)

// safeSysctls are namespaced, isolated, and so any pod may set them.
var safeSysctls = map[string]bool{"kernel.shm_rmid_forced": true, "net.ipv4.ip_local_port_range": true, "net.ipv4.tcp_syncookies": true,
	"net.ipv4.ping_group_range": true, "net.ipv4.ip_unprivileged_port_start": true, "net.ipv4.ip_local_reserved_ports": true,
	"net.ipv4.tcp_keepalive_time": true, "net.ipv4.tcp_fin_timeout": true, "net.ipv4.tcp_keepalive_intvl": true,
	"net.ipv4.tcp_keepalive_probes": true, "net.ipv4.tcp_rmem": true, "net.ipv4.tcp_wmem": true}

// admit is why a new pod cannot run on this node, nil when it can.
func (k *Kubelet) admit(pod *v1.Pod, active []*v1.Pod) *lifecycle.Failure {
	if k.shutdown.Active() {
		return &lifecycle.Failure{Reason: "NodeShutdown", Message: "Pod was rejected as the node is shutting down."}
	}
	if f := foreign(pod); f != nil {
		return f
	}
	if f := k.managers.admit(pod); f != nil {
		return f
	}
	f := k.fit(pod, active)
	if f != nil {
		k.managers.release(string(pod.UID))
	}
	return f
}

// foreign refuses a pod for another operating system.
func foreign(pod *v1.Pod) *lifecycle.Failure {
	if os := pod.Spec.NodeSelector[v1.LabelOSStable]; os != "" && os != string(v1.Linux) {
		return &lifecycle.Failure{Reason: "PodOSSelectorNodeLabelDoesNotMatch", Message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}
	}
	if pod.Spec.OS != nil && pod.Spec.OS.Name != v1.Linux {
		return &lifecycle.Failure{Reason: "PodOSNotSupported", Message: "Failed to admit pod as the OS field doesn't match node OS"}
	}
	return nil
}

// fit tells why a pod does not fit the node as it is now.
func (k *Kubelet) fit(pod *v1.Pod, active []*v1.Pod) *lifecycle.Failure {
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			name := strings.ReplaceAll(s.Name, "/", ".")
			allowed := safeSysctls[name]
			for _, a := range k.cfg.Kubelet.AllowedUnsafeSysctls {
				prefix, star := strings.CutSuffix(a, "*")
				allowed = allowed || a == name || star && strings.HasPrefix(name, prefix)
			}
			if !allowed {
				return &lifecycle.Failure{Reason: "SysctlForbidden", Message: fmt.Sprintf("forbidden sysctl: %q not allowlisted", s.Name)}
			}
		}
	}
	if len(active) >= int(k.cfg.Kubelet.MaxPods) {
		return &lifecycle.Failure{Reason: "OutOfpods", Message: fmt.Sprintf("Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", len(active), k.cfg.Kubelet.MaxPods)}
	}
	if isStatic(pod) {
		return nil
	}
	if k.node != nil {
		required := nodeaffinity.GetRequiredNodeAffinity(pod)
		fits := func(n *v1.Node) bool {
			ok, err := required.Match(n)
			return ok || err != nil
		}
		if n := k.node.Object(); n != nil && !fits(n) {
			// A label may have come since the Node was last read, and the scheduler seen it.
			if n = k.node.Refresh(context.Background()); !fits(n) {
				return &lifecycle.Failure{Reason: "NodeAffinity", Message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
			}
		}
	}
	if portTaken(pod, active) {
		return &lifecycle.Failure{Reason: "NodePorts", Message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
	}
	for _, name := range k.counted(pod) {
		if want, used, capacity := k.fits(pod, active, name); want > 0 && used+want > capacity {
			return &lifecycle.Failure{Reason: "OutOf" + string(name), Message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, want, used, capacity)}
		}
	}
	return k.underPressure(pod)
}

// counted are the resources of which the node's pods together may not have more than there is. Devices are not among
// them: they are given one by one.
func (k *Kubelet) counted(pod *v1.Pod) []v1.ResourceName {
	out := []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage}
	for _, size := range pageSizes(pod) {
		out = append(out, v1.ResourceName(v1.ResourceHugePagesPrefix+size))
	}
	return out
}

// fits compares what a pod asks of a resource with what others hold and what there is; cpu in milli.
func (k *Kubelet) fits(pod *v1.Pod, active []*v1.Pod, name v1.ResourceName) (want, used, capacity int64) {
	for _, p := range active {
		used += request(p, name)
	}
	have := k.allocatable[name]
	if capacity = have.Value(); name == v1.ResourceCPU {
		capacity = have.MilliValue()
	}
	return request(pod, name), used, capacity
}

// room tells why a running pod cannot have its new size.
func (k *Kubelet) room(pod *v1.Pod, active []*v1.Pod) *lifecycle.Failure {
	if isStatic(pod) {
		return &lifecycle.Failure{Reason: v1.PodReasonInfeasible, Message: "In-place resize of static-pods is not supported"}
	}
	if was := k.pods.ByUID(string(pod.UID)); was != nil {
		if f := k.managers.fixed(pod, was); f != nil {
			return f
		}
	}
	for _, name := range k.counted(pod) {
		switch want, used, capacity := k.fits(pod, active, name); {
		case want > capacity:
			return &lifecycle.Failure{Reason: v1.PodReasonInfeasible, Message: fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, want, capacity)}
		case want > 0 && used+want > capacity:
			return &lifecycle.Failure{Reason: v1.PodReasonDeferred, Message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, want, used, capacity)}
		}
	}
	return nil
}

// request is what a pod asks of a resource: its own figure, or its containers together, or its largest init
// container; and the overhead of its runtime class. cpu in milli.
func request(pod *v1.Pod, name v1.ResourceName) int64 {
	of := func(c v1.Container) int64 {
		q := c.Resources.Requests[name]
		if name == v1.ResourceCPU {
			return q.MilliValue()
		}
		return q.Value()
	}
	sum, most := int64(0), int64(0)
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			sum += of(c)
		} else {
			most = max(most, sum+of(c))
		}
	}
	for _, c := range pod.Spec.Containers {
		sum += of(c)
	}
	sum = max(sum, most)
	if r := pod.Spec.Resources; r != nil {
		if q, ok := r.Requests[name]; ok {
			if sum = q.Value(); name == v1.ResourceCPU {
				sum = q.MilliValue()
			}
		}
	}
	if over, ok := pod.Spec.Overhead[name]; ok {
		if name == v1.ResourceCPU {
			return sum + over.MilliValue()
		}
		return sum + over.Value()
	}
	return sum
}

// readResolv reads a resolv.conf; a missing one is empty.
func readResolv(path string) *runtimeapi.DNSConfig {
	out := &runtimeapi.DNSConfig{}
	if path == "" {
		return out
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return out
	}
	for _, line := range strings.Split(string(raw), "\n") {
		w := strings.Fields(line)
		if len(w) < 2 {
			continue
		}
		switch w[0] {
		case "nameserver":
			out.Servers = append(out.Servers, w[1])
		case "search":
			out.Searches = w[1:]
		case "options":
			out.Options = w[1:]
		}
	}
	return out
}
