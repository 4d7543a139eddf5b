package volume

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/csi"
)

// grow has the driver take what the control plane has already given a volume. That it cannot is told and tried again; the
// pod runs all the same, for its data is there.
func (m *Manager) grow(ctx context.Context, pod *v1.Pod, name string, v csi.Volume, pvc *v1.PersistentVolumeClaim, pv *v1.PersistentVolume) {
	want, have := pv.Spec.Capacity[v1.ResourceStorage], pvc.Status.Capacity[v1.ResourceStorage]
	if have.IsZero() || want.Cmp(have) <= 0 || v.ReadOnly {
		return
	}
	if pvc.Status.AllocatedResourceStatuses[v1.ResourceStorage] == v1.PersistentVolumeClaimNodeResizeInfeasible {
		return
	}
	err := m.cfg.CSI.Expand(ctx, v, m.PodDir(string(pod.UID)), want.Value(), pv.Spec.CSI.NodeExpandSecretRef)
	infeasible := err != nil && csi.Infeasible(err)
	if err != nil {
		m.cfg.Tell(pod, v1.EventTypeWarning, "VolumeResizeFailed", fmt.Sprintf("NodeExpandVolume failed for volume %q : %v", name, err))
	}
	if err != nil && !infeasible {
		return
	}
	if e := m.cfg.Objects.Grown(ctx, pvc, want, infeasible); e != nil {
		m.cfg.Tell(pod, v1.EventTypeWarning, "VolumeResizeFailed", fmt.Sprintf("writing the capacity of claim %s: %v", pvc.Name, e))
		return
	}
	if err == nil {
		m.cfg.Tell(pod, v1.EventTypeNormal, "FileSystemResizeSuccessful", fmt.Sprintf("MountVolume.NodeExpandVolume succeeded for volume %q", name))
	}
}
