package lifecycle

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// resizeAgain is how often a resize that has no room is looked at again.
const resizeAgain = 3 * time.Second

// grant decides about sizes which changed in the spec: what fits becomes the pod's, what does not waits. It answers when
// to ask again, zero when there is nothing to ask.
func (w *worker) grant() time.Time {
	w.mu.Lock()
	source, now := w.source, now()
	idle := !w.deadline.IsZero() || w.failure != nil || terminal(w.status.Phase) || !w.admitted || apiequality.Semantic.DeepEqual(allot(source), w.granted)
	if idle {
		w.pending = nil
	}
	w.mu.Unlock()
	if idle {
		return time.Time{}
	}
	w.m.room.Lock() // of two that grow at once, the second counts with what the first got
	refused := w.m.cfg.Room(source, w.m.active(w.uid))
	w.mu.Lock()
	said := w.pending != nil && refused != nil && w.pending.Reason == refused.Reason
	w.pending = refused
	if refused == nil && w.source == source {
		w.resizes(w.granted, allot(source))
		w.times.resized = now
		w.granted, w.pod, w.resizing = allot(source), source, true
	}
	w.mu.Unlock()
	w.m.room.Unlock()
	switch {
	case refused == nil:
		w.event(source, v1.EventTypeNormal, "ResizeStarted", resizeText("started", source))
		return time.Time{}
	case !said:
		w.event(source, v1.EventTypeWarning, "Resize"+refused.Reason, refused.Message)
	}
	return now.Add(resizeAgain)
}

// sizes tells, by container ID, how large what runs is; what was set last counts before what the runtime remembers.
func (w *worker) sizesLocked() map[string]sized {
	out := map[string]sized{}
	for _, c := range w.observed.alive() {
		if s, ok := w.applied[c.ID]; ok {
			out[c.ID] = s
		} else if c.Resources != nil {
			out[c.ID] = sizeOf(c.Resources)
		}
	}
	return out
}

// resize brings the running containers to their granted sizes: what grows is given room in the pod's cgroup first, what
// shrinks gives it back last. Those which want a restart are left to decide. It answers when to try again.
func (w *worker) resize(ctx context.Context) time.Time {
	w.mu.Lock()
	on, pod, have, observed := w.resizing, w.pod, w.sizesLocked(), w.observed
	on = on && w.deadline.IsZero() && w.failure == nil && !w.busy
	w.mu.Unlock()
	if !on {
		return time.Time{}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := w.m.cfg.Cgroups.Resize(pod, true)
	restarting := false
	w.mu.Lock()
	w.restart = map[string]bool{}
	w.mu.Unlock()
	for _, c := range resizable(pod) {
		l := observed.Latest(c.Name)
		if l == nil || l.State != Running || err != nil {
			continue
		}
		res := w.resources(pod, &c)
		want, is := sizeOf(res), have[l.ID]
		if _, known := have[l.ID]; known && is == want {
			continue
		} else if known && mustRestart(&c, is, want) {
			restarting = true
			w.mu.Lock()
			w.restart[l.ID] = true
			w.mu.Unlock()
			continue
		}
		if _, err = w.m.cfg.CRI.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: l.ID, Linux: res}); err == nil {
			w.mu.Lock()
			w.applied[l.ID] = want
			w.mu.Unlock()
		}
	}
	if err == nil && !restarting {
		err = w.m.cfg.Cgroups.Resize(pod, false)
	}
	w.mu.Lock()
	w.progress = &Failure{}
	switch {
	case err != nil:
		w.progress = &Failure{Reason: v1.PodReasonError, Message: cri.Text(err)}
	case !restarting:
		w.progress, w.resizing, w.size = nil, false, allot(pod)[""]
	}
	begun := w.times.resized
	w.mu.Unlock()
	switch {
	case err != nil:
		w.m.cfg.Metrics.Resized(now().Sub(begun), false)
		w.log.Warn("resizing", "err", err)
		return now().Add(resizeAgain)
	case restarting:
		return time.Time{}
	default:
		w.m.cfg.Metrics.Resized(now().Sub(begun), true)
		w.event(pod, v1.EventTypeNormal, "ResizeCompleted", resizeText("completed", pod))
	}
	return time.Time{}
}
