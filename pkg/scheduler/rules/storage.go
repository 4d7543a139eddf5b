package rules

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/component-helpers/storage/volume"
)

// Storage is what the volume plugins know of claims, volumes and drivers. The objects in it are not to be changed. Any change
// makes the views of pods with volumes be built anew.
type Storage struct {
	table      *Table
	version    uint64
	claims     map[string]*v1.PersistentVolumeClaim
	volumes    map[string]*v1.PersistentVolume
	byClass    map[string]map[string]*v1.PersistentVolume // volumes by their class
	classes    map[string]*storagev1.StorageClass
	nodes      map[string]*storagev1.CSINode
	drivers    map[string]*storagev1.CSIDriver
	capacities map[string]*storagev1.CSIStorageCapacity
	taken      map[string]string // volumes promised to a claim by a decision
	chosen     map[string]string // claims whose node a decision chose
	users      map[string]int    // standing pods by claim
}

func newStorage(t *Table) *Storage {
	return &Storage{
		table: t, claims: map[string]*v1.PersistentVolumeClaim{}, volumes: map[string]*v1.PersistentVolume{},
		byClass: map[string]map[string]*v1.PersistentVolume{}, classes: map[string]*storagev1.StorageClass{}, nodes: map[string]*storagev1.CSINode{},
		drivers: map[string]*storagev1.CSIDriver{}, capacities: map[string]*storagev1.CSIStorageCapacity{},
		taken: map[string]string{}, chosen: map[string]string{}, users: map[string]int{},
	}
}

// put keeps or, with nil, forgets an object.
func put[T any](s *Storage, m map[string]*T, key string, o *T) {
	if o == nil {
		delete(m, key)
	} else {
		m[key] = o
	}
	s.version++
}

// SetClaim keeps a claim by namespace/name; nil forgets it.
func (s *Storage) SetClaim(key string, c *v1.PersistentVolumeClaim) {
	if c == nil || c.Spec.VolumeName != "" {
		delete(s.chosen, key)
	}
	put(s, s.claims, key, c)
}

// SetVolume keeps a volume; nil forgets it.
func (s *Storage) SetVolume(name string, pv *v1.PersistentVolume) {
	if old := s.volumes[name]; old != nil {
		delete(s.byClass[volume.GetPersistentVolumeClass(old)], name)
	}
	if pv == nil || pv.Spec.ClaimRef != nil {
		delete(s.taken, name)
	}
	if pv != nil {
		class := volume.GetPersistentVolumeClass(pv)
		if s.byClass[class] == nil {
			s.byClass[class] = map[string]*v1.PersistentVolume{}
		}
		s.byClass[class][name] = pv
	}
	put(s, s.volumes, name, pv)
}

// SetClass keeps a storage class; nil forgets it.
func (s *Storage) SetClass(name string, c *storagev1.StorageClass) { put(s, s.classes, name, c) }

// SetNode keeps what the drivers of a node said; nil forgets it.
func (s *Storage) SetNode(name string, n *storagev1.CSINode) { put(s, s.nodes, name, n) }

// SetDriver keeps a driver; nil forgets it.
func (s *Storage) SetDriver(name string, d *storagev1.CSIDriver) { put(s, s.drivers, name, d) }

// SetCapacity keeps a storage capacity by namespace/name; nil forgets it.
func (s *Storage) SetCapacity(key string, c *storagev1.CSIStorageCapacity) {
	put(s, s.capacities, key, c)
}

// Claim answers a claim, nil when it is unknown.
func (s *Storage) Claim(key string) *v1.PersistentVolumeClaim { return s.claims[key] }

// Volume answers a volume, nil when it is unknown.
func (s *Storage) Volume(name string) *v1.PersistentVolume { return s.volumes[name] }

// VolumeBind is one claim to be written before its pod is bound: a volume is made the claim's, or the claim's node is chosen so that
// a volume is made there.
type VolumeBind struct {
	Claim  string // namespace/name
	Volume string // empty: to be made
	Node   string
}

func (b VolumeBind) String() string {
	if b.Volume != "" {
		return fmt.Sprintf("volume %s for %s", b.Volume, b.Claim)
	}
	return fmt.Sprintf("new volume for %s", b.Claim)
}

// Reserve keeps the volumes of a plan from other pods, until they are seen bound or Unreserve gives them back.
func (s *Storage) Reserve(binds []VolumeBind) {
	for _, b := range binds {
		if b.Volume != "" {
			s.taken[b.Volume] = b.Claim
		} else {
			s.chosen[b.Claim] = b.Node
		}
		s.version++
	}
}

// Unreserve gives the volumes of a plan back.
func (s *Storage) Unreserve(binds []VolumeBind) {
	for _, b := range binds {
		if b.Volume != "" {
			delete(s.taken, b.Volume)
		} else {
			delete(s.chosen, b.Claim)
		}
		s.version++
	}
}

// use counts the pods that use a claim. Where only one pod may, that decides about all nodes.
func (s *Storage) use(c *Class, sign int) {
	for _, u := range c.claims {
		key := c.Namespace + "/" + u.name
		if s.users[key] += sign; s.users[key] <= 0 {
			delete(s.users, key)
		}
		if pvc := s.claims[key]; pvc != nil && exclusive(pvc) && !s.table.thinking {
			s.version++
		}
	}
}

func exclusive(c *v1.PersistentVolumeClaim) bool {
	return slices.Contains(c.Spec.AccessModes, v1.ReadWriteOncePod)
}

// readVolumes notes the volumes of a pod that scheduling has to look at.
func (c *Class) readVolumes(p *v1.Pod) {
	for i := range p.Spec.Volumes {
		w := &p.Spec.Volumes[i]
		switch {
		case w.PersistentVolumeClaim != nil:
			c.claims = append(c.claims, claimUse{name: w.PersistentVolumeClaim.ClaimName})
		case w.Ephemeral != nil:
			c.claims = append(c.claims, claimUse{name: ephemeral.VolumeClaimName(p, w), pod: p.Name, uid: p.UID})
		case w.GCEPersistentDisk != nil || w.AWSElasticBlockStore != nil || w.ISCSI != nil || w.RBD != nil:
			c.disks = append(c.disks, v1.Volume{VolumeSource: w.VolumeSource})
		}
	}
}

// split sorts the claims of a class into those with their volume, and those whose volume is found once the node is known.
// A claim that cannot be used yet answers in words.
func (s *Storage) split(c *Class) (bound, waiting []*v1.PersistentVolumeClaim, problem string) {
	for _, u := range c.claims {
		pvc := s.claims[c.Namespace+"/"+u.name]
		switch {
		case pvc == nil && u.pod != "":
			return nil, nil, fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", u.name)
		case pvc == nil:
			return nil, nil, fmt.Sprintf("persistentvolumeclaim %q not found", u.name)
		case pvc.Status.Phase == v1.ClaimLost:
			return nil, nil, fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", u.name, pvc.Spec.VolumeName)
		case pvc.DeletionTimestamp != nil:
			return nil, nil, fmt.Sprintf("persistentvolumeclaim %q is being deleted", u.name)
		case u.pod != "" && !ownedBy(pvc, u):
			return nil, nil, fmt.Sprintf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", c.Namespace, u.name, c.Namespace, u.pod)
		case IsBound(pvc):
			bound = append(bound, pvc)
		case s.waits(pvc) && pvc.Spec.VolumeName == "":
			waiting = append(waiting, pvc)
		default:
			return nil, nil, "pod has unbound immediate PersistentVolumeClaims"
		}
	}
	return bound, waiting, ""
}

// IsBound says whether a claim and its volume are one.
func IsBound(c *v1.PersistentVolumeClaim) bool {
	_, done := c.Annotations[volume.AnnBindCompleted]
	return c.Spec.VolumeName != "" && (done || c.Status.Phase == v1.ClaimBound)
}

func ownedBy(pvc *v1.PersistentVolumeClaim, u claimUse) bool {
	ref := metav1.GetControllerOfNoCopy(pvc)
	return ref != nil && ref.UID == u.uid
}

func (s *Storage) waits(pvc *v1.PersistentVolumeClaim) bool {
	class := s.classes[volume.GetPersistentVolumeClaimClass(pvc)]
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// place finds, for claims that wait, a volume each that the node reaches, the smallest claims first; or sees whether one can be made
// there. It answers what must be written, or one of the two reasons why not.
func (s *Storage) place(waiting []*v1.PersistentVolumeClaim, n *v1.Node) (binds []VolumeBind, noVolume, noSpace bool) {
	sorted := slices.Clone(waiting)
	slices.SortStableFunc(sorted, func(a, b *v1.PersistentVolumeClaim) int {
		x, y := a.Spec.Resources.Requests[v1.ResourceStorage], b.Spec.Resources.Requests[v1.ResourceStorage]
		return cmp.Or(x.Cmp(y), cmp.Compare(a.Name, b.Name))
	})
	used := map[string]*v1.PersistentVolume{}
	for _, pvc := range sorted {
		key := pvc.Namespace + "/" + pvc.Name
		node, set := pvc.Annotations[volume.AnnSelectedNode]
		if !set {
			node, set = s.chosen[key]
		}
		if set && node != n.Name {
			return nil, true, false
		}
		if !set {
			var candidates []*v1.PersistentVolume
			of := s.byClass[volume.GetPersistentVolumeClaimClass(pvc)]
			for _, name := range slices.Sorted(maps.Keys(of)) {
				if owner, ok := s.taken[name]; !ok || owner == key {
					candidates = append(candidates, of[name])
				}
			}
			if pv, err := volume.FindMatchingVolume(pvc, candidates, n, used, true, true); err == nil && pv != nil {
				used[pv.Name] = pv
				binds = append(binds, VolumeBind{Claim: key, Volume: pv.Name, Node: n.Name})
				continue
			}
		}
		class := s.classes[volume.GetPersistentVolumeClaimClass(pvc)]
		if class == nil || class.Provisioner == "" || class.Provisioner == noProvisioner || !topologyAllows(class.AllowedTopologies, n.Labels) {
			return nil, true, false
		}
		if !s.enoughSpace(class, pvc, n) {
			return nil, false, true
		}
		binds = append(binds, VolumeBind{Claim: key, Node: n.Name})
	}
	return binds, false, false
}

const noProvisioner = "kubernetes.io/no-provisioner"

func topologyAllows(terms []v1.TopologySelectorTerm, l map[string]string) bool {
	if len(terms) == 0 {
		return true
	}
	return slices.ContainsFunc(terms, func(term v1.TopologySelectorTerm) bool {
		for _, e := range term.MatchLabelExpressions {
			if value, ok := l[e.Key]; !ok || !slices.Contains(e.Values, value) {
				return false
			}
		}
		return len(term.MatchLabelExpressions) > 0
	})
}

// enoughSpace asks the capacities that the driver published, if it does.
func (s *Storage) enoughSpace(class *storagev1.StorageClass, pvc *v1.PersistentVolumeClaim, n *v1.Node) bool {
	size, asked := pvc.Spec.Resources.Requests[v1.ResourceStorage]
	driver := s.drivers[class.Provisioner]
	if !asked || driver == nil || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return true
	}
	for _, c := range s.capacities {
		limit := c.MaximumVolumeSize
		if limit == nil {
			limit = c.Capacity
		}
		if c.StorageClassName != class.Name || limit == nil || limit.Cmp(size) < 0 || c.NodeTopology == nil {
			continue
		}
		if where, err := metav1.LabelSelectorAsSelector(c.NodeTopology); err == nil && where.Matches(labels.Set(n.Labels)) {
			return true
		}
	}
	return false
}

// bindsFor answers what must be written before a pod of the class is bound to the row.
func (s *Storage) bindsFor(c *Class, r int32) []VolumeBind {
	_, waiting, _ := s.split(c)
	binds, _, _ := s.place(waiting, s.table.rows[r].node)
	return binds
}
