package lifecycle

import (
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
)

// times are what a pod's metrics are made from.
type times struct {
	// arrived is when the worker began; fresh: the pod has not run before, stepped: it had its first step.
	arrived        time.Time
	fresh, stepped bool
	// apart is how long the start was held up by pulls.
	apart time.Duration
	// resized is when the change of size now carried out was granted.
	resized time.Time
}

// kindOf is the kind of a container as metrics call it.
func kindOf(pod *v1.Pod, name string) string {
	if isInit(pod, name) {
		return "init_container"
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if c.Name == name {
			return "ephemeral_container"
		}
	}
	return "container"
}

// stepped tells of a step that began then.
func (w *worker) stepped(begun time.Time) {
	w.mu.Lock()
	kind := "sync"
	switch {
	case !w.times.stepped:
		kind = "create"
		w.m.cfg.Metrics.Arrived(begun.Sub(w.times.arrived), len(w.pod.Spec.Containers)+len(w.pod.Spec.InitContainers))
	case !w.deadline.IsZero() || w.failure != nil:
		kind = "kill"
	}
	w.times.stepped = true
	w.mu.Unlock()
	w.m.cfg.Metrics.Stepped(kind, now().Sub(begun))
}

// ranLocked tells of a pod which has come to run, once.
func (w *worker) ranLocked(old v1.PodPhase) {
	if !w.times.fresh || old == v1.PodRunning || w.status.Phase != v1.PodRunning {
		return
	}
	w.times.fresh = false
	apart := w.times.apart
	for _, cs := range w.status.InitContainerStatuses {
		if t := cs.State.Terminated; t != nil {
			apart += t.FinishedAt.Sub(t.StartedAt.Time)
		}
	}
	created := now().Sub(w.pod.CreationTimestamp.Time)
	if w.pod.CreationTimestamp.IsZero() {
		created = now().Sub(w.times.arrived)
	}
	w.m.cfg.Metrics.Running(now().Sub(w.times.arrived), created, apart)
	if !w.pod.Spec.HostNetwork {
		w.m.networked.Do(func() { w.m.cfg.Metrics.FirstNetwork(max(created-apart, 0)) })
	}
}

// died tells of a container's end, if it was seen alive.
func (w *worker) died(c Container) {
	if w.times.stepped {
		reason := c.Reason
		if reason == "" {
			reason = "Completed"
		}
		w.m.cfg.Metrics.Ended(kindOf(w.pod, c.Name), c.ExitCode, reason)
	}
}

func (w *worker) pulled(bytes uint64, took time.Duration) {
	w.m.cfg.Metrics.Pulled(bytes, took)
	w.mu.Lock()
	w.times.apart += took
	w.mu.Unlock()
}

func (w *worker) probed(kind string, ok bool, err error, container string, pod *v1.Pod, took time.Duration) {
	result := "successful"
	switch {
	case err != nil:
		result = "unknown"
	case !ok:
		result = "failed"
	}
	w.m.cfg.Metrics.Probed(kind, result, container, pod, took)
}

// resizes tells which sizes of containers are to change, and which way.
func (w *worker) resizes(old, wanted Allotment) {
	of := func(r v1.ResourceRequirements) map[string]v1.ResourceList {
		return map[string]v1.ResourceList{"limits": r.Limits, "requests": r.Requests}
	}
	for name, want := range wanted {
		have := of(old[name])
		for requirement, list := range of(want) {
			names := maps.Clone(list)
			if names == nil {
				names = v1.ResourceList{}
			}
			maps.Copy(names, have[requirement])
			for resource := range names {
				a, was := have[requirement][resource]
				b, is := list[resource]
				operation := ""
				switch d := b.Cmp(a); {
				case is && !was:
					operation = "add"
				case was && !is:
					operation = "remove"
				case d > 0:
					operation = "increase"
				case d < 0:
					operation = "decrease"
				default:
					continue
				}
				w.m.cfg.Metrics.Resize(string(resource), requirement, operation)
			}
		}
	}
}
