package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// rotateLogs keeps each running container's log below containerLogMaxSize, with containerLogMaxFiles files in all:
// the full file gets a time in its name, and the runtime is told to open a new one.
func (k *Kubelet) rotateLogs(ctx context.Context) {
	size, err := parseQuantity(k.cfg.Kubelet.ContainerLogMaxSize)
	if err != nil || size <= 0 {
		k.log.Warn("container logs are not rotated", "containerLogMaxSize", k.cfg.Kubelet.ContainerLogMaxSize, "err", err)
		return
	}
	t := time.NewTicker(k.cfg.Kubelet.ContainerLogMonitorInterval.Duration)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, p := range k.pods.Pods() {
			for _, c := range append(append(p.Status.InitContainerStatuses[:0:0], p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...) {
				if c.State.Running == nil {
					continue
				}
				if run, ok := k.pods.Container(string(p.UID), c.Name, false); ok && run.LogPath != "" {
					if err := k.rotate(ctx, run.ID, run.LogPath, size, time.Now()); err != nil {
						k.log.Warn("rotating a log", "pod", p.Namespace+"/"+p.Name, "container", c.Name, "err", err)
					}
				}
			}
		}
	}
}

func (k *Kubelet) rotate(ctx context.Context, id, path string, size int64, now time.Time) error {
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() || st.Size() < size {
		return nil
	}
	if err := prune(path, int(*k.cfg.Kubelet.ContainerLogMaxFiles)-2); err != nil {
		return err
	}
	old := path + "." + now.UTC().Format("20060102-150405")
	if err := os.Rename(path, old); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := k.cri.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		// The runtime still writes to the renamed file; give it back its name.
		return fmt.Errorf("reopening: %w (renamed back: %v)", err, os.Rename(old, path))
	}
	return nil
}

// prune removes the oldest rotated files of a log but keep.
func prune(path string, keep int) error {
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return err
	}
	sort.Strings(old)
	for len(old) > max(keep, 0) {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	return nil
}
