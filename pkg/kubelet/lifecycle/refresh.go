package lifecycle

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
)

// refreshVolumes writes what the API changed in configMaps, secrets and tokens; it answers when to do so again.
func (w *worker) refreshVolumes(ctx context.Context, s Snapshot) time.Time {
	if !s.Deadline.IsZero() || s.Failure != nil || s.Busy || s.Observed.ready() == nil || !refreshes(s.Pod) {
		return time.Time{}
	}
	every := w.m.cfg.Refresh
	if next := w.refresh.Add(every); s.Now.Before(next) {
		return next
	}
	w.refresh = s.Now
	if err := w.m.cfg.Volumes.Setup(ctx, s.Pod); err != nil {
		w.event(s.Pod, v1.EventTypeWarning, "FailedMount", err.Error())
	}
	return s.Now.Add(every)
}

func refreshes(pod *v1.Pod) bool {
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil || v.PersistentVolumeClaim != nil || v.Ephemeral != nil || v.CSI != nil {
			return true
		}
	}
	return false
}
