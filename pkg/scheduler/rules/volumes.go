package rules

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/storage/volume"
)

// volumeBinding holds a pod to the nodes that reach the volumes its claims are bound to, or on which volumes for the others are to be had.
var volumeBinding = &Plugin{Name: "VolumeBinding", Points: []Point{PreFilter, Filter, Reserve, PreBind, PreScore, Score},
	Helps: NodeAdded | NodeChanged | PodGone | StorageChanged, Prepare: func(v *View) Part {
		if len(v.class.claims) == 0 {
			return Part{}
		}
		s := v.table.Storage
		bound, waiting, problem := s.split(v.class)
		if problem != "" {
			return Part{Refuse: &Verdict{Plugin: "VolumeBinding", Reasons: []string{problem}, Final: true, Advice: "see to the claim: kubectl describe pvc"}}
		}
		known := map[[4]bool]*Verdict{}
		return Part{Check: func(r int32) *Verdict {
			n := v.table.rows[r].node
			var faults [4]bool
			for _, pvc := range bound {
				pv := s.volumes[pvc.Spec.VolumeName]
				if pv == nil {
					faults[3] = true
				} else if volume.CheckNodeAffinity(pv, n.Labels) != nil {
					faults[0] = true
				}
			}
			if len(waiting) > 0 {
				_, faults[1], faults[2] = s.place(waiting, n)
			}
			if faults == [4]bool{} {
				return nil
			}
			no := known[faults]
			if no == nil {
				no = &Verdict{Plugin: "VolumeBinding", Final: true, Advice: "the volumes of the pod's claims are elsewhere: make volumes for this node, or see the claims' storage class"}
				for i, reason := range []string{"node(s) didn't match PersistentVolume's node affinity", "node(s) didn't find available persistent volumes to bind",
					"node(s) did not have enough free storage", "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"} {
					if faults[i] {
						no.Reasons = append(no.Reasons, reason)
					}
				}
				known[faults] = no
			}
			return no
		}}
	}}

// volumeZone holds a pod to the zones that the labels of its volumes name.
var volumeZone = &Plugin{Name: "VolumeZone", Points: []Point{PreFilter, Filter}, Helps: NodeAdded | NodeChanged | StorageChanged, Prepare: func(v *View) Part {
	type zone struct {
		key, older string
		values     []string
	}
	var zones []zone
	for _, u := range v.class.claims {
		pvc := v.table.Storage.claims[v.class.Namespace+"/"+u.name]
		if pvc == nil || pvc.Spec.VolumeName == "" {
			continue
		}
		pv := v.table.Storage.volumes[pvc.Spec.VolumeName]
		if pv == nil {
			continue
		}
		for _, key := range zoneLabels {
			if value, ok := pv.Labels[key[0]]; ok {
				zones = append(zones, zone{key[0], key[1], strings.Split(value, "__")})
			}
		}
	}
	if len(zones) == 0 {
		return Part{}
	}
	wrong := &Verdict{Plugin: "VolumeZone", Reasons: []string{"node(s) had no available volume zone"}, Final: true, Advice: "the pod's volumes are in other zones"}
	return Part{Check: func(r int32) *Verdict {
		l := v.table.rows[r].node.Labels
		if !slices.ContainsFunc(zoneLabels, func(key [2]string) bool { return l[key[0]] != "" }) {
			return nil // a cluster without zones
		}
		for _, z := range zones {
			value, ok := l[z.key]
			if !ok {
				value, ok = l[z.older]
			}
			if !ok || !slices.Contains(z.values, value) {
				return wrong
			}
		}
		return nil
	}}
}}

// zoneLabels are the labels that name zones and regions, each with its other spelling.
var zoneLabels = [][2]string{
	{v1.LabelTopologyZone, v1.LabelFailureDomainBetaZone}, {v1.LabelTopologyRegion, v1.LabelFailureDomainBetaRegion},
	{v1.LabelFailureDomainBetaZone, v1.LabelTopologyZone}, {v1.LabelFailureDomainBetaRegion, v1.LabelTopologyRegion},
}

// volumeRestrictions keeps disks that one pod may write from a second, and claims that one pod may use.
var volumeRestrictions = &Plugin{Name: "VolumeRestrictions", Points: []Point{PreFilter, Filter}, Helps: NodeAdded | PodGone | StorageChanged, Prepare: func(v *View) Part {
	s := v.table.Storage
	var alone []string
	for _, u := range v.class.claims {
		key := v.class.Namespace + "/" + u.name
		if pvc := s.claims[key]; pvc != nil && exclusive(pvc) {
			alone = append(alone, key)
		}
	}
	disks := v.class.disks
	if len(alone)+len(disks) == 0 {
		return Part{}
	}
	shared := &Verdict{Plugin: "VolumeRestrictions", Reasons: []string{"node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"},
		Advice: "end the pod that uses the claim"}
	held := &Verdict{Plugin: "VolumeRestrictions", Reasons: []string{"node(s) had no available disk"}, Advice: "end the pod that uses the disk"}
	return Part{Check: func(r int32) *Verdict {
		if len(disks) > 0 {
			for _, p := range v.table.rows[r].pods {
				for i := range p.Class.disks {
					if slices.ContainsFunc(disks, func(d v1.Volume) bool { return sameDisk(&d, &p.Class.disks[i]) }) {
						return held
					}
				}
			}
		}
		for _, key := range alone {
			if s.users[key] > 0 {
				return shared
			}
		}
		return nil
	}}
}}

// sameDisk says whether two volumes are one disk that cannot be used twice.
func sameDisk(a, b *v1.Volume) bool {
	switch {
	case a.GCEPersistentDisk != nil && b.GCEPersistentDisk != nil:
		x, y := a.GCEPersistentDisk, b.GCEPersistentDisk
		return x.PDName == y.PDName && (!x.ReadOnly || !y.ReadOnly)
	case a.AWSElasticBlockStore != nil && b.AWSElasticBlockStore != nil:
		return a.AWSElasticBlockStore.VolumeID == b.AWSElasticBlockStore.VolumeID
	case a.ISCSI != nil && b.ISCSI != nil:
		x, y := a.ISCSI, b.ISCSI
		return x.IQN == y.IQN && (!x.ReadOnly || !y.ReadOnly)
	case a.RBD != nil && b.RBD != nil:
		x, y := a.RBD, b.RBD
		return x.RBDImage == y.RBDImage && x.RBDPool == y.RBDPool && (!x.ReadOnly || !y.ReadOnly) &&
			slices.ContainsFunc(x.CephMonitors, func(m string) bool { return slices.Contains(y.CephMonitors, m) })
	}
	return false
}

// nodeVolumeLimits refuses nodes whose driver can attach no more volumes.
var nodeVolumeLimits = &Plugin{Name: "NodeVolumeLimits", Points: []Point{PreFilter, Filter}, Helps: NodeAdded | PodGone | StorageChanged, Prepare: func(v *View) Part {
	s := v.table.Storage
	wanted := map[string]map[string]bool{} // driver -> handles
	s.attached(v.class, wanted)
	if len(wanted) == 0 {
		return Part{}
	}
	full := &Verdict{Plugin: "NodeVolumeLimits", Reasons: []string{"node(s) exceed max volume count"}, Advice: "end a pod with volumes of the same driver on the node"}
	return Part{Check: func(r int32) *Verdict {
		node := s.nodes[v.table.rows[r].name]
		if node == nil {
			return nil
		}
		var there map[string]map[string]bool
		for _, d := range node.Spec.Drivers {
			if d.Allocatable == nil || d.Allocatable.Count == nil || len(wanted[d.Name]) == 0 {
				continue
			}
			if there == nil {
				there = map[string]map[string]bool{}
				for _, p := range v.table.rows[r].pods {
					s.attached(p.Class, there)
				}
			}
			more := 0
			for handle := range wanted[d.Name] {
				if !there[d.Name][handle] {
					more++
				}
			}
			if more > 0 && len(there[d.Name])+more > int(*d.Allocatable.Count) {
				return full
			}
		}
		return nil
	}}
}}

// attached adds the volumes that pods of a class attach, by driver. A claim without a volume counts for the driver that will make it.
func (s *Storage) attached(c *Class, out map[string]map[string]bool) {
	for _, u := range c.claims {
		pvc := s.claims[c.Namespace+"/"+u.name]
		if pvc == nil {
			continue
		}
		driver, handle := "", ""
		if pv := s.volumes[pvc.Spec.VolumeName]; pv != nil {
			if pv.Spec.CSI == nil {
				continue
			}
			driver, handle = pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle
		} else if class := s.classes[volume.GetPersistentVolumeClaimClass(pvc)]; class != nil {
			driver, handle = class.Provisioner, fmt.Sprintf("%s-%s/%s", class.Provisioner, pvc.Namespace, pvc.Name)
		}
		if driver == "" || driver == noProvisioner {
			continue
		}
		if out[driver] == nil {
			out[driver] = map[string]bool{}
		}
		out[driver][handle] = true
	}
}
