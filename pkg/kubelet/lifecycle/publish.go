package lifecycle

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
)

func (w *worker) publish(s Snapshot, p Plan) {
	health, runtime := w.m.cfg.Resources.Health(s.Pod), w.m.cfg.Runtime()
	w.mu.Lock()
	w.pausing = map[string]string{}
	for name, d := range p.Backoff {
		w.pausing[name] = fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", d, name, s.Pod.Name, s.Pod.Namespace, s.Pod.UID)
	}
	s.Busy = w.busyLocked()
	v := View{Snapshot: s, Runtime: runtime, Waiting: w.waiting, Backoff: w.pausing, HostIPs: w.m.cfg.HostIPs, Messages: w.messages, Sizes: map[string][2]sized{}, ResizePending: w.pending, Resizing: w.progress, Size: w.size, Health: health}
	for id, have := range w.sizesLocked() {
		if c := specOf(s.Pod, w.seen[id].Name); c != nil {
			v.Sizes[id] = [2]sized{have, sizeOf(w.resources(s.Pod, c))}
		}
	}
	old := w.status
	// Conditions of others (readiness gates) come with the pod from its source.
	old.Conditions = mergeForeign(old.Conditions, s.Pod.Status.Conditions)
	w.status = podStatus(v, old)
	st := w.status
	w.ranLocked(old.Phase)
	w.mu.Unlock()
	w.m.cfg.Statuses.Set(s.Pod, st)
	for name := range p.Backoff {
		w.event(s.Pod, v1.EventTypeWarning, "BackOff", "Back-off restarting failed container "+name+" in pod "+s.Pod.Name+"_"+s.Pod.Namespace+"("+w.uid+")", name)
	}
}

// mergeForeign is mine, with every condition the kubelet does not own taken from the source's newest.
func mergeForeign(mine, source []v1.PodCondition) []v1.PodCondition {
	own := map[v1.PodConditionType]bool{v1.PodReadyToStartContainers: true, v1.PodInitialized: true, v1.PodReady: true, v1.ContainersReady: true,
		v1.PodResizePending: true, v1.PodResizeInProgress: true, v1.AllContainersRestarting: true}
	var out []v1.PodCondition
	for _, c := range mine {
		if own[c.Type] {
			out = append(out, c)
		}
	}
	scheduled := false
	for _, c := range source {
		scheduled = scheduled || c.Type == v1.PodScheduled
		if !own[c.Type] {
			out = append(out, c)
		}
	}
	for _, c := range mine {
		// A static pod's source says nothing of scheduling.
		if c.Type == v1.PodScheduled && !scheduled {
			out = append(out, c)
		}
	}
	return out
}

// event records one on the pod, or on one of its containers.
func (w *worker) event(pod *v1.Pod, kind, reason, message string, container ...string) {
	ref := &v1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
	if len(container) > 0 {
		field := "spec.containers{" + container[0] + "}"
		if isInit(pod, container[0]) {
			field = "spec.initContainers{" + container[0] + "}"
		}
		ref.FieldPath = field
	}
	w.m.cfg.Recorder.Event(ref, kind, reason, message)
}
