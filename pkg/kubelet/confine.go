package kubelet

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
)

// confine keeps running containers on the CPUs they may use now, until ctx ends: what one takes for itself the others leave.
func (m *managers) confine(ctx context.Context) {
	t := time.NewTicker(m.k.cfg.Kubelet.CPUManagerReconcilePeriod.Duration)
	defer t.Stop()
	last := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.moved:
		case <-t.C:
		}
		now := map[string]string{}
		for _, pod := range m.k.pods.Pods() {
			for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
				for i := range list {
					c, ok := m.k.pods.Container(string(pod.UID), list[i].Name, false)
					if !ok || c.State != lifecycle.Running {
						continue
					}
					set, _ := m.cpus.Of(string(pod.UID), list[i].Name)
					if now[c.ID] = set.String(); last[c.ID] == now[c.ID] {
						continue
					}
					if err := m.move(ctx, c.ID, now[c.ID]); err != nil && ctx.Err() == nil {
						m.k.log.Warn("moving a container to other CPUs", "pod", pod.Namespace+"/"+pod.Name, "container", list[i].Name, "err", err)
						delete(now, c.ID)
					}
				}
			}
		}
		last = now
	}
}

func (m *managers) move(ctx context.Context, id, cpus string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := m.k.cri.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{CpusetCpus: cpus}})
	return err
}
