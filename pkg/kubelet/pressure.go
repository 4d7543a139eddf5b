package kubelet

import (
	"context"
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"golang.org/x/sys/unix"

	"github.com/sextant-k8s/sextant/pkg/kubelet/eviction"
	"github.com/sextant-k8s/sextant/pkg/kubelet/imagegc"
	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
	"github.com/sextant-k8s/sextant/pkg/kubelet/usage"
)

// guard starts what keeps the node from filling up: the collector of images and the evictor of pods.
func (k *Kubelet) guard(ctx context.Context, wg *sync.WaitGroup, event func(kind, reason, message string)) {
	cfg := k.cfg.Kubelet
	images := imagegc.New(imagegc.Config{CRI: k.cri, High: int(*cfg.ImageGCHighThresholdPercent), Low: int(*cfg.ImageGCLowThresholdPercent),
		MinAge: cfg.ImageMinimumGCAge.Duration, MaxAge: cfg.ImageMaximumGCAge.Duration, Listed: k.pulled.Keep, Event: event, Log: k.log})
	k.eviction = eviction.New(eviction.Config{Thresholds: k.cfg.thresholds, Transition: cfg.EvictionPressureTransitionPeriod.Duration, MaxGrace: int64(cfg.EvictionMaxPodGracePeriod),
		Observe: k.observe, Pods: k.pods.Pods, Log: k.log,
		Measure: func(ctx context.Context) (*stats.Summary, error) { return k.usage.Summary(ctx, true) },
		Folder: func(pod *v1.Pod, volume string) int64 {
			path, err := k.volumes.HostPath(pod, volume)
			if err != nil {
				return 0
			}
			n, _ := k.usage.Measure(path)
			return int64(n)
		},
		Reclaim: func(ctx context.Context) {
			event(v1.EventTypeWarning, "EvictionThresholdMet", "Attempting to reclaim ephemeral-storage")
			if err := images.Free(ctx); err != nil {
				k.log.Warn("freeing images", "err", err)
			}
		},
		Evict: func(pod *v1.Pod, signal, message string, grace int64) {
			// Its figures were taken this moment.
			k.metrics.Evicted(signal, 0)
			k.log.Warn("evicting a pod", "pod", pod.Namespace+"/"+pod.Name, "why", message)
			k.recorder.Event(&v1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}, v1.EventTypeWarning, "Evicted", message)
			k.pods.Fail(string(pod.UID), lifecycle.Failure{Reason: "Evicted", Message: message, Grace: &grace})
		},
		Changed: func() {
			if k.node != nil {
				k.node.Poke()
			}
		}})
	wg.Go(func() { images.Run(ctx) })
	wg.Go(func() { k.eviction.Run(ctx) })
}

// observe is what is left of what pods may use up.
func (k *Kubelet) observe(ctx context.Context) map[eviction.Signal]eviction.Observation {
	out := map[eviction.Signal]eviction.Observation{}
	if m := usage.Memory(); m["MemTotal"] > 0 {
		out[eviction.MemoryAvailable] = eviction.Observation{Available: int64(m["MemAvailable"]), Capacity: int64(m["MemTotal"])}
	}
	if most, running, ok := usage.Processes(); ok {
		out[eviction.PIDAvailable] = eviction.Observation{Available: most - running, Capacity: most}
	}
	disk := func(path string, bytes, inodes eviction.Signal) {
		var fs unix.Statfs_t
		if path == "" || unix.Statfs(path, &fs) != nil {
			return
		}
		out[bytes] = eviction.Observation{Available: int64(fs.Bavail) * fs.Bsize, Capacity: int64(fs.Blocks) * fs.Bsize}
		out[inodes] = eviction.Observation{Available: int64(fs.Ffree), Capacity: int64(fs.Files)}
	}
	disk(k.cfg.Flags.RootDir, eviction.NodeFsAvailable, eviction.NodeFsInodes)
	disk(k.imageDisk(ctx), eviction.ImageFsAvailable, eviction.ImageFsInodes)
	return out
}

// imageDisk is where images lie; the runtime is asked until it has told once.
func (k *Kubelet) imageDisk(ctx context.Context) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.imagesAt == "" {
		if r, err := k.cri.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{}); err == nil && len(r.ImageFilesystems) > 0 {
			k.imagesAt = r.ImageFilesystems[0].GetFsId().GetMountpoint()
		}
	}
	return k.imagesAt
}

// underPressure refuses new pods which would make a shortage worse: all on a full disk, those that promised nothing when
// memory or process numbers are short. Pods which hold the node up are always taken.
func (k *Kubelet) underPressure(pod *v1.Pod) *lifecycle.Failure {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= 2000000000 {
		return nil
	}
	refuse := func(c v1.NodeConditionType) *lifecycle.Failure {
		return &lifecycle.Failure{Reason: "Evicted", Message: fmt.Sprintf("The node had condition: [%s]. ", c)}
	}
	tolerated := false
	for _, t := range pod.Spec.Tolerations {
		tolerated = tolerated || (t.Key == v1.TaintNodeMemoryPressure || t.Key == "" && t.Operator == v1.TolerationOpExists) && (t.Effect == "" || t.Effect == v1.TaintEffectNoSchedule)
	}
	switch {
	case k.eviction.Under(v1.NodeDiskPressure):
		return refuse(v1.NodeDiskPressure)
	case k.eviction.Under(v1.NodePIDPressure):
		return refuse(v1.NodePIDPressure)
	case k.eviction.Under(v1.NodeMemoryPressure) && lifecycle.QOS(pod) == v1.PodQOSBestEffort && !tolerated:
		return refuse(v1.NodeMemoryPressure)
	}
	return nil
}
