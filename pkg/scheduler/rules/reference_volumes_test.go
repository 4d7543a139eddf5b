package rules

import (
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	corev1 "k8s.io/component-helpers/scheduling/corev1"
	"pgregory.net/rapid"
)

// disks is the storage of a model: claims that have their volumes, and volumes on nodes that wait for a claim.
type disks struct {
	claims  map[string]*v1.PersistentVolumeClaim // by namespace/name
	volumes map[string]*v1.PersistentVolume
	taken   map[string]bool // volumes promised to a claim that waited
	limits  map[string]int  // by node: how many volumes of the driver it attaches
}

const (
	aDriver   = "driver.x.io"
	localDisk = "local"
)

// drawDisks makes the storage of a cluster and tells the table.
func drawDisks(t *rapid.T, table *Table, nodes int) *disks {
	d := &disks{claims: map[string]*v1.PersistentVolumeClaim{}, volumes: map[string]*v1.PersistentVolume{}, taken: map[string]bool{}, limits: map[string]int{}}
	class := &storagev1.StorageClass{Provisioner: noProvisioner, VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer)}
	class.Name = localDisk
	table.Storage.SetClass(localDisk, class)
	if rapid.IntRange(0, 2).Draw(t, "storage") == 0 {
		return d
	}
	zones := rapid.SampledFrom([]string{"", "1", "2", "1__3"})
	for _, ns := range []string{"red", "blue"} {
		for i := range 2 {
			pv := &v1.PersistentVolume{}
			pv.Name = fmt.Sprintf("%s-%d", ns, i)
			pv.Spec.CSI = &v1.CSIPersistentVolumeSource{Driver: aDriver, VolumeHandle: pv.Name}
			if zone := zones.Draw(t, "volume's zone"); zone != "" {
				pv.Labels = map[string]string{v1.LabelTopologyZone: zone}
			}
			if zone := zones.Draw(t, "volume's reach"); len(zone) == 1 {
				pv.Spec.NodeAffinity = reaches(v1.LabelTopologyZone, zone)
			}
			c := &v1.PersistentVolumeClaim{}
			c.Namespace, c.Name = ns, fmt.Sprint("c", i)
			c.Spec.VolumeName, c.Status.Phase = pv.Name, v1.ClaimBound
			if rapid.Bool().Draw(t, "for one pod") {
				c.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}
			}
			pv.Spec.ClaimRef = &v1.ObjectReference{Namespace: ns, Name: c.Name}
			d.volumes[pv.Name], d.claims[ns+"/"+c.Name] = pv, c
			table.Storage.SetVolume(pv.Name, pv)
			table.Storage.SetClaim(ns+"/"+c.Name, c)
		}
	}
	for i := range nodes {
		name := fmt.Sprint("n", i)
		if rapid.Bool().Draw(t, "limits") {
			d.limits[name] = rapid.IntRange(1, 2).Draw(t, "limit")
			n := &storagev1.CSINode{Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
				{Name: aDriver, Allocatable: &storagev1.VolumeNodeResources{Count: new(int32(d.limits[name]))}}}}}
			table.Storage.SetNode(name, n)
		}
		for j := range rapid.IntRange(0, 2).Draw(t, "local disks") {
			pv := &v1.PersistentVolume{}
			pv.Name = fmt.Sprintf("local-%d-%d", i, j)
			pv.Spec.StorageClassName, pv.Spec.AccessModes = localDisk, []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}
			pv.Spec.Capacity = v1.ResourceList{v1.ResourceStorage: *resource.NewQuantity(rapid.Int64Range(1, 3).Draw(t, "size"), resource.DecimalSI)}
			pv.Spec.NodeAffinity = reaches(v1.LabelHostname, name)
			pv.Status.Phase = v1.VolumeAvailable
			d.volumes[pv.Name] = pv
			table.Storage.SetVolume(pv.Name, pv)
		}
	}
	return d
}

func reaches(key, value string) *v1.VolumeNodeAffinity {
	return &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
		MatchExpressions: []v1.NodeSelectorRequirement{{Key: key, Operator: v1.NodeSelectorOpIn, Values: []string{value}}}}}}}
}

// claim makes the claim of a pod that wants a local disk of its own.
func (d *disks) claim(table *Table, p *v1.Pod, size int64) {
	class := localDisk
	c := &v1.PersistentVolumeClaim{}
	c.Namespace, c.Name = p.Namespace, p.Name
	c.Spec.StorageClassName, c.Spec.AccessModes = &class, []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}
	c.Spec.Resources.Requests = v1.ResourceList{v1.ResourceStorage: *resource.NewQuantity(size, resource.DecimalSI)}
	d.claims[c.Namespace+"/"+c.Name] = c
	table.Storage.SetClaim(c.Namespace+"/"+c.Name, c)
	p.Spec.Volumes = append(p.Spec.Volumes, uses(c.Name))
}

func uses(claim string) v1.Volume {
	return v1.Volume{Name: claim, VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}
}

func (d *disks) of(p *v1.Pod) (out []*v1.PersistentVolumeClaim) {
	for i := range p.Spec.Volumes {
		out = append(out, d.claims[p.Namespace+"/"+p.Spec.Volumes[i].PersistentVolumeClaim.ClaimName])
	}
	return out
}

// local answers the smallest free disk of a node for a claim that waits, nil when there is none.
func (d *disks) local(c *v1.PersistentVolumeClaim, n *v1.Node) (best *v1.PersistentVolume) {
	for _, pv := range d.volumes {
		size, asked := pv.Spec.Capacity[v1.ResourceStorage], c.Spec.Resources.Requests[v1.ResourceStorage]
		if pv.Spec.StorageClassName != localDisk || d.taken[pv.Name] || !reached(pv, n) || size.Cmp(asked) < 0 {
			continue
		}
		if best == nil || size.Cmp(best.Spec.Capacity[v1.ResourceStorage]) < 0 {
			best = pv
		}
	}
	return best
}

func reached(pv *v1.PersistentVolume, n *v1.Node) bool {
	if pv.Spec.NodeAffinity == nil {
		return true
	}
	ok, err := corev1.MatchNodeSelectorTerms(n, pv.Spec.NodeAffinity.Required)
	return ok && err == nil
}

// storageVerdict asks the rules about volumes, in their order.
func (m *model) storageVerdict(p *v1.Pod, n *v1.Node) (reasons []string, final bool) {
	d := m.disks
	for _, c := range d.of(p) {
		for _, q := range m.pods {
			if exclusive(c) && slices.Contains(d.of(q), c) {
				return []string{"node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"}, false
			}
		}
	}
	handles, fresh := map[string]bool{}, 0
	for _, q := range m.on(n.Name) {
		for _, c := range d.of(q) {
			handles[c.Spec.VolumeName] = c.Spec.VolumeName != ""
		}
	}
	delete(handles, "")
	for _, c := range d.of(p) {
		if c.Spec.VolumeName != "" && !handles[c.Spec.VolumeName] {
			fresh++
		}
	}
	if limit, ok := d.limits[n.Name]; ok && fresh > 0 && len(handles)+fresh > limit {
		return []string{"node(s) exceed max volume count"}, false
	}
	for _, c := range d.of(p) {
		if c.Spec.VolumeName != "" && !reached(d.volumes[c.Spec.VolumeName], n) {
			reasons = append(reasons, "node(s) didn't match PersistentVolume's node affinity")
		}
		if c.Spec.VolumeName == "" && d.local(c, n) == nil {
			reasons = append(reasons, "node(s) didn't find available persistent volumes to bind")
		}
	}
	if len(reasons) > 0 {
		return reasons, true
	}
	for _, c := range d.of(p) {
		if c.Spec.VolumeName == "" {
			continue
		}
		zone, ok := d.volumes[c.Spec.VolumeName].Labels[v1.LabelTopologyZone]
		has := n.Labels[v1.LabelTopologyZone]
		if ok && has != "" && zone != has && !(len(zone) > 1 && (has == zone[:1] || has == zone[3:])) {
			return []string{"node(s) had no available volume zone"}, true
		}
	}
	return nil, false
}

// locality is the score by images: their sizes on a node, each by the share of nodes that hold it.
func (m *model) locality(p *v1.Pod, n *v1.Node) int64 {
	sum := int64(0)
	held := func(n *v1.Node, name string) int64 {
		for _, image := range n.Status.Images {
			if slices.Contains(image.Names, name) {
				return image.SizeBytes
			}
		}
		return 0
	}
	for i := range p.Spec.Containers {
		name, nodes := normalImage(p.Spec.Containers[i].Image), 0
		for _, other := range m.nodes {
			if held(other, name) > 0 {
				nodes++
			}
		}
		sum += int64(float64(held(n, name)) * float64(nodes) / float64(len(m.nodes)))
	}
	const least = 23 << 20
	most := int64(1000<<20) * int64(len(p.Spec.Containers))
	return 100 * (min(max(sum, least), most) - least) / (most - least)
}

// drawBudget guards pods of one application, and tells the table.
func drawBudget(t *rapid.T, table *Table, m *model) {
	b := &policyv1.PodDisruptionBudget{}
	b.Namespace, b.Name = spaces.Draw(t, "budget's namespace"), apps.Draw(t, "guarded")
	b.Spec.Selector = labelSelector(map[string]string{"app": b.Name})
	b.Status.DisruptionsAllowed = rapid.Int32Range(0, 1).Draw(t, "allowed")
	key := b.Namespace + "/" + b.Name
	m.budgets[key] = b
	table.SetBudget(key, &Budget{Namespace: b.Namespace, Pods: selector(b.Spec.Selector), Allowed: b.Status.DisruptionsAllowed})
}

// guards parts pods, the most important first, into those whose eviction breaks a budget and the others.
func (m *model) guards(pods []*v1.Pod) (guarded, free []*v1.Pod) {
	left := map[string]int32{}
	for key, b := range m.budgets {
		left[key] = b.Status.DisruptionsAllowed
	}
	for _, p := range pods {
		broken := false
		for key, b := range m.budgets {
			if b.Namespace == p.Namespace && selector(b.Spec.Selector).Matches(labels.Set(p.Labels)) {
				broken = broken || left[key] <= 0
				left[key]--
			}
		}
		if broken {
			guarded = append(guarded, p)
		} else {
			free = append(free, p)
		}
	}
	return guarded, free
}
