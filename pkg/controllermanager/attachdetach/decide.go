package attachdetach

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// unmountPatience is how long a node that is not well may keep a volume in use that no pod wants there.
const unmountPatience = 6 * time.Minute

// The annotations in which a node says who attaches its volumes, and whether pods that ended keep theirs.
const (
	managedNote = "volumes.kubernetes.io/controller-managed-attach-detach"
	keepNote    = "volumes.kubernetes.io/keep-terminated-pod-volumes"
)

// Volume is a volume of a CSI driver that wants attaching.
type Volume struct {
	PV, Driver, Handle string
	Exclusive          bool // one node may have it at a time
}

// Name is how a node's status names the volume.
func (v Volume) Name() corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + v.Driver + "^" + v.Handle)
}

// attachment is the name of the VolumeAttachment of a volume to a node.
func (v Volume) attachment(node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(v.Handle+v.Driver+node)))
}

// Want is a volume that pods of the node are for.
type Want struct {
	Volume
	Pods   []*corev1.Pod
	Nodes  []string // other nodes that have it, or are getting it
	Others []string // the pods there that use it
}

// Have is a volume that the node has, or is getting.
type Have struct {
	Volume
	Attachment *storagev1.VolumeAttachment
	Idle       time.Time // since when no pod wants it
}

// Snapshot is what a decision about a node is made on.
type Snapshot struct {
	Name    string
	Node    *corev1.Node // nil if it is gone
	Wants   []Want
	Haves   []Have
	Now     time.Time
	NoForce bool // never take a volume in use off a node only because its time is over
}

// Plan is what is to be written, in this order: a node is told that a volume goes before it goes.
type Plan struct {
	Report *[]corev1.AttachedVolume // the node's status, nil = as it is
	Attach []Volume
	Detach []*storagev1.VolumeAttachment
	Tell   []Event
	Again  time.Duration // 0 = when something changes
}

// Event is what the users of a pod are told, once for each Once.
type Event struct {
	Pod                         *corev1.Pod
	Type, Reason, Message, Once string
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	if p.Report != nil {
		b.WriteString("report")
		for _, v := range *p.Report {
			fmt.Fprintf(&b, " %s", v.Name)
		}
		b.WriteString("\n")
	}
	for _, v := range p.Attach {
		fmt.Fprintf(&b, "attach %s\n", v.PV)
	}
	for _, a := range p.Detach {
		fmt.Fprintf(&b, "detach %s\n", *a.Spec.Source.PersistentVolumeName)
	}
	for _, e := range p.Tell {
		fmt.Fprintf(&b, "tell %s %s %s: %s\n", e.Pod.Name, e.Type, e.Reason, e.Message)
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %s\n", p.Again)
	}
	return b.String()
}

func (p *Plan) tell(pods []*corev1.Pod, kind, reason, once, format string, args ...any) {
	for _, x := range pods {
		p.Tell = append(p.Tell, Event{x, kind, reason, fmt.Sprintf(format, args...), string(x.UID) + reason + once})
	}
}

// decide says what a node gets, what it gives back, and what it is told to have.
func decide(s Snapshot) Plan {
	var p Plan
	wanted := map[string]Want{}
	for _, w := range s.Wants {
		wanted[w.attachment(s.Name)] = w
	}
	report, had := []corev1.AttachedVolume{}, map[string]bool{}
	for _, h := range s.Haves {
		had[h.Attachment.Name] = true
		w, ok := wanted[h.Attachment.Name]
		switch {
		case h.Attachment.DeletionTimestamp != nil: // its driver is at it; a pod that wants it waits
		case !ok && p.release(s, h):
		case h.Attachment.Status.Attached:
			report = append(report, corev1.AttachedVolume{Name: h.Name()})
			if ok && !reported(s.Node, h.Name()) {
				p.tell(w.Pods, corev1.EventTypeNormal, "SuccessfulAttachVolume", string(h.Attachment.UID), "AttachVolume.Attach succeeded for volume %q ", h.PV)
			}
		case ok && h.Attachment.Status.AttachError != nil:
			e := h.Attachment.Status.AttachError
			p.tell(w.Pods, corev1.EventTypeWarning, "FailedAttachVolume", e.Time.String()+e.Message, "AttachVolume.Attach failed for volume %q : %s", h.PV, e.Message)
		}
	}
	if !managed(s.Node) {
		return p
	}
	for _, w := range s.Wants {
		switch {
		case had[w.attachment(s.Name)]:
		case w.Exclusive && len(w.Nodes) > 0:
			why := "Volume is already exclusively attached to one node and can't be attached to another"
			if len(w.Others) > 0 {
				why = "Volume is already used by pod(s) " + strings.Join(w.Others, ", ")
			}
			p.tell(w.Pods, corev1.EventTypeWarning, "FailedAttachVolume", "multi "+w.PV, "Multi-Attach error for volume %q %s", w.PV, why)
		default:
			p.Attach = append(p.Attach, w.Volume)
		}
	}
	slices.SortFunc(report, func(a, b corev1.AttachedVolume) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Attach, func(a, b Volume) int { return cmp.Compare(a.PV, b.PV) })
	if !same(s.Node.Status.VolumesAttached, report) {
		p.Report = &report
	}
	return p
}

// release takes a volume that nobody wants off the node: when the node has let go of it, or is out of service, or has not
// been well for so long that nothing of it is believed.
func (p *Plan) release(s Snapshot, h Have) bool {
	left := unmountPatience - s.Now.Sub(h.Idle)
	switch {
	case s.Node != nil && !slices.Contains(s.Node.Status.VolumesInUse, h.Name()), outOfService(s.Node):
	case ready(s.Node) || s.NoForce:
		return false // it will say when it has let go
	case left > 0:
		if p.Again == 0 || left < p.Again {
			p.Again = left
		}
		return false
	}
	p.Detach = append(p.Detach, h.Attachment)
	return true
}

func managed(n *corev1.Node) bool { return n != nil && n.Annotations[managedNote] == "true" }

func reported(n *corev1.Node, name corev1.UniqueVolumeName) bool {
	return n != nil && slices.ContainsFunc(n.Status.VolumesAttached, func(a corev1.AttachedVolume) bool { return a.Name == name })
}

func outOfService(n *corev1.Node) bool {
	return n != nil && slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

func ready(n *corev1.Node) bool {
	return n != nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func same(a, b []corev1.AttachedVolume) bool {
	a = slices.Clone(a)
	slices.SortFunc(a, func(x, y corev1.AttachedVolume) int { return cmp.Compare(x.Name, y.Name) })
	return slices.Equal(a, b)
}

// uses tells whether a pod still has its volumes: not when it ended, unless its node says that it keeps them.
func uses(p *corev1.Pod, n *corev1.Node) bool {
	if n != nil && n.Annotations[keepNote] == "true" {
		return true
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return false
	}
	return p.DeletionTimestamp == nil || slices.ContainsFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Terminated == nil && c.State.Waiting == nil
	})
}

// volumeOf answers a persistent volume as one to attach, if it is one.
func volumeOf(v *corev1.PersistentVolume, needs func(driver string) bool) (Volume, bool) {
	csi := v.Spec.CSI
	if csi == nil || !needs(csi.Driver) {
		return Volume{}, false
	}
	shared := slices.Contains(v.Spec.AccessModes, corev1.ReadWriteMany) || slices.Contains(v.Spec.AccessModes, corev1.ReadOnlyMany)
	return Volume{v.Name, csi.Driver, csi.VolumeHandle, !shared && len(v.Spec.AccessModes) > 0}, true
}
