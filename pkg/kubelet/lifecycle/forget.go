package lifecycle

import (
	"context"
	"os"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// interrupt ends the start under way, which finishes what the runtime has begun to make.
func (w *worker) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel()
	}
}

// forgetContainers has the runtime forget containers that have ended, so that the pod starts anew, and counts the crash of the one
// that wanted it. Of the logs of each the newest stays: it is the previous one soon, and it keeps the count of restarts.
func (w *worker) forgetContainers(ctx context.Context, s Snapshot, list []Container) {
	dir := LogDir(w.m.cfg.LogDir, s.Pod)
	rctx, cancel := context.WithTimeout(ctx, runtimeWait)
	defer cancel()
	for _, c := range list {
		if _, err := w.m.cfg.CRI.RemoveContainer(rctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID}); err != nil && !cri.IsNotFound(err) {
			if ctx.Err() == nil {
				w.log.Warn("removing a container, for all to start anew", "container", c.Name, "id", c.ID, "err", err)
			}
			w.failed("", "", "", 0)
			w.poke(true)
			return
		}
		w.unlink(s.Pod, c.Name, c.ID)
		_ = os.Remove(w.messageFile(c.Name, c.Restarts)) // the next one empties its own; the rest goes with the pod
		if err := shedLogs(dir, c.Name); err != nil {
			w.log.Warn("removing logs", "container", c.Name, "err", err)
		}
		w.mu.Lock()
		delete(w.messages, c.ID)
		delete(w.verdicts, c.ID)
		if c.State == Exited {
			w.past[c.Name] = c
		}
		w.mu.Unlock()
	}
	if c := culprit(s); c != nil {
		w.mu.Lock()
		w.backoff[c.Name] = nextBackoff(w.backoff[c.Name], c.Finished.Sub(c.Started), w.m.cfg.MaxBackoff)
		w.mu.Unlock()
	}
	w.poke(true)
}
