package lifecycle

import (
	"context"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (w *worker) stopSandbox(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if _, err := w.m.cfg.CRI.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		w.log.Warn("stopping the sandbox", "sandbox", id, "err", err)
		time.AfterFunc(time.Second, func() { w.poke(true) })
		return
	}
	w.poke(true)
}

// teardown frees volumes and cgroup; it answers when to try again, zero when all is gone.
func (w *worker) teardown(ctx context.Context, pod *v1.Pod) time.Time {
	w.stopProbes(nil)
	if err := w.m.cfg.Resources.Release(ctx, w.uid); err != nil {
		w.event(pod, v1.EventTypeWarning, "FailedUnprepareDynamicResources", "Failed to unprepare dynamic resources: "+err.Error())
		return now().Add(2 * time.Second)
	}
	err := w.m.cfg.Volumes.Teardown(w.uid)
	if e := w.m.cfg.Cgroups.Destroy(w.uid); err == nil {
		err = e
	}
	if err != nil {
		w.log.Warn("tearing down", "err", err)
		return now().Add(2 * time.Second)
	}
	w.mu.Lock()
	w.torn = true
	w.mu.Unlock()
	w.poke(false)
	return time.Time{}
}

// purge removes the last traces of a deleted pod from runtime and disk, then says so to the API.
func (w *worker) purge(ctx context.Context, pod *v1.Pod) (time.Time, bool) {
	w.mu.Lock()
	gone := w.gone
	o := w.observed
	w.mu.Unlock()
	w.m.cfg.Metrics.Forget(pod)
	if gone {
		w.m.cfg.Statuses.Forget(pod.UID)
	} else {
		w.m.cfg.Statuses.Ended(pod)
	}
	for _, cs := range o.Containers {
		for _, c := range cs {
			_, _ = w.m.cfg.CRI.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID})
			w.unlink(pod, c.Name, c.ID)
		}
	}
	for _, sb := range o.Sandboxes {
		if _, err := w.m.cfg.CRI.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sb.ID}); err != nil && ctx.Err() == nil {
			w.log.Warn("removing the sandbox", "sandbox", sb.ID, "err", err)
		}
	}
	if err := os.RemoveAll(w.m.cfg.Volumes.PodDir(w.uid)); err != nil {
		w.log.Warn("removing the pod's folder", "err", err)
	}
	if pod.Namespace != "" && pod.Name != "" {
		_ = os.RemoveAll(LogDir(w.m.cfg.LogDir, pod))
	}
	return time.Time{}, true
}
