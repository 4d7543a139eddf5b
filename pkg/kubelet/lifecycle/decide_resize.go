package lifecycle

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podresource "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Allotment is what of each container, by name, the node has granted; "" is the pod's own.
type Allotment map[string]v1.ResourceRequirements

// allot reads what a spec asks for.
func allot(pod *v1.Pod) Allotment {
	out := Allotment{}
	for _, c := range resizable(pod) {
		out[c.Name] = c.Resources
	}
	if pod.Spec.Resources != nil {
		out[""] = *pod.Spec.Resources
	}
	return out
}

// resizable are the containers which can change size while they run.
func resizable(pod *v1.Pod) []v1.Container {
	return slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
}

// granted is what an adopted pod was granted by an earlier kubelet, by its status; for a new pod it is what it asks for.
func granted(pod *v1.Pod) Allotment {
	// What waits for a size has not been given it, though it does not run at the moment.
	out, waits := allot(pod), shown(pod.Status, v1.PodResizePending)
	for _, list := range [][]v1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, cs := range list {
			r, ok := out[cs.Name]
			if !ok || cs.AllocatedResources == nil || cs.Resources == nil || cs.State.Running == nil && !waits {
				continue
			}
			r.Requests, r.Limits = cs.AllocatedResources, cs.Resources.Limits
			out[cs.Name] = r
		}
	}
	if r, ok := out[""]; ok {
		switch has := pod.Status.Resources; {
		case has != nil:
			if r.Limits = has.Limits; len(r.Requests) > 0 {
				r.Requests = pod.Status.AllocatedResources
			}
			out[""] = r
		case waits:
			// The pod had no size of its own before, and has not been given one yet.
			delete(out, "")
		}
	}
	return out
}

// shown tells whether a status has a condition which is true.
func shown(st v1.PodStatus, t v1.PodConditionType) bool {
	return slices.ContainsFunc(st.Conditions, func(c v1.PodCondition) bool { return c.Type == t && c.Status == v1.ConditionTrue })
}

// allotted is the pod as granted: its spec with granted sizes in the place of wanted ones.
func allotted(pod *v1.Pod, a Allotment) *v1.Pod {
	if apiequality.Semantic.DeepEqual(allot(pod), a) {
		return pod
	}
	out := *pod
	put := func(list []v1.Container) []v1.Container {
		list = append([]v1.Container(nil), list...)
		for i := range list {
			if r, ok := a[list[i].Name]; ok {
				list[i].Resources = r
			}
		}
		return list
	}
	out.Spec.InitContainers, out.Spec.Containers = put(pod.Spec.InitContainers), put(pod.Spec.Containers)
	out.Spec.Resources = nil
	if r, ok := a[""]; ok {
		out.Spec.Resources = &r
	}
	return &out
}

// sized is how large a container is in the runtime.
type sized struct{ shares, quota, period, memory int64 }

func sizeOf(r *runtimeapi.LinuxContainerResources) sized {
	s := sized{shares: r.GetCpuShares(), quota: max(r.GetCpuQuota(), 0), period: r.GetCpuPeriod(), memory: max(r.GetMemoryLimitInBytes(), 0)}
	if s.quota == 0 || s.period == 0 {
		s.period = 100000
	}
	return s
}

// mustRestart tells whether a change of size asks for a restart, by the container's own policy for each resource.
func mustRestart(c *v1.Container, have, want sized) bool {
	for _, p := range c.ResizePolicy {
		if p.RestartPolicy != v1.RestartContainer {
			continue
		}
		switch p.ResourceName {
		case v1.ResourceCPU:
			if have.shares != want.shares || have.quota != want.quota {
				return true
			}
		case v1.ResourceMemory:
			if have.memory != want.memory {
				return true
			}
		}
	}
	return false
}

// actual is what a container has now: as granted where the runtime agrees, else what the runtime says. What a container takes
// over from its pod, having no figure of its own, is not told of as its own.
func actual(r v1.ResourceRequirements, have, want sized) v1.ResourceRequirements {
	if have == want {
		return r
	}
	out := v1.ResourceRequirements{Requests: maps.Clone(r.Requests), Limits: maps.Clone(r.Limits), Claims: r.Claims}
	set := func(l *v1.ResourceList, name v1.ResourceName, q *resource.Quantity) {
		if *l == nil {
			*l = v1.ResourceList{}
		}
		(*l)[name] = *q
	}
	own := func(l v1.ResourceList, name v1.ResourceName) bool { _, ok := l[name]; return ok }
	if have.shares != want.shares && have.shares > 2 && (own(r.Requests, v1.ResourceCPU) || own(r.Limits, v1.ResourceCPU)) {
		set(&out.Requests, v1.ResourceCPU, resource.NewMilliQuantity((have.shares*1000+1023)/1024, resource.DecimalSI))
	}
	if have.quota != want.quota && own(r.Limits, v1.ResourceCPU) {
		if delete(out.Limits, v1.ResourceCPU); have.quota > 0 {
			set(&out.Limits, v1.ResourceCPU, resource.NewMilliQuantity(have.quota*1000/have.period, resource.DecimalSI))
		}
	}
	if have.memory != want.memory && own(r.Limits, v1.ResourceMemory) {
		if delete(out.Limits, v1.ResourceMemory); have.memory > 0 {
			set(&out.Limits, v1.ResourceMemory, resource.NewQuantity(have.memory, resource.BinarySI))
		}
	}
	return out
}

// resizeConditions are shown while a change of size waits, or is being carried out.
func resizeConditions(v View, st *v1.PodStatus, old v1.PodStatus, now metav1.Time) {
	set := func(t v1.PodConditionType, f *Failure, generation int64) {
		if f == nil || v.ending() {
			return
		}
		c := v1.PodCondition{Type: t, Status: v1.ConditionTrue, Reason: f.Reason, Message: f.Message, LastTransitionTime: now, LastProbeTime: now, ObservedGeneration: generation}
		for _, o := range old.Conditions {
			if o.Type == t && o.Reason == c.Reason && o.Message == c.Message {
				c.LastTransitionTime, c.LastProbeTime = o.LastTransitionTime, o.LastProbeTime
			}
		}
		st.Conditions = append(st.Conditions, c)
	}
	set(v1.PodResizePending, v.ResizePending, v.Pod.Generation)
	set(v1.PodResizeInProgress, v.Resizing, v.Pod.Generation)
}

// podSize tells what of its own size a pod was granted, and what of it has been carried out.
func podSize(v View, st *v1.PodStatus) {
	r := v.Pod.Spec.Resources
	if r == nil || len(r.Requests)+len(r.Limits) == 0 {
		return
	}
	if st.AllocatedResources = r.Requests; len(r.Requests) == 0 {
		st.AllocatedResources = podresource.PodRequests(v.Pod, podresource.PodResourcesOptions{SkipPodLevelResources: true, ExcludeOverhead: true})
	}
	st.Resources = &v1.ResourceRequirements{Requests: v.Size.Requests, Limits: v.Size.Limits}
}

// resizeText is the message of a resize event: the sizes of the pod's containers, and its own if it has one.
func resizeText(what string, pod *v1.Pod) string {
	type one struct {
		Name      string                  `json:"name"`
		Resources v1.ResourceRequirements `json:"resources"`
	}
	text := struct {
		Containers []one                    `json:"containers,omitempty"`
		Resources  *v1.ResourceRequirements `json:"resources,omitempty"`
		Generation int64                    `json:"generation"`
	}{Resources: pod.Spec.Resources, Generation: pod.Generation}
	for _, c := range resizable(pod) {
		text.Containers = append(text.Containers, one{c.Name, c.Resources})
	}
	raw, err := json.Marshal(text)
	if err != nil {
		return what
	}
	return fmt.Sprintf("Pod resize %s: %s", what, raw)
}
