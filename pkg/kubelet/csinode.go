package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"sort"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// driverStats are a driver's figures of the volume at a path.
func (k *Kubelet) driverStats(path string) *stats.FsStats {
	s, ok := k.drivers.Stats(path)
	if !ok {
		return nil
	}
	out := &stats.FsStats{Time: metav1.Now()}
	for _, f := range []struct {
		to    **uint64
		value uint64
		told  bool
	}{{&out.CapacityBytes, s.Capacity, s.Capacity > 0}, {&out.AvailableBytes, s.Available, s.Capacity > 0}, {&out.UsedBytes, s.Used, s.Capacity > 0},
		{&out.Inodes, s.Inodes, s.Inodes > 0}, {&out.InodesFree, s.InodesFree, s.Inodes > 0}, {&out.InodesUsed, s.InodesUse, s.Inodes > 0}} {
		if f.told {
			*f.to = &f.value
		}
	}
	return out
}

// tellDrivers writes the node's CSINode, and the annotation by which attachers find the node's ID with each driver.
func (k *Kubelet) tellDrivers(ctx context.Context, drivers []storagev1.CSINodeDriver) error {
	if k.client == nil {
		return nil
	}
	node := k.node.Object()
	if node == nil {
		return errors.New("the node is not registered yet")
	}
	sort.Slice(drivers, func(i, j int) bool { return drivers[i].Name < drivers[j].Name })
	if drivers == nil {
		drivers = []storagev1.CSINodeDriver{}
	}
	have, err := k.client.CSINodes.Get(ctx, "", k.cfg.NodeName)
	switch {
	case apierrors.IsNotFound(err):
		_, err = k.client.CSINodes.Create(ctx, "", &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: k.cfg.NodeName,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}}, Spec: storagev1.CSINodeSpec{Drivers: drivers}})
	case err == nil && !apiequality.Semantic.DeepEqual(have.Spec.Drivers, drivers):
		have.Spec.Drivers = drivers
		_, err = k.client.CSINodes.Update(ctx, "", have.Name, have)
	}
	if err != nil {
		return err
	}
	ids := map[string]string{}
	for _, d := range drivers {
		ids[d.Name] = d.NodeID
	}
	const annotation = "csi.volume.kubernetes.io/nodeid"
	old := map[string]string{}
	if raw := node.Annotations[annotation]; raw != "" {
		_ = json.Unmarshal([]byte(raw), &old) // what cannot be read is written anew
	}
	if maps.Equal(old, ids) {
		return nil
	}
	raw, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{annotation: string(raw)}}})
	if err != nil {
		return err
	}
	if _, err = k.client.Nodes.Patch(ctx, "", k.cfg.NodeName, types.StrategicMergePatchType, patch); err == nil {
		k.node.Refresh(ctx)
	}
	return err
}
