package volumebinder

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// The annotations in which binding is written down, as schedulers and provisioners know them.
const (
	completedNote    = "pv.kubernetes.io/bind-completed"
	byControllerNote = "pv.kubernetes.io/bound-by-controller"
	provisionerNote  = "volume.kubernetes.io/storage-provisioner"
	provisionerOld   = "volume.beta.kubernetes.io/storage-provisioner"
	selectedNodeNote = "volume.kubernetes.io/selected-node"
	defaultClassNote = "storageclass.kubernetes.io/is-default-class"
	noProvisioner    = "kubernetes.io/no-provisioner"
)

// Snapshot is what a decision about a claim is made on.
type Snapshot struct {
	Claim   *corev1.PersistentVolumeClaim
	Volumes []*corev1.PersistentVolume
	Classes []*storagev1.StorageClass
}

// Plan is what is to be written, in this order: the volume first, so that a claim never names one that another has.
type Plan struct {
	Volume       *corev1.PersistentVolume
	VolumeStatus *corev1.PersistentVolumeStatus // of that volume, or of the one that was looked at
	Claim        *corev1.PersistentVolumeClaim
	ClaimStatus  *corev1.PersistentVolumeClaimStatus
	Tell         []Event
}

// Event is what users are told.
type Event struct{ Type, Reason, Message string }

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	if v := p.Volume; v != nil {
		to := "nobody"
		if r := v.Spec.ClaimRef; r != nil {
			to = fmt.Sprintf("%s/%s (%s)", r.Namespace, r.Name, r.UID)
		}
		fmt.Fprintf(&b, "volume %s is for %s\n", v.Name, to)
	}
	if s := p.VolumeStatus; s != nil {
		fmt.Fprintf(&b, "volume is %s", s.Phase)
		if s.Message != "" {
			fmt.Fprintf(&b, ": %s", s.Message)
		}
		b.WriteString("\n")
	}
	if c := p.Claim; c != nil {
		class := "-"
		if c.Spec.StorageClassName != nil {
			class = *c.Spec.StorageClassName
		}
		fmt.Fprintf(&b, "claim has volume %q of class %q, notes %v\n", c.Spec.VolumeName, class, slices.Sorted(maps.Keys(c.Annotations)))
	}
	if s := p.ClaimStatus; s != nil {
		fmt.Fprintf(&b, "claim is %s", s.Phase)
		if q, ok := s.Capacity[corev1.ResourceStorage]; ok {
			fmt.Fprintf(&b, " of %s %v", q.String(), s.AccessModes)
		}
		b.WriteString("\n")
	}
	for _, e := range p.Tell {
		fmt.Fprintf(&b, "tell %s %s: %s\n", e.Type, e.Reason, e.Message)
	}
	return b.String()
}

func (p *Plan) tell(kind, reason, format string, args ...any) {
	p.Tell = append(p.Tell, Event{kind, reason, fmt.Sprintf(format, args...)})
}

// decideClaim finds a claim its volume, or says what it waits for.
func decideClaim(s Snapshot) Plan {
	var p Plan
	c := s.Claim
	if c.DeletionTimestamp != nil {
		return p
	}
	var mine *corev1.PersistentVolume
	for _, v := range s.Volumes {
		if v.Name == c.Spec.VolumeName {
			mine = v
		}
	}
	_, completed := c.Annotations[completedNote]
	switch {
	case completed && (c.Spec.VolumeName == "" || mine == nil):
		p.lost(c, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case completed && mine.Spec.ClaimRef != nil && mine.Spec.ClaimRef.UID != c.UID && mine.Spec.ClaimRef.UID != "":
		p.lost(c, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
	case c.Spec.VolumeName != "" && mine == nil:
		p.phase(c, corev1.ClaimPending)
	case c.Spec.VolumeName != "" && (mine.Spec.ClaimRef == nil || refers(mine.Spec.ClaimRef, c)):
		p.bind(c, mine)
	case c.Spec.VolumeName != "":
		p.tell(corev1.EventTypeWarning, "FailedBinding", "volume %q already bound to a different claim.", c.Spec.VolumeName)
		p.phase(c, corev1.ClaimPending)
	default:
		p.find(s)
	}
	return p
}

// refers tells whether a volume is meant for a claim.
func refers(r *corev1.ObjectReference, c *corev1.PersistentVolumeClaim) bool {
	return r.Namespace == c.Namespace && r.Name == c.Name && (r.UID == "" || r.UID == c.UID)
}

// find looks for the smallest volume that a claim may have.
func (p *Plan) find(s Snapshot) {
	c := s.Claim
	if c.Spec.StorageClassName == nil {
		if d := defaultClass(s.Classes); d != nil {
			next := c.DeepCopy()
			next.Spec.StorageClassName = &d.Name
			p.Claim = next
			return // the change brings the next turn
		}
	}
	name := className(c)
	var class *storagev1.StorageClass
	for _, x := range s.Classes {
		if x.Name == name {
			class = x
		}
	}
	waits := class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer && c.Annotations[selectedNodeNote] == ""
	if v := match(c, s.Volumes, waits); v != nil {
		p.bind(c, v)
		return
	}
	p.phase(c, corev1.ClaimPending)
	switch {
	case waits:
		p.tell(corev1.EventTypeNormal, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
	case name == "":
		p.tell(corev1.EventTypeNormal, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	case class == nil:
		p.tell(corev1.EventTypeWarning, "ProvisioningFailed", "storageclass.storage.k8s.io %q not found", name)
	case class.Provisioner == noProvisioner:
		p.tell(corev1.EventTypeNormal, "FailedBinding", "no persistent volumes available for this claim and its storage class has no provisioner")
	default:
		p.provision(c, class)
	}
}

// provision asks the class' provisioner, which is another program, for a volume.
func (p *Plan) provision(c *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) {
	if c.Annotations[provisionerNote] != class.Provisioner {
		next := c.DeepCopy()
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, provisionerNote, class.Provisioner)
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, provisionerOld, class.Provisioner)
		p.Claim = next
	}
	p.tell(corev1.EventTypeNormal, "ExternalProvisioning", "Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. "+
		"If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner)
}

// defaultClass answers the newest of the classes that say they are the default one.
func defaultClass(all []*storagev1.StorageClass) *storagev1.StorageClass {
	var out *storagev1.StorageClass
	for _, c := range all {
		if c.Annotations[defaultClassNote] != "true" {
			continue
		}
		if out == nil || out.CreationTimestamp.Before(&c.CreationTimestamp) || out.CreationTimestamp.Equal(&c.CreationTimestamp) && c.Name < out.Name {
			out = c
		}
	}
	return out
}

func className(c *corev1.PersistentVolumeClaim) string {
	if c.Spec.StorageClassName == nil {
		return ""
	}
	return *c.Spec.StorageClassName
}

// match answers the volume for a claim: one that is meant for it, or else the smallest that fits and nobody has. With
// only = true no other than one that is meant for it.
func match(c *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume, only bool) *corev1.PersistentVolume {
	sorted := slices.Clone(volumes)
	slices.SortFunc(sorted, func(a, b *corev1.PersistentVolume) int {
		x, y := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
		if n := x.Cmp(y); n != 0 {
			return n
		}
		return cmp.Compare(a.Name, b.Name)
	})
	for _, v := range sorted {
		if r := v.Spec.ClaimRef; r != nil && refers(r, c) && v.DeletionTimestamp == nil && fits(c, v) {
			return v
		}
	}
	if only {
		return nil
	}
	sel, err := metav1.LabelSelectorAsSelector(c.Spec.Selector)
	if err != nil {
		return nil
	}
	for _, v := range sorted {
		free := v.Spec.ClaimRef == nil && v.DeletionTimestamp == nil && (v.Status.Phase == corev1.VolumeAvailable || v.Status.Phase == "" || v.Status.Phase == corev1.VolumePending)
		if free && fits(c, v) && v.Spec.StorageClassName == className(c) && (c.Spec.Selector == nil || sel.Matches(labels.Set(v.Labels))) {
			return v
		}
	}
	return nil
}

// fits tells whether a volume is big enough, of the mode and with the access that a claim asks for.
func fits(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) bool {
	want, have := c.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	mode := func(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
		if m == nil {
			return corev1.PersistentVolumeFilesystem
		}
		return *m
	}
	class := func(n *string) string {
		if n == nil {
			return ""
		}
		return *n
	}
	for _, a := range c.Spec.AccessModes {
		if !slices.Contains(v.Spec.AccessModes, a) {
			return false
		}
	}
	return have.Cmp(want) >= 0 && mode(c.Spec.VolumeMode) == mode(v.Spec.VolumeMode) && class(c.Spec.VolumeAttributesClassName) == class(v.Spec.VolumeAttributesClassName)
}

// bind brings a claim and its volume together: each names the other and says so.
func (p *Plan) bind(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
	nv := v.DeepCopy()
	if r := nv.Spec.ClaimRef; r == nil || r.UID != c.UID {
		if r == nil {
			metav1.SetMetaDataAnnotation(&nv.ObjectMeta, byControllerNote, "yes")
		}
		nv.Spec.ClaimRef = &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID, ResourceVersion: c.ResourceVersion}
		p.Volume = nv
	}
	if v.Status.Phase != corev1.VolumeBound {
		p.VolumeStatus = &corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound}
	}
	nc := c.DeepCopy()
	if nc.Spec.VolumeName == "" {
		nc.Spec.VolumeName = v.Name
		metav1.SetMetaDataAnnotation(&nc.ObjectMeta, byControllerNote, "yes")
	}
	metav1.SetMetaDataAnnotation(&nc.ObjectMeta, completedNote, "yes")
	if !equality.Semantic.DeepEqual(nc, c) {
		p.Claim = nc
	}
	s := c.Status.DeepCopy()
	s.Phase, s.AccessModes = corev1.ClaimBound, v.Spec.AccessModes
	if _, known := s.Capacity[corev1.ResourceStorage]; !known { // later ones are an expansion's, which says so itself
		s.Capacity = corev1.ResourceList{corev1.ResourceStorage: v.Spec.Capacity[corev1.ResourceStorage]}
	}
	if !equality.Semantic.DeepEqual(*s, c.Status) {
		p.ClaimStatus = s
	}
}

func (p *Plan) lost(c *corev1.PersistentVolumeClaim, reason, message string) {
	if c.Status.Phase != corev1.ClaimLost {
		p.tell(corev1.EventTypeWarning, reason, "%s", message)
		p.ClaimStatus = &corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimLost, Conditions: c.Status.Conditions}
	}
}

func (p *Plan) phase(c *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase) {
	if c.Status.Phase != phase {
		s := c.Status.DeepCopy()
		s.Phase, s.AccessModes, s.Capacity = phase, nil, nil
		p.ClaimStatus = s
	}
}

// decideVolume says what phase a volume is in, and lets it go of a claim that took another. claim is the one that it
// names, nil if there is none.
func decideVolume(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) Plan {
	var p Plan
	is := func(phase corev1.PersistentVolumePhase) {
		if v.Status.Phase != phase {
			p.VolumeStatus = &corev1.PersistentVolumeStatus{Phase: phase}
		}
	}
	r := v.Spec.ClaimRef
	switch {
	case r == nil, r.UID == "":
		is(corev1.VolumeAvailable)
	case claim == nil || claim.UID != r.UID:
		if v.Status.Phase != corev1.VolumeReleased && v.Status.Phase != corev1.VolumeFailed {
			is(corev1.VolumeReleased)
			return p // the change brings the next turn
		}
		if e := refusal(v); e != nil && v.Status.Phase != corev1.VolumeFailed {
			p.VolumeStatus = &corev1.PersistentVolumeStatus{Phase: corev1.VolumeFailed, Message: e.Message}
			p.Tell = append(p.Tell, *e)
		}
	case claim.Spec.VolumeName == "": // the claim is about to be bound to it
	case claim.Spec.VolumeName == v.Name:
		is(corev1.VolumeBound)
	default:
		next := v.DeepCopy()
		if v.Annotations[byControllerNote] != "" {
			next.Spec.ClaimRef = nil
			delete(next.Annotations, byControllerNote)
		} else {
			next.Spec.ClaimRef.UID, next.Spec.ClaimRef.ResourceVersion = "", ""
		}
		p.Volume = next
		is(corev1.VolumeAvailable)
	}
	return p
}
