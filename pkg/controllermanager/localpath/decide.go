package localpath

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Provisioner is what storage classes name.
	Provisioner = "sextant.dev/local-path"

	finalizer       = "sextant.dev/local-path"
	claimNote       = "volume.kubernetes.io/storage-provisioner"
	selectedNote    = "volume.kubernetes.io/selected-node"
	provisionedNote = "pv.kubernetes.io/provisioned-by"
)

// ClaimSnapshot is what a decision about a claim is made on.
type ClaimSnapshot struct {
	Claim  *corev1.PersistentVolumeClaim
	Class  *storagev1.StorageClass // nil if it is gone
	Node   *corev1.Node            // the one that the scheduler chose, nil if it is gone
	Volume bool                    // the volume is there
	Pod    *corev1.Pod             // the one that makes the directory, nil if there is none
	Dir    string                  // where directories are made
}

// Plan is the next step. One of Make, Remove and Volume is set at most, and of Free and Delete.
type Plan struct {
	Make, Remove string                   // the directory that a pod on Node is to make, or to remove
	Node         string                   // its name
	Volume       *corev1.PersistentVolume // what is to be created
	Unselect     bool                     // the scheduler is to choose another node
	Clear        bool                     // the pod has done its work, or failed to
	Undo         bool                     // what the pod made nobody wants: remove it where it is, and clear the pod
	Free         bool                     // the volume is being deleted and has nothing left: take the finalizer off
	Delete       bool                     // the volume has nothing left: delete it, which brings it again to be freed
	Tell         []Event
	Fault        string // the step failed and is tried again
}

// Event is what users are told.
type Event struct{ Type, Reason, Message string }

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	line := func(on bool, format string, args ...any) {
		if on {
			fmt.Fprintf(&b, format+"\n", args...)
		}
	}
	line(p.Make != "", "make %s on %s", p.Make, p.Node)
	line(p.Remove != "", "remove %s on %s", p.Remove, p.Node)
	if v := p.Volume; v != nil {
		q := v.Spec.Capacity[corev1.ResourceStorage]
		fmt.Fprintf(&b, "volume %s of %s at %s, %s, on %v\n", v.Name, q.String(), v.Spec.HostPath.Path, v.Spec.PersistentVolumeReclaimPolicy, v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values)
	}
	line(p.Unselect, "choose another node")
	line(p.Clear, "clear the pod")
	line(p.Undo, "undo what the pod made")
	line(p.Free, "let go")
	line(p.Delete, "delete")
	for _, e := range p.Tell {
		fmt.Fprintf(&b, "tell %s %s: %s\n", e.Type, e.Reason, e.Message)
	}
	line(p.Fault != "", "again: %s", p.Fault)
	return b.String()
}

func (p *Plan) failed(format string, args ...any) {
	p.Tell = append(p.Tell, Event{corev1.EventTypeWarning, "ProvisioningFailed", fmt.Sprintf("failed to provision volume: "+format, args...)})
}

// volumeName is the name of a claim's volume, and of its directory: nothing that a user chose is in it.
func volumeName(c *corev1.PersistentVolumeClaim) string { return "pvc-" + string(c.UID) }

// decideClaim provisions a claim's volume: a directory on the node that the scheduler chose, then the volume that names it.
func decideClaim(s ClaimSnapshot) Plan {
	var p Plan
	c := s.Claim
	there := s.Volume || c.Spec.VolumeName == volumeName(c) // one that is bound may be news that has not come yet
	if c.DeletionTimestamp != nil || c.Spec.VolumeName != "" || c.Annotations[claimNote] != Provisioner {
		p.Clear, p.Undo = s.Pod != nil && there, s.Pod != nil && !there
		return p
	}
	node := c.Annotations[selectedNote]
	switch {
	case s.Volume:
		p.Clear = s.Pod != nil
	case s.Class == nil || s.Class.Provisioner != Provisioner: // its binder says so
	case s.Class.VolumeBindingMode == nil || *s.Class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer:
		p.failed("a directory is on one node: the class %q needs volumeBindingMode WaitForFirstConsumer", s.Class.Name)
	case node == "":
	case c.Spec.VolumeMode != nil && *c.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		p.failed("a directory is no block device")
	case slices.ContainsFunc(c.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool {
		return m != corev1.ReadWriteOnce && m != corev1.ReadWriteOncePod
	}):
		p.failed("a directory on one node is ReadWriteOnce or ReadWriteOncePod, not %v", c.Spec.AccessModes)
	case s.Node == nil:
		p.failed("node %q is gone", node)
		p.Unselect, p.Clear = true, s.Pod != nil // what it made went with the node
	case s.Pod == nil:
		p.Make, p.Node = volumeName(c), node
		p.Tell = append(p.Tell, Event{corev1.EventTypeNormal, "Provisioning", fmt.Sprintf("External provisioner is provisioning volume for claim \"%s/%s\"", c.Namespace, c.Name)})
	case s.Pod.Spec.NodeName != node: // the scheduler has thought again
		p.Undo = true
	case s.Pod.Status.Phase == corev1.PodFailed:
		p.failed("making %s on %s: %s", path.Join(s.Dir, volumeName(c)), node, why(s.Pod))
		p.Clear, p.Fault = true, "the directory could not be made"
	case s.Pod.Status.Phase == corev1.PodSucceeded:
		p.Volume = volume(s)
		p.Tell = append(p.Tell, Event{corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume " + p.Volume.Name})
	}
	return p
}

// why answers what a pod that failed says.
func why(p *corev1.Pod) string {
	for _, c := range p.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil {
			return strings.TrimSpace(fmt.Sprintf("%s %s (exit code %d)", t.Reason, t.Message, t.ExitCode))
		}
	}
	return strings.TrimSpace(p.Status.Reason + " " + p.Status.Message)
}

func volume(s ClaimSnapshot) *corev1.PersistentVolume {
	c := s.Claim
	policy := corev1.PersistentVolumeReclaimDelete
	if s.Class.ReclaimPolicy != nil {
		policy = *s.Class.ReclaimPolicy
	}
	host := s.Node.Labels[corev1.LabelHostname]
	if host == "" {
		host = s.Node.Name
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: volumeName(c), Annotations: map[string]string{provisionedNote: Provisioner}, Finalizers: []string{finalizer}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: c.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   c.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: policy, StorageClassName: s.Class.Name, MountOptions: s.Class.MountOptions, VolumeMode: new(corev1.PersistentVolumeFilesystem),
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path.Join(s.Dir, volumeName(c)), Type: new(corev1.HostPathDirectory)}},
			ClaimRef:               &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID, ResourceVersion: c.ResourceVersion},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{host}}},
			}}}},
		},
	}
}

// ours are the names of volumes that were made here: nothing else is ever removed from a node.
var ours = regexp.MustCompile(`^pvc-[0-9a-f-]{36}$`)

// VolumeSnapshot is what a decision about a volume is made on.
type VolumeSnapshot struct {
	Volume *corev1.PersistentVolume
	Node   *corev1.Node // where it is, nil if that is gone
	Pod    *corev1.Pod  // the one that removes the directory, nil if there is none
	Dir    string
}

// decideVolume removes what nobody claims any more from its node, and then the volume.
func decideVolume(s VolumeSnapshot) Plan {
	var p Plan
	v := s.Volume
	held := slices.Contains(v.Finalizers, finalizer)
	leaves := v.DeletionTimestamp != nil && v.Status.Phase != corev1.VolumeBound
	switch {
	case !held || v.Annotations[provisionedNote] != Provisioner:
	case leaves && v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
		p.Free, p.Clear = true, s.Pod != nil // the data stays
	case !leaves && (v.Status.Phase != corev1.VolumeReleased && v.Status.Phase != corev1.VolumeFailed || v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete):
	case !ours.MatchString(v.Name) || v.Spec.HostPath == nil || v.Spec.HostPath.Path != path.Join(s.Dir, v.Name):
		p.Tell = append(p.Tell, Event{corev1.EventTypeWarning, "VolumeFailedDelete", fmt.Sprintf("its path is not %s: remove it by hand, and the finalizer %s", path.Join(s.Dir, v.Name), finalizer)})
	case (s.Node == nil || s.Pod != nil && s.Pod.Status.Phase == corev1.PodSucceeded) && v.DeletionTimestamp == nil:
		p.Delete = true // the finalizer stays till then: after a death it alone says that the volume is still ours to end
	case s.Node == nil, s.Pod != nil && s.Pod.Status.Phase == corev1.PodSucceeded:
		p.Free, p.Clear = true, s.Pod != nil
	case s.Pod == nil:
		p.Remove, p.Node = v.Name, s.Node.Name
	case s.Pod.Status.Phase == corev1.PodFailed:
		p.Tell = append(p.Tell, Event{corev1.EventTypeWarning, "VolumeFailedDelete", fmt.Sprintf("removing %s on %s: %s", path.Join(s.Dir, v.Name), s.Node.Name, why(s.Pod))})
		p.Clear, p.Fault = true, "the directory could not be removed"
	}
	return p
}

// hostOf is the value of a volume's node affinity.
func hostOf(v *corev1.PersistentVolume) string {
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		for _, t := range a.Required.NodeSelectorTerms {
			for _, e := range t.MatchExpressions {
				if e.Key == corev1.LabelHostname && len(e.Values) == 1 {
					return e.Values[0]
				}
			}
		}
	}
	return ""
}
